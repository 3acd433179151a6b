"""The five published systems, tiny and short, through the commands that users type."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SYSTEMS = ("sequential_light", "sequential_scaled", "mixture", "distillation", "deliberation")
CONTROLS = {
    ("latent", None),
    ("latent", "start"),
    ("latent", "null"),
    ("latent", "shuffled"),
    ("latent", "untrained"),
    ("text", None),
    ("decoder_alone", None),
}


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_replica_trains_saves_and_goes_out_and_in_again(system, tmp_path):
    command = [sys.executable, "scripts/replicas.py", system, "--short", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / system / "results.json").read_text())
    assert result["loss_last"] < result["loss_first"]
    assert result["links_moved"] and not result["links_unmoved"]
    assert result["same_answers"]
    assert {(r["system"], r["control"]) for r in result["rows"]} == CONTROLS
