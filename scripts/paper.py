"""Every run and analysis that docs/experiments.md quotes: ``make paper``.

    python scripts/paper.py [--small FOLDER] [--out outputs/paper] [--only PART ...] [KEY=VALUE]

Trains, evaluates and analyses; then one report over all runs (``report.html``) and
``figures.json``: for every figure its question, the run, and the files that its numbers come from.
``numbers.json`` holds the numbers of the tables. What is there already is not made again: the
command goes on where it was stopped. Without ``--small`` the parts with published models are left
out. Options at the end go to every training.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from threading import Event
from typing import Any

from paper_parts import PARTS

from rmas_train.runs.session import environment
from rmas_train.support.files import write_json, write_text

AT_ONCE = 2


def rmas(*options: str, threads: str | None = None) -> None:
    """A command of the package; ``threads``: of torch, in place of all cores."""
    own = {"OMP_NUM_THREADS": threads} if threads else {}
    subprocess.run([sys.executable, "-m", "rmas_train", *options], check=True, env=os.environ | own)


def options_of(name: str, out: Path) -> list[str]:
    """What is typed for a part's training, but where it goes."""
    part = PARTS[name]
    made_for = [other for other, its in PARTS.items() if its.format_of == name]
    control = [f"evaluation.format={out / other}" for other in made_for]
    return [*part.options, *control]


def make(name: str, out: Path, more: list[str]) -> None:
    """Train and evaluate, unless that is finished; then the analyses that are missing."""
    part, run = PARTS[name], out / name
    threads = None if part.needs_models else "1"
    several = ["-m", f"sweep={part.sweep}"] if part.sweep else []
    options = [*several, *options_of(name, out), *more, "resume=auto", f"run_dir={run}"]
    rmas(*options, threads=threads)
    if name == "mixture":
        two_steps(Path("outputs/data/relay_mixture"))
    for analyses, options in part.analyses:
        missing = [a for a in analyses.split(",") if not (run / "analyse" / f"{a}.json").is_file()]
        if missing:
            typed = [f"analyses=[{','.join(missing)}]", *options]
            reach = [] if part.needs_models else ["data.recipe=relay"]
            plugins = [o for o in part.options if o.startswith("plugins=")]
            rmas("stage=analyse", f"run={run}", *typed, *reach, *plugins, threads=threads)


def make_all(names: list[str], out: Path, typed: list[str], small: str | None) -> list[str]:
    """The relay's parts two at a time, on one thread each; then the others, on all cores.

    A part begins when those that it comes after are there. Returns the parts that failed.
    """
    done = {name: Event() for name in names}
    failed = []

    def one(name: str, *more: str) -> None:
        for other, its in PARTS.items():
            if other in done and (other == PARTS[name].after or its.format_of == name):
                done[other].wait()
        try:
            make(name, out, [*more, *typed])
        except subprocess.CalledProcessError:  # it has said why
            failed.append(name)
        done[name].set()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, [name for name in names if not PARTS[name].needs_models]))
    for name in (name for name in names if PARTS[name].needs_models):
        one(name, f"small={small}")
    return failed


def two_steps(folder: Path, most: int = 200) -> None:
    """Problems of two steps: the first is one expert's, the second the summarizer's."""
    found: dict[str, Any] = {}
    for name in ("test", "valid", "train"):
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if operations(row["question"]) == 2:
                found.setdefault(row["question"], row)
    lines = [json.dumps(row) for row in list(found.values())[:most]]
    write_text(folder / "two_steps.jsonl", "".join(f"{line}\n" for line in lines))


def figures_of(out: Path, names: list[str]) -> list[dict[str, Any]]:
    """Every figure of the page with the files that it is drawn from."""
    figures = []
    for name in names:
        run, question = out / name, PARTS[name].question
        found = [("accuracy and cost", "eval/results.json"), ("training", "outer/metrics.jsonl")]
        found += [("gradient profile", "outer/profile.jsonl")]
        found += [(p.stem, f"analyse/{p.name}") for p in sorted((run / "analyse").glob("*.json"))]
        for figure, file in found:
            if (run / file).is_file() and not file.endswith("environment.json"):
                figures.append(
                    {"figure": figure, "run": name, "question": question, "data": f"{name}/{file}"}
                )
    return figures


def numbers_of(out: Path, names: list[str]) -> dict[str, Any]:
    """What the tables of docs/experiments.md need, and no more."""
    return {
        name: (sweep_numbers if PARTS[name].sweep else run_numbers)(name, out) for name in names
    }


def command_of(name: str, out: Path) -> str:
    several = f"-m sweep={PARTS[name].sweep} " if PARTS[name].sweep else ""
    return f"python -m rmas_train {several}{' '.join(options_of(name, out))}"


def sweep_numbers(name: str, out: Path) -> dict[str, Any]:
    found = json.loads((out / name / "results.json").read_text(encoding="utf-8"))["sweep"]
    return {"command": command_of(name, out), "sweep": found}


def run_numbers(name: str, out: Path) -> dict[str, Any]:
    run = out / name
    rows = json.loads((run / "eval" / "results.json").read_text(encoding="utf-8"))["rows"]
    keys = [*("system", "control", "rounds", "n", "accuracy", "ci95"), "accuracy_within_reach"]
    keys += ["tokens", "latent_steps"]
    lines = (run / "outer" / "profile.jsonl").read_text(encoding="utf-8").splitlines()
    profile = [json.loads(line) for line in lines]
    deepest = max(line["rounds"] for line in profile)
    at_depth = [line for line in profile if line["rounds"] == deepest]
    analyses = {p.stem: json.loads(p.read_text()) for p in (run / "analyse").glob("*.json")}
    beyond = {"by_operations": by_operations(run)} if name == "relay" else {}
    return beyond | {
        "command": command_of(name, out),
        "trained_rounds": json.loads((run / "outer/links/links.json").read_text())["rounds"],
        "results": [{key: row[key] for key in keys} for row in rows],
        "profile_first": at_depth[0],
        "profile_last": at_depth[-1],
        "analyses": {
            key: small(value["result"]) for key, value in analyses.items() if "result" in value
        },
    }


def by_operations(run: Path) -> list[dict[str, Any]]:
    """The trained system's accuracy by a problem's number of operations, from its answers."""
    found: dict[tuple[int, int], list[bool]] = {}
    with (run / "eval" / "answers.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["system"] == "latent" and row["control"] is None:
                key = row["rounds"], operations(row["question"])
                found.setdefault(key, []).append(row["right"])
    return [
        {"rounds": rounds, "operations": count, "n": len(right), "accuracy": fmean(right)}
        for (rounds, count), right in sorted(found.items())
    ]


def operations(question: str) -> int:
    return sum(word in "uvwxyz" for word in question.split())


def small(result: Any) -> Any:
    """Without the parts that only a page shows."""
    if isinstance(result, dict):
        return {k: small(v) for k, v in result.items() if k not in ("vectors", "examples", "links")}
    return result


def is_there(run: Path) -> bool:
    return (run / "eval" / "results.json").is_file() or (run / "sweep.json").is_file()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("typed", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--small", help="folder with qwen_coder, gemma3 and smollm2")
    parser.add_argument("--out", type=Path, default=Path("outputs/paper"))
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    made = [n for n in options.only if options.small or not PARTS[n].needs_models]
    began = time.monotonic()
    failed = make_all(made, options.out, options.typed, options.small)
    if failed:
        sys.exit(
            f"error: {', '.join(failed)} failed; see above, mend it, and give the command again."
        )
    there = [n for n in PARTS if is_there(options.out / n)]
    rmas("stage=report", f"run_dir={options.out}")
    shutil.copyfile(options.out / "report" / "index.html", options.out / "report.html")
    write_json(options.out / "figures.json", {"figures": figures_of(options.out, there)})
    numbers = {
        "environment": environment(),
        "minutes": round((time.monotonic() - began) / 60, 1),  # of this call
        "parts": numbers_of(options.out, there),
    }
    write_json(options.out / "numbers.json", numbers)
    print(f"{options.out / 'report.html'}, figures.json and numbers.json beside it")


if __name__ == "__main__":
    main()
