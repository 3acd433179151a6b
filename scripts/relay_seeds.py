"""Does relay_scrambled hang on the seed or on rounding? Whole runs, judged on the test rows.

    python scripts/relay_seeds.py [--seeds 0 1 2 3 4] [--threads 1 2] [OPTION=VALUE ...]

Options are those of `python -m rmas_train`; for choosing a setting add `data.test=valid.jsonl` and
another `--out`. A run that stands in the file already, with the same seed, threads and options, is
not run again; one that was stopped goes on from its newest checkpoint.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from rmas_train.compose import config_from, to_dict
from rmas_train.config import Config
from rmas_train.data.sampling import depth_at
from rmas_train.runs.session import environment
from rmas_train.support.files import write_json

DEPTHS = (1, 2, 3)


def rmas(*options: str) -> list[str]:
    command = ["python", "-m", "rmas_train", *options]
    subprocess.run([sys.executable, *command[1:]], check=True, stdout=subprocess.DEVNULL)
    return command


def one(seed: int, threads: int, typed: list[str], folder: Path) -> dict[str, Any]:
    """Train inner links (once per seed) and outer links, evaluate; accuracies within reach."""
    inner, run = folder / f"inner_{seed}", folder / f"seed_{seed}_threads_{threads}"
    common = ["experiment=relay_scrambled", f"seed={seed}", f"data.folder={folder}/data_{seed}"]
    common += typed
    if not (inner / "inner" / "links" / "links.json").is_file():
        rmas(*common, "resume=auto", "stage=inner", "runtime.threads=1", f"run_dir={inner}")
    options = [*common, "resume=auto", f"inner={inner}/inner/links", f"runtime.threads={threads}"]
    command = rmas(*options, "stage=outer", f"run_dir={run}")
    rmas("stage=eval", f"run={run}", "evaluation.systems=[start]", "runtime.threads=1")
    steps = [json.loads(line) for line in (run / "outer" / "metrics.jsonl").open()]
    rows = json.loads((run / "eval" / "results.json").read_text())["rows"]
    reach = {(r["control"] or "trained", r["rounds"]): r["accuracy_within_reach"] for r in rows}
    outer = config_from(common).training.outer
    means = {d: mean(s["seconds"] for s in steps if s["rounds"] == d) for d in DEPTHS}
    depths = [depth_at(i, outer.steps, max(DEPTHS), outer.depth, seed) for i in range(outer.steps)]
    return {
        "trained": [reach["trained", depth] for depth in DEPTHS],
        "start": [reach["start", depth] for depth in DEPTHS],
        # metrics.jsonl holds one step of log_every.
        "outer_seconds": round(sum(means[depth] for depth in depths), 1),
        "last_losses": {s["rounds"]: s["loss"] for s in steps},
        "command": " ".join(command),
    }


def cpu() -> str:
    """The CPU as Linux names it, with its family, model and stepping."""
    wanted = ("model name", "cpu family", "model", "stepping")
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    found = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    return ", ".join(f"{key} {found[key]}" for key in wanted if key in found)


def is_same(earlier: dict[str, dict[str, Any]], training: dict[str, dict[str, Any]]) -> bool:
    """Whether a file's options of the stages are these; what it does not name was the default."""
    defaults = to_dict(Config())["training"]
    return {stage: defaults[stage] | earlier[stage] for stage in defaults} == training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("typed", nargs="*", metavar="OPTION=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("docs/results/relay_scrambled_seeds.json"))
    parser.add_argument("--runs", type=Path, default=Path("outputs/relay_seeds"))
    args = parser.parse_intermixed_args()
    training = to_dict(config_from(["experiment=relay_scrambled", *args.typed]))["training"]
    same = {"options": args.typed, "training": training}
    found: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {}
    runs: dict[str, Any] = found.get("runs", {})
    if runs and not (found["options"] == args.typed and is_same(found["training"], training)):
        parser.error(f"{args.out} is of other options; give another --out and --runs.")
    for threads in args.threads:
        for seed in args.seeds:
            name = f"seed {seed}, {threads} thread(s)"
            if name in runs:
                continue
            runs[name] = one(seed, threads, args.typed, args.runs)
            print(name, runs[name]["trained"], flush=True)
            worst = [min(run["trained"][i] for run in runs.values()) for i in range(len(DEPTHS))]
            summary = {"depths": DEPTHS, "worst": worst, "runs": runs, **same}
            write_json(args.out, summary | {"cpu": cpu(), "environment": environment()})


if __name__ == "__main__":
    main()
