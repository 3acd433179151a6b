"""docs/comparison.md holds the tables of its result file."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = "docs/results/all_systems.json"


def test_the_document_holds_the_tables_of_the_file():
    command = [sys.executable, "scripts/results_tables.py", FILE]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    text = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    parts = map(str.strip, printed.split("\n\n"))
    tables = [part for part in parts if part.startswith("|")]
    assert len(tables) == 7  # four systems: who is right, and against text what it costs
    assert all(table in text for table in tables)
    assert "/tmp/" not in (ROOT / FILE).read_text(encoding="utf-8")
