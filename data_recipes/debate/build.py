"""Labelled data by asymmetric debate: python build.py --out FOLDER --writer MODEL --task FILE."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from rmas_train.errors import DataError
from rmas_train.recipes.debate import Debate
from rmas_train.recipes.debate_task import Settings, load_debate_prompts, read_task
from rmas_train.recipes.journal import Journal, Scribe
from rmas_train.recipes.options import (
    Parser,
    add_split_options,
    add_writer_options,
    journal_path,
    names,
    run_script,
    writer_options,
)
from rmas_train.recipes.overlap import index_evaluations
from rmas_train.recipes.packing import check_out, question_key, write_data
from rmas_train.recipes.writers import open_writer
from rmas_train.support.files import find_path

HERE = Path(__file__).resolve().parent


def parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--task", default=str(HERE / "task.yaml"), help="description, labels, samples")
    add("--debate_prompts", type=Path, default=HERE / "prompts", help="folder with seven prompts")
    add("--dimensions", type=int, default=Settings.dimensions)
    add("--values", type=int, default=Settings.values, help="of each dimension")
    add("--candidates", type=int, default=Settings.candidates, help="samples that are written")
    add("--rounds", type=int, default=Settings.rounds, help="in which both sides speak")
    add("--repeats", type=int, default=Settings.repeats, help="of the two verdicts per sample")
    add("--refinements", type=int, default=Settings.refinements, help="of a rejected sample")
    add("--sample_temperature", type=float, default=Settings.sample_temperature)
    add_writer_options(parser)
    add_split_options(parser)
    return parser.parse(argv)


def run(argv: list[str]) -> None:
    args = parse(argv)
    check_out(args.out)
    settings = Settings(**{name: getattr(args, name) for name in Settings.__dataclass_fields__})
    path = find_path(args.task) or Path(args.task)
    task, prompts = read_task(path), load_debate_prompts(args.debate_prompts)
    overlap = index_evaluations(names(args.evaluation, ()), args.ngram)
    options = writer_options(args)
    writer = open_writer(options)
    with Journal(journal_path(args)) as journal:
        debate = Debate(task, settings, prompts, Scribe(writer, journal))
        candidates = debate.plan(args.seed)
        together = writer.batch_size * writer.parallel
        rows: list[dict[str, Any]] = []
        for first in range(0, len(candidates), together):
            chunk = candidates[first : first + together]
            rows += [debate.row(c) for c in debate.run(chunk, first)]
            print(f"debate: {first + len(chunk)} candidates, {len(rows)} kept", flush=True)
    counts = debate.counts
    rows = _distinct(rows, counts)
    clean = [row for row in rows if overlap.is_clean((row["question"],))]
    counts["contaminated"] += len(rows) - len(clean)
    told = {k: n for k, n in sorted(counts.items()) if n}
    if not clean:
        raise DataError(f"task={path}: no sample was kept ({told}); nothing was written.")
    facts = {
        "recipe": "debate",
        "task": {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        "settings": vars(settings),
        "counts": {**told, "kept": len(clean)},
        "labels_kept": dict(sorted(Counter(row["answer_field"] for row in clean).items())),
        "dimensions_kept": dict(sorted(Counter(row["dimension"] for row in clean).items())),
        "contamination": overlap.summary(),
        "writer": writer.describe(),
        "prompts": {name: prompt.sha256 for name, prompt in prompts.items()},
        "command": args.command,
    }
    write_data(args.out, clean, facts, args.seed, (args.test_share, args.valid_share))
    print(f"debate: {len(clean)} rows in {args.out}", flush=True)


def _distinct(rows: list[dict[str, Any]], counts: Counter[str]) -> list[dict[str, Any]]:
    """One row per question; a question that was kept with two labels is not kept at all."""
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(question_key(row["question"]), set()).add(row["answer_field"])
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = question_key(row["question"])
        if len(labels[key]) > 1:
            counts["kept_with_two_labels"] += 1
        elif key in first:
            counts["duplicate_question"] += 1
        else:
            first[key] = row
    return list(first.values())


if __name__ == "__main__":
    sys.exit(run_script(run))
