"""BIG-bench's tracking_shuffled_objects in our columns: build.py --out FOLDER --source PATH.

--source: the task.json of one size, a folder with tracking_shuffled_objects in it, or the source
archive of bigbench 1.0.0. --objects: which size a folder or an archive is asked for. See README.md.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rmas_train.data.files import Placed, check_row
from rmas_train.errors import ConfigError, DataError
from rmas_train.recipes.options import run_script
from rmas_train.recipes.packages import (
    Member,
    collect,
    find_member,
    package_parser,
    save,
    without_repeats,
)
from rmas_train.recipes.packing import Row, check_out
from rmas_train.recipes.problems import text_of
from rmas_train.support.reading import short

SIZES = {3: "three", 5: "five", 7: "seven"}
PACKAGE = "bigbench 1.0.0"
LICENCE = "not stated for the task; the package bigbench: UNKNOWN, its setup.py: Apache-2.0"
DEPTHS = range(1, 6)  # rounds that references.json has lines for


def examples(member: Member) -> list[Placed]:
    """The rows under ``examples``, with their places.

    Raises:
        DataError: the file is no task of BIG-bench with examples.
    """
    task = check_row(member.value(), member.name)
    found = task.get("examples")
    if not isinstance(found, list) or not found:
        raise DataError(
            f"{member.name}: examples is {short(found)}, not a list of rows; give the task.json of "
            "three_objects, five_objects or seven_objects."
        )
    places = [f"{member.name}, example {number}" for number in range(len(found))]
    return [(place, check_row(row, place)) for place, row in zip(places, found, strict=True)]


def problem(row: dict[str, Any], where: str) -> Row:
    """The story, the beginning of the last sentence, and the only end of it that is right.

    Raises:
        DataError: names the place and the column.
        Skip: there is no text.
    """
    story, dot, question = text_of(row, "input", where).rpartition(". ")
    if not dot:
        raise DataError(f"{where}: input is one sentence, without a story; fix the row.")
    scores = row.get("target_scores")
    right = [end for end, score in scores.items() if score == 1] if isinstance(scores, dict) else []
    if len(right) != 1 or len(scores) < 2:
        raise DataError(
            f"{where}: target_scores is {short(scores)}; it needs two or more ends, and one "
            "of them with the score 1."
        )
    return {
        "passage": " ".join(f"{story}.".split()),
        "question": " ".join(question.split()),
        "answer": f" {_plain(right[0])}",
        "choices": [_plain(end) for end in scores],
    }


def _plain(end: str) -> str:
    return end.strip().removesuffix(".")


def with_notes(rows: Sequence[Row], planner_sees: str) -> list[Row]:
    """Rows with what the planner should write: the answer, or where everything is at the end.

    The latter is read off the rows that tell the same story.
    """
    ends = defaultdict(list)
    for row in rows:
        ends[row["passage"]].append(f" {row['question']}{row['answer']}.")
    whole = planner_sees == "passage"
    return [
        row | {"note": "".join(ends[row["passage"]]) if whole else row["answer"]} for row in rows
    ]


def run(argv: list[str]) -> None:
    parser = package_parser(__doc__)
    parser.add_argument("--objects", type=int, default=3, help="3, 5 or 7 persons with an object")
    args = parser.parse(argv)
    if args.objects not in SIZES:
        raise ConfigError(f"objects={args.objects}: no such size; give 3, 5 or 7.")
    check_out(args.out)
    tail = f"tracking_shuffled_objects/{SIZES[args.objects]}_objects/task.json"
    member = find_member(args.source, tail, PACKAGE)
    counts: Counter[str] = Counter()
    rows = collect(examples(member), problem, counts)
    rows = with_notes(without_repeats(rows, ("passage", "question"), counts), args.planner_sees)
    facts = {
        "recipe": "tracking_shuffled_objects",
        "source": member.describe(LICENCE) | {"canary": member.value().get("canary")},
        "planner_sees": args.planner_sees,
    }
    save(args, rows, counts, facts, by="passage")
    write_references(args, rows)


def write_references(args: Any, rows: Sequence[Row]) -> None:
    """What a blind guess among a row's ends scores, by rounds."""
    guess = fmean(1 / len(row["choices"]) for row in rows)
    lines = {str(rounds): {"ceiling": 1.0, "guess_shown": guess} for rounds in DEPTHS}
    (args.out / "references.json").write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_script(run))
