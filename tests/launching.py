"""Starting ``-m rmas_train`` in processes of its own, with the real launchers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
LAUNCHERS = ("ACCELERATE", "MASTER", "WORLD", "RANK", "LOCAL_", "TORCHELASTIC", "DS_")


def torchrun(processes: int) -> list[str]:
    """The command before ``rmas_train``; one process needs no launcher."""
    if processes == 1:
        return [sys.executable, "-m"]
    count = ["--nproc-per-node", str(processes)]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", *count, "-m"]


def environment(**more: str) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)}
    return env | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | more


def run(command: list[str], arguments: list[str], **more: str) -> subprocess.CompletedProcess:
    """Run to the end; whatever the exit code."""
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        env=environment(**more),
        timeout=240,
    )


def launch(arguments: list[str], processes: int, **more: str) -> str:
    """Run ``-m rmas_train`` under torchrun; standard output."""
    done = run([*torchrun(processes), "rmas_train"], arguments, **more)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same_curves(one: Path, two: Path, stages=("inner", "outer"), rel=1e-5) -> None:
    """Losses, gradient norms and final links of two run folders, to rounding.

    The mean difference stands beside the largest, because a one-sided drift shows in it.
    """
    for stage in stages:
        pairs = list(zip(*(lines(r / stage / "metrics.jsonl") for r in (one, two)), strict=True))
        for a, b in pairs:
            assert (a["step"], a["rounds"], a["lr"]) == (b["step"], b["rounds"], b["lr"])
            assert a["loss"] == pytest.approx(b["loss"], rel=rel)
            assert a["gradient_norms"] == pytest.approx(b["gradient_norms"], rel=1e-3, abs=1e-6)
        drift = sum(a["loss"] - b["loss"] for a, b in pairs) / len(pairs)
        assert abs(drift) < rel / 2 * pairs[0][0]["loss"]
        found = [load_file(r / stage / "links" / "links.safetensors") for r in (one, two)]
        for key in found[0]:
            difference = (found[0][key] - found[1][key]).abs().max()
            assert difference <= 2e-5 + 1e-3 * found[0][key].abs().max(), (stage, key)
