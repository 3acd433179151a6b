"""The tables of docs/real.md are those of the result files; files say what their models are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "docs" / "results" / "real").glob("*.json"))


@pytest.mark.parametrize("document", ["docs/real.md", "README.md"])
def test_documents_hold_the_tables_of_the_files(document):
    command = [sys.executable, "scripts/real_tables.py", "--check", document]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_says_what_its_models_are_and_no_path_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    found = json.loads(text)
    if "systems" in found or "starts" in found:
        assert "4-bit" in found["note"]
    assert "/tmp/" not in text and "/home/" not in text and "/work/" not in text
