"""What README.md and docs/ show works, and what they name exists."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rmas_train

ROOT = Path(__file__).resolve().parents[2]
EXTEND = ROOT / "examples" / "extend"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROWS = {"recipe_options": {"train": 400, "test": 20}}
SMALL = {
    "experiment": "relay",
    "data": ROWS,
    "training": {"inner": {"steps": 2, "batch_size": 8}, "outer": {"steps": 2, "batch_size": 8}},
    "evaluation": {"max_rows": 8},
}


def blocks(document: str, language: str) -> list[tuple[str, str]]:
    """(word after the language, text) of its fenced blocks."""
    found = BLOCK.finditer((ROOT / document).read_text(encoding="utf-8"))
    return [(m[2], m[3]) for m in found if m[1] == language]


def section(document: str, title: str) -> str:
    return (
        (ROOT / document).read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    )


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A folder with a few rows of the relay, the example's prompts and a trained relay."""
    folder = tmp_path_factory.mktemp("documents")
    shutil.copytree(EXTEND / "prompts", folder / "my_prompts")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rmas_train.train(SMALL | {"run_dir": "outputs/relay"})
    return folder


def few(text: str) -> str:
    """The same code with few rows and steps."""
    text = re.sub(r'("(?:steps|max_rows)"): \d+', r"\1: 2", text)
    if '"data": {' in text:
        return text.replace('"data": {', f'"data": {ROWS} | {{')
    return text.replace('"experiment": "relay",', f'"experiment": "relay", "data": {ROWS},')


@pytest.mark.parametrize("document", ["README.md", "docs/architecture.md", "docs/extending.md"])
def test_python_works(document, scratch, monkeypatch):
    """Every block that is no excerpt of a file, in order, with small numbers."""
    monkeypatch.chdir(scratch)
    names: dict[str, object] = {}
    found = [text for word, text in blocks(document, "python") if not word]
    assert found
    for text in found:
        exec(compile(few(text), document, "exec"), names)


def test_results_tells_of_every_field(scratch, monkeypatch):
    monkeypatch.chdir(scratch)
    rows = rmas_train.evaluate(SMALL | {"run_dir": "outputs/relay"})
    found = json.loads(Path("outputs/relay/eval/results.json").read_text(encoding="utf-8"))
    record = json.loads(Path("outputs/relay/eval/answers.jsonl").read_text().splitlines()[0])
    look = next(iter(found["systems"].values()))
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text))
    named |= set(re.findall(r'"(\w+)"', text))
    assert {*rows[0], *found, *record, *look} <= named


def test_excerpts_are_what_the_example_holds():
    found = [*blocks("docs/extending.md", "python"), *blocks("docs/extending.md", "yaml")]
    excerpts = [(word, text) for word, text in found if word]
    assert len(excerpts) >= 8
    for word, text in excerpts:
        assert text in (EXTEND / word).read_text(encoding="utf-8"), f"{word} has changed"


@pytest.mark.slow
def test_the_way_of_one_question_is_what_is_traced():
    detail = re.findall(
        r"^\d+\. `(\S+\.py)`", section("docs/architecture.md", "The way of one question"), re.M
    )
    code = section("README.md", "Read the code").split("The method itself")[0]
    short = re.findall(r"`((?!scripts)\S+\.py)`", code)
    script = [sys.executable, str(ROOT / "scripts" / "reading_order.py")]
    traced = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert short == detail == re.findall(r"`(\S+\.py)`", traced)
    # Ten of them check what a model's folder holds.
    assert len(set(short)) == len(short) <= 65


def test_architecture_names_every_room():
    drawing = runpy.run_path(str(ROOT / "scripts" / "draw_rooms.py"))
    known, rooms = drawing["floors"](), section("docs/architecture.md", "Rooms")
    table = drawing["table"]()
    assert all(f"`{room}" in table for room in known)
    for room in known:
        name = f"{room}/" if (ROOT / "rmas_train" / room).is_dir() else f"{room}.py"
        assert rooms.count(f"| `{name}` |") == 2, name
    for room in re.findall(r"\| `(\w+)(?:/|\.py)` \|", rooms):
        assert room in known, f"{room} is gone"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            found = path.parent / name if name else path
            assert found.exists(), target
            if anchor:
                titles = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.M)
                slugs = [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]
                assert anchor in slugs, target
