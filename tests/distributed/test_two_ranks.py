"""Two processes under torchrun give the numbers of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]


def launch(arguments: list[str], processes: int) -> str:
    """Run ``-m rmas_train`` under the real launcher; standard output."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += [
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
            "-m",
        ]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    env = {k: v for k, v in env.items() if not k.startswith(("ACCELERATE", "MASTER", "WORLD"))}
    done = subprocess.run(
        [*command, "rmas_train", *arguments], capture_output=True, text=True, env=env, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("micro", ["null", "1"])
def test_two_ranks_equal_one(overrides, workspace, micro):
    base = [
        *overrides,
        "training.outer.steps=4",
        "training.outer.lr=1e-3",
        "training.outer.train_inner=true",
        "training.outer.clip_message=0.05",
        "training.inner.log_every=1",
        "training.outer.log_every=1",
        "evaluation.controls=[shuffled,text]",
        f"training.outer.micro_batch_size={micro}",
    ]
    for processes in (1, 2):
        way = "agent" if processes == 2 and micro == "1" else "none"
        typed = [*base, f"training.outer.checkpoint={way}", f"run_dir={workspace}/{processes}/run"]
        out = launch(typed, processes)
        assert f"{processes} process(es)" in out
    one, two = (workspace / str(n) / "run" for n in (1, 2))
    for stage in ("inner", "outer"):
        pairs = list(zip(*(lines(r / stage / "metrics.jsonl") for r in (one, two)), strict=True))
        assert len(pairs) == {"inner": 3, "outer": 4}[stage]
        for a, b in pairs:
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
            assert a["gradient_norms"] == pytest.approx(b["gradient_norms"], rel=1e-3, abs=1e-6)
        links = [load_file(r / stage / "links" / "links.safetensors") for r in (one, two)]
        for key in links[0]:
            torch.testing.assert_close(links[0][key], links[1][key], rtol=1e-3, atol=2e-5)
    results = [json.loads((r / "results.json").read_text())["rows"] for r in (one, two)]
    for a, b in zip(*results, strict=True):
        assert (a["system"], a["control"], a["rounds"]) == (b["system"], b["control"], b["rounds"])
        assert a["accuracy"] == b["accuracy"]
