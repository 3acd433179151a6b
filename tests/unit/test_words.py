"""One word for one thing: the glossary is about this code, and words given up stay so."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "rmas_train"
# Names that did not say what they are -> what they are called now.
GIVEN_UP = {
    "Memory": "KVCache",
    "PlainMemory": "LibraryCache",
    "Timeline": "Visibility",
    "Turn": "PromptBatch",
    "Setup": "Loaded",
    "Card": "LinksCard or SetCard",
    "Source": "RowSource",
    "spread": "assign_agents",
    "deliver": "intervention",
    "make_links": "starting_links",
    "fresh_links": "untrained_links",
    "new_links": "draw_links",
    "open_links": "restore_links",
    "handover": "identity",
    "link_subjects": "inspect",
}
ALLOWED = {("tools/search.py", "Source"), ("api.py", "Source")}  # a search's, a config's


def defined(path: Path) -> set[str]:
    """Classes, functions and parameters of a file, and the file itself."""
    names = {path.stem}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.arg):
            names.add(node.arg)
    return names


def test_words_given_up_do_not_come_back():
    for path in PACKAGE.rglob("*.py"):
        where = path.relative_to(PACKAGE).as_posix()
        for name in defined(path) & set(GIVEN_UP):
            assert (where, name) in ALLOWED, f"{where}: {name} is now {GIVEN_UP[name]}"


def test_recomputing_is_not_called_a_checkpoint():
    """A checkpoint is what is saved; running a call again in backward is to recompute it."""
    for name in ("recursion.py", "channels.py", "objectives/outer.py", "planning/recompute.py"):
        assert "checkpoint" not in (PACKAGE / name).read_text().lower(), name


def test_the_glossary_names_files_that_exist():
    text = (ROOT / "docs" / "glossary.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    terms = [row.split("|")[1].strip() for row in rows if not row.startswith("|---")]
    assert len(terms) > 40 and sorted(terms, key=str.lower) == terms
    named = re.findall(r"`([\w/]+\.(?:py|md))`", text)
    assert named
    for name in named:
        places = (PACKAGE / name, ROOT / name, ROOT / "docs" / name)
        assert any(place.exists() for place in places), name
