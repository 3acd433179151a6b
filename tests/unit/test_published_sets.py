"""Recipes that read a set out of a registry's package: small files in the sets' own schema."""

import importlib.util
import json
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from rmas_train.agents.prompt_files import columns_of, read_prompt
from rmas_train.compose import compose
from rmas_train.config import Config, DataConfig
from rmas_train.data.rows import read_table
from rmas_train.errors import DataError
from rmas_train.evaluation.graders import make_grader
from rmas_train.recipes.options import run_script
from rmas_train.recipes.packing import check_manifest
from rmas_train.recipes.prepare import prepare
from rmas_train.support.reading import parse_yaml

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "data_recipes"
SPLITS = ("train", "valid", "test")
ASDIV, TRACKING = "asdiv", "tracking_shuffled_objects"
TAILS = {ASDIV: "ASDiv/test.jsonl", TRACKING: f"{TRACKING}/three_objects/task.json"}


def load(name):
    path = RECIPES / name / "build.py"
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILDS = {name: load(name) for name in TAILS}


def file_of(name, rows=None):
    """A file of the set: the sample in the sets' schema, or other rows."""
    sample = (RECIPES / name / "sample.jsonl").read_text()
    rows = [json.loads(line) for line in sample.splitlines()] if rows is None else rows
    if name == ASDIV:
        return "".join(json.dumps(row) + "\n" for row in rows)
    return json.dumps({"canary": "c", "name": "three_objects", "examples": rows})


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


PASSAGE = ("--planner_sees", "passage")


def built(name, out, source, *options):
    BUILDS[name].run(["--out", str(out), "--source", str(source), *map(str, options)])
    check_manifest(out)
    return {split: read_table(out / f"{split}.jsonl").rows for split in SPLITS}


def refused(monkeypatch, capsys, name, tmp_path, *options):
    """The one line of a build that ends with 2 and writes nothing."""
    monkeypatch.setattr(sys, "argv", ["build.py", "--out", str(tmp_path / "out"), *options])
    assert run_script(BUILDS[name].run) == 2 and not (tmp_path / "out").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def pack(folder, name, text):
    """The set's file as such, in a folder, and in the kind of package that has it."""
    tail = TAILS[name]
    plain = write(folder / "site" / "package" / tail, text)
    wheel, archive = folder / "set.whl", folder / "set.tar.gz"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("package/other.jsonl", "{}")
        packed.writestr(f"package/{tail}", text)
    with tarfile.open(archive, "w:gz") as packed:
        for member, data in (("x/other.json", b"{}"), (f"x/{tail}", text.encode())):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            packed.addfile(info, BytesIO(data))
    return plain, folder / "site", plain.parent, wheel, archive


@pytest.mark.parametrize("name", TAILS)
def test_file_folder_and_package_give_the_same_rows(name, tmp_path):
    places = pack(tmp_path, name, file_of(name))
    found = [built(name, tmp_path / f"out{i}", place) for i, place in enumerate(places)]
    assert all(rows == found[0] for rows in found)
    every = [row for rows in found[0].values() for row in rows]
    assert len(every) == {ASDIV: 7, TRACKING: 8}[name]  # a time of the day is no number
    assert all(row["answer"].startswith(" ") and row["note"].startswith(" ") for row in every)
    passages = [{row["passage"] for row in rows} for rows in found[0].values()]
    assert sum(map(len, passages)) == len(set().union(*passages))  # no two splits share one
    seeds = [built(name, tmp_path / f"seed{s}", places[0], "--seed", s) for s in range(5)]
    assert seeds[0] == found[0] and any(rows != found[0] for rows in seeds)


def test_what_becomes_of_a_word_problem(tmp_path):
    source = write(tmp_path / "set.jsonl", file_of(ASDIV))
    every = [r for rows in built(ASDIV, tmp_path / "a", source, *PASSAGE).values() for r in rows]
    row = next(r for r in every if r["source_row"] == 3)
    assert (row["answer"], row["unit"], row["note"]) == (" 8.3", "meters", f" {row['passage']}")
    assert {r["answer"] for r in every} >= {" 15", " -5"}
    both = built(ASDIV, tmp_path / "b", source)
    assert all(r["note"] == r["answer"] for rows in both.values() for r in rows)
    counts = json.loads((tmp_path / "a" / "manifest.json").read_text())["counts"]
    assert counts == {"read": 8, "kept": 7, "dropped": {"no_single_number": 1}}


def test_what_becomes_of_a_story(tmp_path):
    source = write(tmp_path / "task.json", file_of(TRACKING))
    rows = [r for part in built(TRACKING, tmp_path / "a", source, *PASSAGE).values() for r in part]
    row = next(r for r in rows if r["source_row"] == 1)
    assert row["passage"].endswith("Pia and Omar trade lamps.") and "\n" not in row["passage"]
    assert row["question"] == "In the evening, Omar has the" and row["answer"] == " tin lamp"
    assert row["choices"] == ["paper lamp", "tin lamp", "glass lamp"]
    assert row["note"].startswith(" In the evening, Nora has the paper lamp. In the evening, Omar")
    lines = json.loads((tmp_path / "a" / "references.json").read_text())
    assert lines["1"] == {"ceiling": 1.0, "guess_shown": pytest.approx(1 / 3)}
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["source"]["canary"] == "c"


WORD = {"passage": "Two cats.", "question": "How many?", "answer": "2 cats"}
STORY = {"input": "A story. At the end, Ann has ", "target_scores": {"a.": 1, "b.": 0}}
BAD = [
    (ASDIV, "", "no row was kept of 0 (the file is empty)"),
    (ASDIV, "not JSON\n", "set.jsonl, line 1: not JSON"),
    (ASDIV, "[1]\n", "line 1: a list, not an object with named columns"),
    (ASDIV, file_of(ASDIV, [{**WORD, "answer": 2}]), "column 'answer' is 2, not a text"),
    (ASDIV, file_of(ASDIV, [{"question": "How many?", "answer": "2"}]), "no column 'passage'"),
    (ASDIV, file_of(ASDIV, [{**WORD, "answer": "Ann"}]), "of 1 (no_single_number 1)"),
    (ASDIV, file_of(ASDIV, [{**WORD, "passage": " "}]), "of 1 (no_passage 1)"),
    (ASDIV, file_of(ASDIV, [WORD, WORD]), "1 passage(s) left, too few for train and test"),
    (TRACKING, "", "set.json: not JSON"),
    (TRACKING, "[]", "set.json: a list, not an object"),
    (TRACKING, '{"name": "tracking"}', "examples is None, not a list of rows; give the task.json"),
    (TRACKING, file_of(TRACKING, []), "examples is [], not a list of rows"),
    (TRACKING, file_of(TRACKING, ["x"]), "example 0: a str, not an object"),
    (TRACKING, file_of(TRACKING, [{"target_scores": {}}]), "example 0: no column 'input'"),
    (TRACKING, file_of(TRACKING, [{**STORY, "input": " "}]), "of 1 (no_input 1)"),
    (TRACKING, file_of(TRACKING, [{**STORY, "input": "Ann has "}]), "input is one sentence"),
    (TRACKING, file_of(TRACKING, [{"input": "A. Ann has "}]), "target_scores is None; it needs"),
    (
        TRACKING,
        file_of(TRACKING, [{**STORY, "target_scores": {"a.": 1, "b.": 1}}]),
        "target_scores is {'a.': 1, 'b.': 1}; it needs two or more ends",
    ),
]


@pytest.mark.parametrize(("name", "text", "needle"), BAD)
def test_malformed_files_are_one_line(name, text, needle, tmp_path, monkeypatch, capsys):
    source = write(tmp_path / ("set.jsonl" if name == ASDIV else "set.json"), text)
    line = refused(monkeypatch, capsys, name, tmp_path, "--source", str(source))
    assert needle in line


@pytest.mark.parametrize("name", TAILS)
def test_sources_that_are_none_are_one_line(name, tmp_path, monkeypatch, capsys):
    def line(*options):
        return refused(monkeypatch, capsys, name, tmp_path, *map(str, options))

    assert "source is missing; give data.recipe_options.source=<path>" in line()
    assert f"source={tmp_path / 'no'}: no such file" in line("--source", tmp_path / "no")
    assert f"no file whose path ends with {TAILS[name]}" in line("--source", tmp_path)
    write(tmp_path / "a" / TAILS[name], "")
    write(tmp_path / "b" / TAILS[name], "")
    assert "2 files, " in line("--source", tmp_path)
    assert "unknown kind of file" in line("--source", write(tmp_path / "x.csv", "a"))
    for broken in ("x.whl", "x.tar.gz"):
        assert "no readable package" in line("--source", write(tmp_path / broken, "text"))
    with zipfile.ZipFile(tmp_path / "y.whl", "w") as packed:
        packed.writestr("other.txt", "")
    assert f"no file {TAILS[name]} in it" in line("--source", tmp_path / "y.whl")
    assert "invalid choice: 'all'" in line("--planner_sees", "all")
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe\xfa")
    assert "not UTF-8 text" in line("--source", tmp_path / "latin.json")


def test_sizes_of_stories(tmp_path, monkeypatch, capsys):
    line = refused(monkeypatch, capsys, TRACKING, tmp_path, "--objects", "4")
    assert "objects=4: no such size; give 3, 5 or 7" in line


@pytest.mark.parametrize("sees", ["passage", "question"])
@pytest.mark.parametrize(("experiment", "name"), [("asdiv", ASDIV), ("tracking", TRACKING)])
def test_the_experiments_build_from_a_source(experiment, name, sees, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = pack(tmp_path, name, file_of(name))[0]
    typed = [f"experiment={experiment}", "small=/models", "seed=3"]
    typed += [f"data.recipe_options.planner_sees={sees}"]
    config = compose([*typed, f"data.recipe_options.source={source}"])
    assert config.agents["solver"].model == "/models/gemma3" and config.latent_length == 4
    assert config.data.folder.endswith(f"{sees}_seed3") and config.links.readout == "vocabulary"
    rows = built(name, tmp_path / "out", source, "--planner_sees", sees)["train"]
    prompts = {n: read_prompt(ROOT / config.data.prompts, n, None, None) for n in config.agents}
    for agent, prompt in prompts.items():
        assert columns_of(prompt) | {config.data.role_texts[agent]} <= rows[0].keys()
    assert "passage" not in columns_of(prompts["solver"])
    assert ("question" in columns_of(prompts["planner"])) == (sees == "question")
    grader = make_grader(config)
    grader.check(read_table(tmp_path / "out" / "train.jsonl"))
    assert grader.grade(rows[0], rows[0]["answer"]).right


def test_a_missing_source_names_the_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"source is missing; give data\.recipe_options\.source="):
        prepare(compose(["experiment=asdiv"]).data, 0)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (" 39 tickets", "39"),
        (" 39.0", "39"),
        (" $12.40", "12.4"),
        (" -4.05.", "-4.05"),
        (" x", None),
    ],
)
def test_numbers_are_read_without_zeros_at_the_end(text, read):
    pattern = parse_yaml((ROOT / "conf/data/asdiv.yaml").read_text())["answer_pattern"]
    grader = make_grader(Config(data=DataConfig(answer_pattern=pattern)))
    assert grader.grade({"answer": f" {read}"}, text).read == read
