"""The released role-text sets in our columns.

    python build.py --out FOLDER --dataset NAME [--inner agent=NAME,...]

``--inner`` adds a sub-folder per agent with the set that its inner link trains on (mixture).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmas_train.errors import ConfigError, DataError, did_you_mean
from rmas_train.recipes.building import Recipe, copy
from rmas_train.recipes.options import (
    Parser,
    add_source_options,
    add_split_options,
    names,
    run_script,
)
from rmas_train.recipes.problems import Problem, final_of, text_of
from rmas_train.recipes.role_columns import STYLES

TASKS = ("math", "code", "choice", "qa")
KEPT = ("task_family", "domain", "type", "source", "source_idx", "tool_type")


@dataclass(frozen=True)
class Released:
    """One released set.

    Attributes:
        roles: its columns with role texts; empty: its card was not seen, what is there is taken.
    """

    hub: str
    style: str
    task: str
    roles: tuple[str, ...] = ()


DATASETS = {
    "sequential_math": Released(
        "RecursiveMAS/Sequential-Math", "sequential", "math", ("plan", "refined_plan")
    ),
    "sequential_code": Released(
        "RecursiveMAS/Sequential-Code", "sequential", "code", ("plan", "refined_plan")
    ),
    "distillation_math": Released("RecursiveMAS/Distillation-Math", "distillation", "math"),
    "distillation_code": Released(
        "RecursiveMAS/Distillation-Code",
        "distillation",
        "code",
        ("distill_expert", "distill_learner"),
    ),
    "mixture_math": Released("RecursiveMAS/Mixture-Math", "mixture", "math", ("hie_math_expert",)),
    "mixture_code": Released("RecursiveMAS/Mixture-Code", "mixture", "code"),
    "mixture_science": Released(
        "RecursiveMAS/Mixture-Science", "mixture", "choice", ("hie_science_expert",)
    ),
    "mixture_summarizer": Released("RecursiveMAS/Mixture-Summarizer", "mixture", "math"),
    "mixture_outer": Released("RecursiveMAS/Mixture-Outer", "mixture", "math"),
    "deliberation": Released(
        "RecursiveMAS/Deliberation",
        "deliberation",
        "qa",
        ("deliberation_reflector", "deliberation_toolcaller"),
    ),
}


class Reader:
    """Rows of a released set to problems that have their role texts.

    Attributes:
        notes: for the manifest: the columns found, those unknown to us, task families not known.
    """

    def __init__(self, name: str, released: Released) -> None:
        self.name, self.released = name, released
        self.roles: tuple[str, ...] | None = None
        families: Counter[str] = Counter()
        self.notes: dict[str, Any] = {"dataset": name, "unknown_task_families": families}

    def __call__(self, row: dict[str, Any], where: str) -> Problem:
        if self.roles is None:
            self.roles = self._roles(row, where)
        question, answer = text_of(row, "question", where), text_of(row, "answer", where)
        texts = {column: text_of(row, column, where) for column in self.roles}
        kept = {c: str(row[c]) for c in KEPT if row.get(c) is not None}
        task = self._task(row)
        final = "" if task == "code" else str(row.get("answer_field") or final_of(answer) or "")
        return Problem(question, answer, "", final, task, texts | kept)

    def _roles(self, row: dict[str, Any], where: str) -> tuple[str, ...]:
        """The role columns of the card, or of a set whose card was not seen, those of its style."""
        wanted = self.released.roles or STYLES[self.released.style]
        found = tuple(c for c in wanted if c in row)
        known = {"question", "answer", "answer_field", *KEPT, *wanted, *STYLES["sequential"]}
        self.notes["columns_found"] = sorted(row)
        self.notes["columns_unknown"] = sorted(set(row) - known)
        self.notes["card_seen"] = bool(self.released.roles)
        missing = [c for c in wanted if c not in row]
        if not found or (self.released.roles and missing):
            raise DataError(
                f"{where}: no column '{missing[0]}', which {self.released.hub} should have. "
                f"{did_you_mean(missing[0], row)} Found: {', '.join(row)}."
            )
        return found

    def _task(self, row: dict[str, Any]) -> str:
        family = str(row.get("task_family") or "").strip().casefold()
        if family in TASKS:
            return family
        if family:
            self.notes["unknown_task_families"][family] += 1
        return self.released.task


def run(argv: list[str]) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--dataset", default="sequential_math", help=" | ".join(DATASETS))
    parser.add_argument("--inner", help="agent=NAME with commas: sets of single inner links")
    add_source_options(parser)
    add_split_options(parser)
    args: argparse.Namespace = parser.parse(argv)
    wanted = {"": args.dataset}
    for pair in names(args.inner, ()):
        agent, _, dataset = pair.partition("=")
        if not re.fullmatch("[a-z][a-z0-9_]*", agent):
            raise ConfigError(f"inner={pair}: write agent=NAME, with commas between several.")
        wanted[agent] = dataset
    for dataset in wanted.values():
        if dataset not in DATASETS:
            raise ConfigError(f"dataset={dataset}: no such set. {did_you_mean(dataset, DATASETS)}")
    out, source = args.out, args.source
    for agent, dataset in wanted.items():
        args.out, args.source = out / agent, source_file(source, dataset)
        reader = Reader(dataset, DATASETS[dataset])
        copy(Recipe("released", DATASETS[dataset].hub, reader, notes=reader.notes), args)


def source_file(source: str | None, dataset: str) -> str | None:
    """``--source`` may be a folder with a file per set, as is needed with ``--inner``."""
    if source is None or not Path(source).is_dir():
        return source
    found = sorted(Path(source).glob(f"{dataset}.*"))
    if not found:
        raise DataError(f"source={source}: no {dataset}.jsonl or .parquet there; add it.")
    return str(found[0])


if __name__ == "__main__":
    sys.exit(run_script(run))
