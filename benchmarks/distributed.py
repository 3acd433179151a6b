"""Two processes against one at the same global batch, and what checkpoints cost; on the relay.

    python benchmarks/distributed.py --json docs/results/bench_distributed.json

Ranks and threads are compared within this run. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from rmas_train.compose import compose
from rmas_train.data.sampling import Sampler
from rmas_train.objectives.outer import OuterObjective
from rmas_train.runs.load import load_run
from rmas_train.runs.session import environment
from rmas_train.runs.starting_links import starting_links
from rmas_train.runtime.runtime import Runtime
from rmas_train.training.callbacks import Callback, Step
from rmas_train.training.loop import train
from rmas_train.training.saver import Saver

ROOT = Path(__file__).resolve().parent.parent
WARM = 5  # steps that do not count
TYPED = ["experiment=relay", "rounds=3", "training.outer.depth=fixed", "training.outer.log_every=1"]


def layout_seconds(processes: int, threads: int, batch: int, steps: int, work: Path) -> float:
    """Median seconds of an optimizer step."""
    run_dir = work / f"p{processes}t{threads}b{batch}"
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += ["-m"]
    typed = [
        *TYPED,
        "stage=outer",
        f"inner={work / 'inner' / 'inner' / 'links'}",
        f"training.outer.batch_size={batch}",
        f"training.outer.steps={steps + WARM}",
        f"runtime.threads={threads}",
        f"run_dir={run_dir}",
    ]
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    subprocess.run([*command, "rmas_train", *typed], check=True, env=env, capture_output=True)
    lines = (run_dir / "outer" / "metrics.jsonl").read_text().splitlines()
    return median(json.loads(line)["seconds"] for line in lines[WARM:])


def efficiency(work: Path, steps: int) -> dict[str, Any]:
    """Step seconds by layout and batch, and ratios of one process over two."""
    typed = [*TYPED, "stage=inner", "training.inner.steps=2", f"run_dir={work / 'inner'}"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-m", "rmas_train", *typed], check=True, env=env, capture_output=True
    )
    found = {}
    for batch in (64, 256):
        seconds = {
            f"{p} process(es) x {t} thread(s)": layout_seconds(p, t, batch, steps, work)
            for p, t in ((1, 1), (2, 1), (1, 2))
        }
        one, two, threads = seconds.values()
        found[str(batch)] = {
            "seconds": seconds,
            "two_over_one": one / two,
            "two_threads_over_one": one / threads,
        }
    return found


class TimedSaver(Saver):
    """Notes how long each save takes."""

    seconds: list[float]

    def save(self, *args: Any) -> None:
        began = time.perf_counter()
        super().save(*args)
        self.seconds.append(time.perf_counter() - began)


class Records(Callback):
    """Keeps every step."""

    def __init__(self, records: list[Step]) -> None:
        self._records = records

    def __call__(self, step: Step) -> None:
        self._records.append(step)


def saving(work: Path, steps: int) -> dict[str, Any]:
    """Size of a checkpoint and of its links; its time against a step's at the default interval."""
    run_dir = work / "saving"
    config = compose([*TYPED, f"run_dir={run_dir}", f"training.outer.steps={steps}"])
    options = config.training.outer
    runtime = Runtime(config.runtime)
    loaded = load_run(config, runtime)
    links, _ = starting_links(loaded)
    objective = OuterObjective(loaded.team, links, loaded.train, 3, config.latent_length)
    sampler = Sampler([None] * len(loaded.train), [3] * steps, options.batch_size, config.seed)
    default, options.save_every = options.save_every, 1
    saver = TimedSaver(run_dir / "checkpoints", {}, options, runtime)
    saver.seconds = []
    records: list[Step] = []
    train(objective, sampler, options, runtime, [Records(records)], saver)
    newest = max((run_dir / "checkpoints").iterdir())
    sizes = {file.name: file.stat().st_size for file in newest.iterdir()}
    step, save = median(r.seconds for r in records), median(saver.seconds)
    return {
        "bytes": sizes,
        "bytes_over_links": sum(sizes.values()) / sizes["links.safetensors"],
        "step_seconds": step,
        "save_seconds": save,
        "save_every": default,
        "save_share_of_a_step": save / default / step,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=25)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="distributed"))
    try:
        record = {
            "cores": len(os.sched_getaffinity(0)),
            "saving": saving(work, options.steps),
            "efficiency": efficiency(work, options.steps),
            "environment": environment(),
        }
    finally:
        shutil.rmtree(work, ignore_errors=True)
    options.json.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
