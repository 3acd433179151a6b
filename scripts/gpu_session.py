"""What needs a GPU, part by part, each in a process and a time limit of its own; one JSON.

    scripts/gpu_session.sh [--device cuda] [--tiny] [--small FOLDER] [--minutes 8]

Parts: numerics (benchmarks/numerics_gpu.py), bench (benchmarks/gpu.py), notes and notes_hops (the
experiments with the models of FOLDER, at a large batch). The JSON is written after every part. A
part that fails or is stopped at its limit does not stop the others; what it had written is kept.
Exit code: 0, 1 where a part failed, 2 for wrong arguments or a missing GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from rmas_train.errors import UserError
from rmas_train.runs.session import environment
from rmas_train.support.files import write_json

ROOT = Path(__file__).resolve().parents[1]
SHARES = {"numerics": 1.5, "bench": 4.0, "notes": 1.5, "notes_hops": 1.5}  # of the time
STOPPED = 124  # exit code of a part that ran into its limit, as of `timeout`


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        command: after the interpreter; run in the root of the checkout.
        read: what it has found so far, from the files that it writes.
        skipped: why it cannot run; None: it can.
    """

    command: list[str]
    read: Callable[[], Any]
    skipped: str | None = None


def benchmark(file: str, work: Path, options: argparse.Namespace, *more: str) -> Part:
    """A script of benchmarks/, which writes one JSON."""
    out = work / "found.json"
    command = [f"benchmarks/{file}", "--device", options.device, "--out", shown(out), *more]
    command += ["--tiny"] if options.tiny else []
    return Part(command, lambda: json.loads(out.read_text()) if out.is_file() else None)


def experiment(name: str, work: Path, options: argparse.Namespace) -> Part:
    """A short run of real models at a large batch."""
    inner, outer, batch, rows = (2, 2, 8, 20) if options.tiny else (40, 60, 64, 200)
    command = [
        *("-m", "rmas_train", f"experiment={name}", f"small={options.small}"),
        *(f"runtime.device={options.device}", f"run_dir={shown(work / 'run')}"),
        *(f"training.inner.steps={inner}", f"training.outer.steps={outer}"),
        *(f"training.outer.batch_size={batch}", "training.outer.log_every=1"),
        f"evaluation.max_rows={rows}",
    ]
    missing = None
    if options.small is None:
        missing = "no models: give --small FOLDER (docs/benchmarks.md, GPU)"
    elif not (ROOT / "conf" / "experiment" / f"{name}.yaml").is_file():
        missing = f"conf/experiment/{name}.yaml is not in this checkout"
    return Part(command, lambda: read_run(work / "run"), missing)


def read_run(run_dir: Path) -> dict[str, Any]:
    """Accuracies by system, and seconds per outer step; what is not there yet is left out."""
    found: dict[str, Any] = {}
    for file in (run_dir / "results.json", run_dir / "eval" / "results.json"):
        if file.is_file() and not found:
            keys = ("system", "control", "rounds", "n", "accuracy", "ci95", "seconds")
            rows = json.loads(file.read_text())["rows"]
            found["accuracies"] = [{key: row.get(key) for key in keys} for row in rows]
    metrics = run_dir / "outer" / "metrics.jsonl"
    if metrics.is_file():
        steps = [json.loads(line) for line in metrics.read_text().splitlines()]
        seconds = [step["seconds"] for step in steps][1:]  # the first step warms up
        found["outer_steps"] = len(steps)
        found["seconds_per_step"] = median(seconds) if seconds else None
    return found


def all_parts(work: Path, options: argparse.Namespace) -> dict[str, Part]:
    return {
        "numerics": benchmark("numerics_gpu.py", work / "numerics", options),
        "bench": benchmark("gpu.py", work / "bench", options, "--rounds", "1", "3"),
        "notes": experiment("notes", work / "notes", options),
        "notes_hops": experiment("notes_hops", work / "notes_hops", options),
    }


def shown(path: Path) -> str:
    """Below the root of the checkout, where parts run, a path is relative to it."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def run(part: Part, work: Path, limit: float) -> dict[str, Any]:
    """A part to its end, or to its limit; what the JSON says of it."""
    if part.skipped:
        return {
            "command": None,
            "seconds": 0,
            "exit_code": None,
            "result": {"skipped": part.skipped},
        }
    shutil.rmtree(work, ignore_errors=True)  # of an earlier session
    work.mkdir(parents=True)
    began = time.monotonic()
    code = watched([sys.executable, *part.command], work / "output.log", limit)
    told = {
        "command": shlex.join(["python", *part.command]),
        "limit_seconds": round(limit, 1),
        "seconds": round(time.monotonic() - began, 1),
        "exit_code": code,
    }
    if code == STOPPED:
        told["error"] = f"stopped at its limit of {limit:.0f} s"
    elif code != 0:
        told["error"] = last_line(work / "output.log")
    return told | read(part)


def read(part: Part) -> dict[str, Any]:
    """What the part has found; an unfinished file, or one of another form, stops nothing."""
    try:
        return {"result": part.read()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"result": None, "unreadable": f"{type(error).__name__}: {error}"}


def watched(command: list[str], log: Path, limit: float) -> int:
    """Exit code of a command; it and its children are ended at the limit, or when we are."""
    with log.open("w") as output:
        child = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return child.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            return STOPPED
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it printed nothing"


def limit_of(names: list[str], seconds: float) -> float:
    """The first part's limit: its share of the time that is left for all of these."""
    return seconds * SHARES[names[0]] / sum(SHARES[name] for name in names)


def session(options: argparse.Namespace) -> int:
    """All parts in turn; the exit code."""
    end = time.monotonic() + 60 * options.minutes
    parts = {n: p for n, p in all_parts(options.work, options).items() if n in options.parts}
    told: dict[str, Any] = {}
    whole = {
        **{key: getattr(options, key) for key in ("device", "tiny", "minutes")},
        "environment": environment(),
        "parts": told,
    }
    write_json(options.out, whole)  # a place that cannot be written is told before the first part
    for name, part in parts.items():
        waiting = [n for n, p in parts.items() if n not in told and not p.skipped]
        limit = 0.0 if part.skipped else limit_of(waiting, max(1.0, end - time.monotonic()))
        told[name] = run(part, options.work / name, limit)
        write_json(options.out, whole)
        print(f"{name}: {outcome(told[name])}", flush=True)
    print(f"results: {options.out}")
    return int(any(one["exit_code"] for one in told.values()))


def outcome(told: Mapping[str, Any]) -> str:
    """One line for the terminal."""
    if told["exit_code"] is None:
        return f"skipped: {told['result']['skipped']}"
    end = f"failed: {told['error']}" if told["exit_code"] else "done"
    return f"{end} ({told['seconds']} s)"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to see that it works")
    parser.add_argument("--small", type=Path, help="folder with the models of agents=small")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/gpu_session.json")
    parser.add_argument("--minutes", type=float, default=8, help="for all parts together")
    parser.add_argument("--parts", nargs="+", default=list(SHARES), choices=list(SHARES))
    parser.add_argument("--work", type=Path, default=ROOT / "outputs/gpu_session", help="for logs")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.exit(
            2, "--device cuda: PyTorch sees no CUDA GPU; give --device cpu --tiny to try it.\n"
        )
    if options.minutes <= 0:
        parser.exit(2, f"--minutes {options.minutes:g}: give a number above 0.\n")
    if options.small is not None and not options.small.is_dir():
        parser.exit(
            2, f"--small {options.small}: no such folder; it holds qwen_coder and gemma3.\n"
        )
    for name in ("small", "out", "work"):
        if getattr(options, name) is not None:
            setattr(options, name, getattr(options, name).resolve())
    return options


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(session(arguments()))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
