"""The tables of docs/experiments.md are those of its file; parts of make paper can be typed."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from rmas_train.compose import config_from

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docs" / "results" / "paper.json"
PARTS = runpy.run_path(str(ROOT / "scripts" / "paper_parts.py"))["PARTS"]


def test_the_document_holds_the_tables_of_the_file():
    command = [sys.executable, "scripts/experiments_tables.py", "--check", "docs/experiments.md"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_file_holds_every_part_and_no_path_of_a_machine():
    text = FILE.read_text(encoding="utf-8")
    assert set(json.loads(text)["parts"]) == set(PARTS)
    assert "/tmp/" not in text and "/home/" not in text and "/work/" not in text


@pytest.mark.parametrize("name", PARTS)
def test_a_part_can_be_typed(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    part = PARTS[name]
    assert config_from(part.options).training.outer.steps
    for analyses, options in part.analyses:
        typed = [o for o in part.options if not o.startswith("plugins=")]
        assert config_from([*typed, f"analyses=[{analyses}]", *options, "stage=analyse"]).analyses
    for other in (part.after, *(n for n, its in PARTS.items() if its.format_of == name)):
        assert not other or other in PARTS
