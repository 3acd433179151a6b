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
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmas_train.runs.session import environment
from rmas_train.support.files import write_json, write_text

RELAY = ["experiment=relay", "training.outer.profile_every=10", "training.outer.steps=100"]
BESIDE = "evaluation.systems=[start,null,shuffled]"
ALL = "health,attribution,text_attribution,depth,lens,probes,confidence,messages"
DIALECT = [
    *("experiment=relay_dialect", "rounds=3", "training.outer.depth=uniform"),
    *("training.outer.clip_message=3", "training.outer.batch_size=96", "training.outer.eps=1e-4"),
    *("training.outer.lr=6e-4", "training.outer.profile_every=10"),
]


@dataclass(frozen=True)
class Part:
    """A run with its analyses.

    Attributes:
        question: letter of the question in docs/experiments.md.
        options: of the training.
        analyses: names, with options of their own.
        needs_models: the three small published models.
    """

    question: str
    options: list[str]
    analyses: list[tuple[str, list[str]]] = field(default_factory=list)
    needs_models: bool = False


FEW = ["evaluation.max_rows=200"]
PARTS = {
    "relay": Part(
        "a", [*RELAY, "evaluation.systems=[start,null,shuffled,text,stop_agreement]"], [(ALL, FEW)]
    ),
    "released_settings": Part(
        "b",
        [
            *(*RELAY, BESIDE, "links.norm=layernorm", "links.init=default"),
            *("training.outer.lr=5e-4", "training.outer.depth=fixed"),
            "training.outer.clip_scope=global",
        ],
        [("health", FEW)],
    ),
    "default_start": Part("c", [*RELAY, BESIDE, "links.init=default"], [("health", FEW)]),
    "layernorm": Part("c", [*RELAY, BESIDE, "links.norm=layernorm"], [("health", FEW)]),
    "teacher_forced": Part(
        "d", [*RELAY, BESIDE, "links.init=default", "training.outer.latents=teacher_forced"]
    ),
    "gold_feedback": Part(
        "d",
        [
            *(*RELAY, BESIDE, "links.init=default", "training.outer.latents=teacher_forced"),
            "training.outer.feedback=gold_answer",
        ],
    ),
    "mixture": Part(
        "f",
        ["experiment=relay_mixture", BESIDE, "training.outer.profile_every=10"],
        [("attribution", ["rounds=1", "analysis.target=loss", "data.test=two_steps.jsonl"])],
    ),
    "dialect": Part("levers", [*DIALECT, BESIDE]),
    "dialect_text": Part("levers", [*DIALECT, BESIDE, "training.outer.text_messages=1"]),
    "notes": Part(
        "g",
        [
            *("experiment=notes", "data.more_tests={}", "training.outer.profile_every=10"),
            *("evaluation.max_rows=200", "evaluation.systems=[start,null,shuffled,text]"),
        ],
        [("health,attribution,lens,confidence", ["evaluation.max_rows=100"])],
        needs_models=True,
    ),
    "notes_hops": Part(
        "a",
        [
            *("experiment=notes_hops", "evaluation.max_rows=60", "training.outer.steps=10"),
            *("training.outer.validate_every=0", "training.outer.select=last"),
            *("training.outer.profile_every=5", "evaluation.systems=[null]"),
        ],
        [("health,depth,attribution,lens", ["evaluation.max_rows=30"])],
        needs_models=True,
    ),
}


def rmas(*options: str) -> None:
    subprocess.run([sys.executable, "-m", "rmas_train", *options], check=True)


def make(name: str, part: Part, out: Path, more: list[str]) -> None:
    """Train and evaluate, unless that is finished; then the analyses that are missing."""
    run = out / name
    rmas(*part.options, *more, "resume=auto", f"run_dir={run}")
    if name == "mixture":
        two_steps(Path("outputs/data/relay_mixture"))
    for analyses, options in part.analyses:
        missing = [a for a in analyses.split(",") if not (run / "analyse" / f"{a}.json").is_file()]
        if missing:
            typed = [f"analyses=[{','.join(missing)}]", *options]
            recipe = [] if part.needs_models else ["data.recipe=relay"]
            rmas("stage=analyse", f"run={run}", *typed, *recipe)


def two_steps(folder: Path, most: int = 200) -> None:
    """Problems of two steps: the first is one expert's, the second the summarizer's."""
    found: dict[str, Any] = {}
    for name in ("test", "valid", "train"):
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if sum(word in "uvwxyz" for word in row["question"].split()) == 2:
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
    found: dict[str, Any] = {}
    for name in names:
        run = out / name
        rows = json.loads((run / "eval" / "results.json").read_text(encoding="utf-8"))["rows"]
        keys = [*("system", "control", "rounds", "n", "accuracy", "ci95"), "accuracy_within_reach"]
        keys += ["tokens", "latent_steps"]
        lines = (run / "outer" / "profile.jsonl").read_text(encoding="utf-8").splitlines()
        profile = [json.loads(line) for line in lines]
        deepest = max(line["rounds"] for line in profile)
        at_depth = [line for line in profile if line["rounds"] == deepest]
        analyses = {p.stem: json.loads(p.read_text()) for p in (run / "analyse").glob("*.json")}
        found[name] = {
            "command": f"python -m rmas_train {' '.join(PARTS[name].options)}",
            "results": [{key: row[key] for key in keys} for row in rows],
            "profile_first": at_depth[0],
            "profile_last": at_depth[-1],
            "analyses": {
                key: small(value["result"]) for key, value in analyses.items() if "result" in value
            },
        }
    return found


def small(result: Any) -> Any:
    """Without the parts that only a page shows."""
    if isinstance(result, dict):
        return {k: small(v) for k, v in result.items() if k not in ("vectors", "examples", "links")}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("typed", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--small", help="folder with qwen_coder, gemma3 and smollm2")
    parser.add_argument("--out", type=Path, default=Path("outputs/paper"))
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    made = [n for n in options.only if options.small or not PARTS[n].needs_models]
    for name in made:
        small_models = [f"small={options.small}"] if PARTS[name].needs_models else []
        make(name, PARTS[name], options.out, [*small_models, *options.typed])
    there = [n for n in PARTS if (options.out / n / "eval" / "results.json").is_file()]
    rmas("stage=report", f"run_dir={options.out}")
    shutil.copyfile(options.out / "report" / "index.html", options.out / "report.html")
    write_json(options.out / "figures.json", {"figures": figures_of(options.out, there)})
    numbers = {"environment": environment(), "parts": numbers_of(options.out, there)}
    write_json(options.out / "numbers.json", numbers)
    print(f"{options.out / 'report.html'}, figures.json and numbers.json beside it")


if __name__ == "__main__":
    main()
