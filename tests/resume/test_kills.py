"""Kills at random file changes: inner, outer, evaluation, report, starting over, folder reuse.

``RMAS_KILLS=200`` makes more of them than the few that every run of the slow tests can afford.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT, environment

SCRIPT = Path(__file__).with_name("kills.py")


@pytest.mark.slow
def test_runs_killed_at_any_file_change_end_as_if_nobody_had_killed_them(tmp_path):
    kills = int(os.environ.get("RMAS_KILLS", "24"))
    record = tmp_path / "kills.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", str(kills), "--seed", "7", "--json", str(record)],
        env=environment(PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "tests")])),
        capture_output=True,
        text=True,
        timeout=120 + 20 * kills,
    )
    assert record.is_file(), done.stderr[-3000:]
    found = json.loads(record.read_text())
    assert found["failures"] == {} and found["unequal"] == 0
    assert found["kills"] >= kills
    assert all(found["kills_by_scene"].values())
