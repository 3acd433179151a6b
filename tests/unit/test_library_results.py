"""docs/library.md holds the table of its result file."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_document_holds_the_table_of_the_file():
    file = ROOT / "docs" / "results" / "library_shared_space.json"
    command = [sys.executable, "scripts/shared_space.py", "--table", str(file)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    text = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    assert len(printed.splitlines()) > 4
    assert printed.strip() in text
    kept = file.read_text(encoding="utf-8")
    assert not any(place in kept for place in ("/tmp/", "/work/", "/home/"))
