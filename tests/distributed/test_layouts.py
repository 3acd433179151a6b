"""The same numbers whatever the layout: back ends, placements, launchers, on two processes."""

import sys

import pytest
from launching import assert_same_curves, launch, run, torchrun

from rmas_train.stages.assignment import assign_agents

SMALL = [
    "training.inner.steps=4",
    "training.outer.steps=6",
    "training.inner.log_every=1",
    "training.outer.log_every=1",
    "training.outer.lr=1e-3",
    "training.outer.clip_message=0.05",
    "training.inner.batch_size=8",
    "training.outer.batch_size=8",
    "evaluation.systems=[shuffled]",
]


@pytest.fixture
def typed(overrides):
    return [o for o in overrides if not o.startswith("run_dir=")] + SMALL


@pytest.fixture
def alone(typed, workspace):
    """Batch 8 in one process, one micro-batch."""
    launch([*typed, f"run_dir={workspace}/alone/run"], 1)
    return workspace / "alone" / "run"


@pytest.mark.slow
def test_eight_micro_batches_equal_one(typed, workspace, alone):
    small = ["training.inner.micro_batch_size=1", "training.outer.micro_batch_size=1"]
    launch([*typed, *small, f"run_dir={workspace}/small/run"], 1)
    assert_same_curves(alone, workspace / "small" / "run")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_back_ends_bf16_switch_casts_nothing(typed, workspace, alone, processes):
    """What ``accelerate launch --mixed_precision bf16`` passes on; links and agents keep theirs."""
    cast = f"run_dir={workspace}/cast/run"
    launch([*typed, cast], processes, ACCELERATE_MIXED_PRECISION="bf16")
    assert_same_curves(alone, workspace / "cast" / "run")


@pytest.mark.slow
def test_four_ranks_share_three_agents(typed, workspace, alone):
    """The costliest agent has two ranks, which share its rows."""
    out = launch([*typed, "runtime=ddp", f"run_dir={workspace}/four/run"], 4)
    assert "inner links over ranks: rank 0: planner; rank 1: critic; rank 2: solver" in out
    assert_same_curves(alone, workspace / "four" / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        ["runtime=zero1"],
        ["runtime=zero2"],
        [
            "runtime=zero2",
            "training.inner.micro_batch_size=2",
            "training.outer.micro_batch_size=1",
            "training.outer.recompute=agent",
        ],
        ["runtime=fsdp"],
        ["runtime=fsdp", "training.outer.micro_batch_size=2", "training.outer.recompute=agent"],
        ["runtime=fsdp", "training.outer.gradient=parallel", "training.outer.gradient_steps=2"],
    ],
    ids=lambda way: "-".join(o.rsplit(".", 1)[-1] for o in way),
)
def test_back_ends_equal_one_process(typed, workspace, alone, way):
    out = launch([*typed, *way, f"run_dir={workspace}/two/run"], 2)
    backend, placement = ("ddp", "sharded") if "fsdp" in way[0] else (way[0][8:], "replicate")
    assert f"2 process(es), backend {backend}, placement {placement}" in out
    assert_same_curves(alone, workspace / "two" / "run")


# One rank is told to stop; all save, and stop together.
STOP = """
import os, signal, sys
from rmas_train.__main__ import main
from rmas_train.training.callbacks import MetricsFile
plain = MetricsFile.__call__
def call(self, step):
    plain(self, step)
    if self._path.parent.name == "outer" and step.step == 2:
        signal.raise_signal(signal.SIGTERM)
MetricsFile.__call__ = call
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["zero1", "zero2", "fsdp"])
def test_one_checkpoint_format_for_all_back_ends(typed, workspace, alone, way):
    """The first half under one back end, the second in one process, and the other way round."""
    script = workspace / "stop.py"
    script.write_text(STOP)
    for first, second in ((2, 1), (1, 2)):
        cut = workspace / f"from{first}" / "run"
        own = {2: [f"runtime={way}"], 1: []}
        stopped = (
            [*torchrun(first)[:-1], str(script)] if first == 2 else [sys.executable, str(script)]
        )
        done = run(stopped, [*typed, f"run_dir={cut}", *own[first]])
        assert "stopped by SIGTERM before step 3" in done.stderr
        out = launch([*typed, f"run_dir={cut}", "resume=auto", *own[second]], second)
        assert "same rows per step, equal to rounding" in out
        assert_same_curves(alone, cut)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["accelerate.commands.launch", "--use_deepspeed", "--zero_stage", "2"],
        ["deepspeed.launcher.runner", "--num_gpus", "2", "--module"],
    ],
    ids=["accelerate", "deepspeed"],
)
def test_the_other_launchers(typed, workspace, alone, launcher):
    """The same command line under each."""
    counts = ["--num_processes", "2", "--num_machines", "1", "-m"]
    if "accelerate" in launcher[0]:
        launcher = [*launcher, *counts]
    typed = [*typed, f"run_dir={workspace}/two/run", "runtime=zero2"]
    done = run([sys.executable, "-m", *launcher, "rmas_train"], typed, DS_ACCELERATOR="cpu")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 process(es), backend zero2" in done.stdout
    assert_same_curves(alone, workspace / "two" / "run")


def test_ranks_share_out_agents_by_cost():
    costs = {"small": 1.0, "large": 5.0, "middle": 3.0}
    assert [assign_agents(costs, 1, 0)] == [(["small", "large", "middle"], (1, 0))]
    assert [assign_agents(costs, 2, r)[0] for r in range(2)] == [["large"], ["small", "middle"]]
    assert [assign_agents(costs, 3, r)[0] for r in range(3)] == [["large"], ["middle"], ["small"]]
    five = [assign_agents(costs, 5, r) for r in range(5)]
    assert [names for names, _ in five] == [["small"], ["large"], ["large"], ["middle"], ["middle"]]
    assert [part for _, part in five] == [(1, 0), (2, 0), (2, 1), (2, 0), (2, 1)]
    for world in range(1, 9):  # every agent's rows are there once
        shares = [assign_agents(costs, world, r) for r in range(world)]
        for name in costs:
            assert sum(1 / parts for names, (parts, _) in shares if name in names) == 1
