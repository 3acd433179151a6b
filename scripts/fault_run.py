"""Kill runs at random moments, resume them, and compare with runs that nobody disturbed.

    python scripts/fault_run.py --kills 50 --json docs/results/faults.json [-- key=value ...]

Each chain is one run of all stages that is killed again and again, and resumed by the same command
with ``resume=auto``, until it ends. It has to end with the undisturbed run's links, moments and
metrics, bit for bit. The default system is the relay.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from rmas_train.runs.session import environment

ROOT = Path(__file__).resolve().parent.parent
STEPS = 24
SMALL = [
    f"training.inner.steps={STEPS}",
    f"training.outer.steps={STEPS}",
    "training.inner.batch_size=8",
    "training.outer.batch_size=8",
    "training.inner.save_every=3",
    "training.outer.save_every=3",
    "training.inner.log_every=1",
    "training.outer.log_every=1",
    "evaluation.systems=[shuffled]",
    "evaluation.max_rows=20",
    "rounds=2",
]
STAGES = ("inner", "outer")
PATIENCE = 240  # seconds until a run that should have ended counts as hung


@dataclass
class Kill:
    """One kill: which signal to whom, and what it met."""

    signal: str
    target: str
    moment: str  # startup, inner, outer, or after: no step was being taken
    during_save: bool
    seconds_to_end: float


@dataclass
class Chain:
    """One run that was killed several times, and what it ended with."""

    processes: int
    kills: list[Kill] = field(default_factory=list)
    equal: bool = False
    lost_steps: int = 0
    doubled_steps: int = 0
    differences: list[str] = field(default_factory=list)


def start(processes: int, run_dir: Path, typed: list[str], log: Path) -> subprocess.Popen:
    """A run in a process group of its own."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += ["-m"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("ab") as out:
        return subprocess.Popen(
            [*command, "rmas_train", *typed, f"run_dir={run_dir}", "resume=auto"],
            stdout=out,
            stderr=out,
            env=env,
            start_new_session=True,
        )


def finish(run: subprocess.Popen, log: Path) -> None:
    """Wait for a run that nobody disturbs."""
    if run.wait(timeout=10 * PATIENCE):
        raise SystemExit(f"an undisturbed run failed:\n{log.read_text()[-3000:]}")


def workers(run: subprocess.Popen, processes: int) -> list[int]:
    """The launcher's children, which are the ranks in their order; the process itself without."""
    if processes == 1:
        return [run.pid]
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    try:
        return [int(pid) for pid in children.read_text().split()]
    except OSError:
        return []


def lines(run_dir: Path, stage: str) -> list[dict[str, Any]]:
    """Whole lines of a stage's metrics, without the seconds, which no two runs share."""
    path = run_dir / stage / "metrics.jsonl"
    found = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append({k: v for k, v in json.loads(line).items() if k != "seconds"})
        except ValueError:
            continue
    return found


def progress(run_dir: Path) -> int:
    return sum(len(lines(run_dir, stage)) for stage in STAGES)


def wait_for_moment(run: subprocess.Popen, run_dir: Path, draw: random.Random) -> None:
    """Until a random moment: while it starts, while it saves, or after some more steps."""
    kind = draw.random()
    if kind < 0.15:
        _sleep(run, draw.uniform(0.2, 6.0))
        return
    if kind < 0.45:
        deadline = time.monotonic() + draw.uniform(5, 15)
        while run.poll() is None and not _is_saving(run_dir) and time.monotonic() < deadline:
            time.sleep(0.0005)
        return
    wanted = progress(run_dir) + draw.randint(1, STEPS // 2)
    deadline = time.monotonic() + PATIENCE
    while run.poll() is None and progress(run_dir) < wanted and time.monotonic() < deadline:
        time.sleep(0.002)
    _sleep(run, draw.uniform(0, 0.08))


def _sleep(run: subprocess.Popen, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)


def kill(run: subprocess.Popen, processes: int, run_dir: Path, draw: random.Random) -> Kill | None:
    """Kill a run, or one of its processes, and wait until all are gone; None if it had ended."""
    ranks = workers(run, processes)
    while run.poll() is None and len(ranks) < processes:  # the launcher has not started all
        time.sleep(0.01)
        ranks = workers(run, processes)
    every = [run.pid, *ranks]  # each by itself: torchrun gives its ranks groups of their own
    targets = {"all": every, "launcher": [run.pid]}
    targets |= {f"rank {i}": [pid] for i, pid in enumerate(ranks)}
    if run.poll() is not None:
        return None
    number = draw.choice([signal.SIGKILL, signal.SIGTERM])
    target = draw.choice(sorted(targets)) if ranks != [run.pid] else "all"
    moment = _moment(run_dir)
    began = time.monotonic()
    _send(targets[target], number)
    saving = _is_saving(run_dir)
    run.wait(timeout=PATIENCE)
    while any(_alive(pid) for pid in every):
        time.sleep(0.01)
    found = saving or _is_saving(run_dir)
    return Kill(signal.Signals(number).name, target, moment, found, time.monotonic() - began)


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be asked how it ended does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _moment(run_dir: Path) -> str:
    for stage in reversed(STAGES):
        count = len(lines(run_dir, stage))
        if count:
            return stage if count < STEPS else f"after {stage}"
    return "startup"


def _is_saving(run_dir: Path) -> bool:
    return any(run_dir.glob("*/checkpoints/.step_*.tmp*"))


def compare(run_dir: Path, reference: Path, chain: Chain) -> None:
    """Links, last checkpoint and metrics against the undisturbed run's."""
    for stage in STAGES:
        ours, theirs = lines(run_dir, stage), lines(reference, stage)
        counts = Counter(line["step"] for line in ours)
        chain.lost_steps += sum(line["step"] not in counts for line in theirs)
        chain.doubled_steps += sum(n - 1 for n in counts.values())
        if ours != theirs:
            chain.differences.append(f"{stage}: metrics")
        last = f"{stage}/checkpoints/step_{STEPS:08d}"
        for name in (f"{stage}/links/links", f"{last}/links", f"{last}/optimizer"):
            if not _same_tensors(run_dir / name, reference / name):
                chain.differences.append(name)
    chain.equal = not chain.differences


def _same_tensors(a: Path, b: Path) -> bool:
    one, two = load_file(a.with_suffix(".safetensors")), load_file(b.with_suffix(".safetensors"))
    return one.keys() == two.keys() and all(one[k].equal(two[k]) for k in one)


def run_chain(
    processes: int, typed: list[str], reference: Path, work: Path, kills: int, draw: random.Random
) -> Chain:
    """A run that is killed up to ``kills`` times; at the end it goes on undisturbed."""
    chain, run_dir, log = Chain(processes), work / "run", work / "log.txt"
    work.mkdir(parents=True)
    while len(chain.kills) < kills:
        run = start(processes, run_dir, typed, log)
        wait_for_moment(run, run_dir, draw)
        done = kill(run, processes, run_dir, draw)
        if done is None:
            break
        chain.kills.append(done)
    finish(start(processes, run_dir, typed, log), log)
    compare(run_dir, reference, chain)
    return chain


def summary(chains: list[Chain]) -> dict[str, Any]:
    kills = [kill for chain in chains for kill in chain.kills]
    return {
        "kills": len(kills),
        "resumed_equal": sum(len(chain.kills) for chain in chains if chain.equal),
        "lost_steps": sum(chain.lost_steps for chain in chains),
        "doubled_steps": sum(chain.doubled_steps for chain in chains),
        "during_save": sum(kill.during_save for kill in kills),
        "by_signal": dict(Counter(kill.signal for kill in kills)),
        "by_moment": dict(Counter(kill.moment for kill in kills)),
        "by_processes": {n: sum(len(c.kills) for c in chains if c.processes == n) for n in (1, 2)},
        "slowest_end_seconds": {
            name: max((k.seconds_to_end for k in kills if k.signal == name), default=0.0)
            for name in ("SIGKILL", "SIGTERM")
        },
    }


def write(path: Path, chains: list[Chain], seed: int, typed: list[str]) -> None:
    """What is known so far, whatever becomes of the next chain."""
    record = summary(chains) | {
        "seed": seed,
        "options": typed,
        "chains": [asdict(chain) for chain in chains],
        "environment": environment(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--per-chain", type=int, default=5, help="kills of one run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("typed", nargs="*", help="key=value of another system than the relay")
    options = parser.parse_args()
    typed = [*SMALL, *(options.typed or ["experiment=relay"])]
    draw = random.Random(options.seed)
    chains: list[Chain] = []
    work = Path(tempfile.mkdtemp(prefix="faults"))
    try:
        references = {}
        for n in options.processes:
            folder = work / f"reference{n}"
            folder.mkdir()
            references[n] = folder / "run"
            finish(start(n, folder / "run", typed, folder / "log.txt"), folder / "log.txt")
        while sum(len(c.kills) for c in chains) < options.kills:
            n = options.processes[len(chains) % len(options.processes)]
            left = options.kills - sum(len(c.kills) for c in chains)
            place = work / f"chain{len(chains)}"
            count = min(options.per_chain, left)
            chains.append(run_chain(n, typed, references[n], place, count, draw))
            print(json.dumps(summary(chains)), flush=True)
            write(options.json, chains, options.seed, typed)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
