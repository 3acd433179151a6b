"""docs/options.md is what the dataclasses say."""

import subprocess
import sys
from pathlib import Path

from launching import environment

from rmas_train.config import Config, describe

ROOT = Path(__file__).resolve().parents[2]


def test_the_option_reference_is_up_to_date():
    command = [sys.executable, "scripts/options_table.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}; and commit docs/options.md"
    text = (ROOT / "docs" / "options.md").read_text()
    assert all(f"| `{key}` |" in text for key, _, _ in describe(Config))
