"""Little word problems in the columns of the released data sets, for the replicas."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

NAMES = ("Tom", "Ann", "Lea", "Max", "Ida", "Ben")
THINGS = ("apples", "books", "coins", "pens", "cards")
# Released set -> its columns beside question and answer (method: the cards that have been seen;
# Mixture-Code, -Summarizer and -Outer and Distillation-Math are taken to be like their siblings).
COLUMNS = {
    "sequential_math": ("plan", "refined_plan", "answer_field"),
    "mixture_math": ("hie_math_expert", "type", "task_family", "domain"),
    "mixture_code": ("hie_code_expert", "type", "task_family", "domain"),
    "mixture_science": ("hie_science_expert", "type", "task_family", "domain"),
    "mixture_summarizer": (
        "hie_math_expert",
        "hie_code_expert",
        "hie_science_expert",
        "hie_summarizer",
        "task_family",
    ),
    "mixture_outer": (
        "hie_math_expert",
        "hie_code_expert",
        "hie_science_expert",
        "hie_summarizer",
        "task_family",
    ),
    "distillation_math": ("distill_expert", "distill_learner", "task_family", "domain", "source"),
    "deliberation": (
        "deliberation_reflector",
        "deliberation_toolcaller",
        "task_family",
        "tool_type",
        "source_idx",
    ),
}


def problem(name: str, thing: str, has: int, more: int, index: int) -> dict[str, str | int]:
    """One problem with every column that any released set has."""
    total, answer = has + more, f"{has} and {more} make \\boxed{{{has + more}}}"
    return {
        "question": f"{name} has {has} {thing} and gets {more} more. How many are there?",
        "plan": f"Step 1: take {has}. Step 2: add {more}.",
        "refined_plan": f"Step 1: take {has}. Step 2: add {more} to get {total}.",
        "answer": answer,
        "answer_field": str(total),
        "hie_math_expert": f"{has} + {more} = {total}.",
        "hie_code_expert": f"print({has} + {more}) gives {total}.",
        "hie_science_expert": f"Counting on from {has} by {more} ends at {total}.",
        "hie_summarizer": answer,
        "distill_expert": f"Add {more} to {has}, which gives {total}.",
        "distill_learner": answer,
        "deliberation_reflector": f"A sum of {has} and {more} would settle it: {total}.",
        "deliberation_toolcaller": answer,
        "type": "sum",
        "task_family": "math",
        "domain": "arithmetic",
        "source": "replica",
        "tool_type": "none",
        "source_idx": index,
    }


def write_sets(folder: Path, rows: int = 400, seed: int = 0) -> None:
    """One ``<set>.jsonl`` per released set, all of the same problems."""
    cases = list(itertools.product(NAMES, THINGS, range(1, 6), range(1, 5)))
    random.Random(seed).shuffle(cases)
    found = [problem(*case, index) for index, case in enumerate(cases[:rows])]
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in COLUMNS.items():
        kept = ("question", "answer", *columns)
        lines = [json.dumps({c: row[c] for c in kept}) for row in found]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
