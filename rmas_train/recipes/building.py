"""The main steps of a recipe: read rows, filter, get role texts written, split, save."""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmas_train.data.files import Placed
from rmas_train.errors import ConfigError, DataError
from rmas_train.recipes.journal import Journal, Scribe
from rmas_train.recipes.options import (
    Parser,
    add_source_options,
    add_split_options,
    add_writer_options,
    journal_path,
    names,
    revision_of,
    writer_options,
)
from rmas_train.recipes.overlap import Overlap, index_evaluations
from rmas_train.recipes.packing import Row, check_out, question_key, write_data
from rmas_train.recipes.problems import Problem, Skip, keeps_final, with_final
from rmas_train.recipes.role_columns import (
    ANSWERING,
    STYLES,
    RolePrompt,
    load_prompts,
    role_columns,
)
from rmas_train.recipes.row_sources import RowSource, open_source
from rmas_train.recipes.writers import open_writer
from rmas_train.support.files import resource_root

Mapping_ = Callable[[dict[str, Any], str], Problem]


@dataclass(frozen=True)
class Recipe:
    """One source data set.

    Attributes:
        name: its folder in ``data_recipes/``.
        hub: its id on the hub.
        config: name of the set's configuration on the hub; None: the only one.
        split: split on the hub.
        problem: (source row, its place) -> problem; raises Skip to leave the row out.
        evaluations: evaluation sets that training rows are compared with.
        notes: further facts for the manifest; complete after the last row.
    """

    name: str
    hub: str
    problem: Mapping_
    config: str | None = None
    split: str = "train"
    evaluations: tuple[str, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)


def writing_parser(description: str | None) -> Parser:
    """The options of a recipe whose role texts a writer makes."""
    parser = Parser(description)
    add = parser.add_argument
    add("--style", default="sequential", help=" | ".join(STYLES))
    add("--answers", default="source", help="source: as they are | rewrite: by the writer")
    add("--role_prompts", type=Path, help="folder with <style>/<column>.yaml of your own")
    for group in (add_source_options, add_writer_options, add_split_options):
        group(parser)
    return parser


def build(recipe: Recipe, args: argparse.Namespace) -> None:
    """Build a data set with role texts.

    Raises:
        UserError: options, source, writer or rows that cannot be used.
    """
    check_out(args.out)
    if args.answers not in ("source", "rewrite"):
        raise ConfigError(f"answers={args.answers}: no such choice; give source or rewrite.")
    columns = role_columns(args.style, args.answers == "rewrite")
    own = [args.role_prompts] if args.role_prompts else []
    shipped = [resource_root() / "data_recipes" / n / "prompts" for n in (recipe.name, "common")]
    prompts = load_prompts(columns, args.style, [*own, *shipped])
    options = writer_options(args)
    counts: Counter[str] = Counter()
    source, overlap, problems = _begin(recipe, args, counts)
    writer = open_writer(options)
    rows: list[Row] = []
    with Journal(journal_path(args)) as journal:
        scribe = Scribe(writer, journal)
        together = writer.batch_size * writer.parallel
        for chunk in iter(lambda: list(itertools.islice(problems, together)), []):
            rows += _write(chunk, prompts, args.style, scribe, counts)
            print(f"{recipe.name}: {counts['read']} rows read, {len(rows)} kept", flush=True)
    facts = {
        "style": args.style,
        "answers": args.answers,
        "writer": writer.describe(),
        "prompts": {column: prompt.sha256 for column, prompt in prompts.items()},
    }
    _pack(recipe, args, source, overlap, rows, counts, facts)


def copy(recipe: Recipe, args: argparse.Namespace) -> None:
    """Build a data set whose source already has the role texts (in ``Problem.extra``)."""
    check_out(args.out)
    counts: Counter[str] = Counter()
    source, overlap, problems = _begin(recipe, args, counts)
    rows = [_row(problem, number, {}) for number, problem in problems]
    _pack(recipe, args, source, overlap, rows, counts, {})


def _begin(
    recipe: Recipe, args: argparse.Namespace, counts: Counter[str]
) -> tuple[RowSource, Overlap, Iterator[tuple[int, Problem]]]:
    """Open the source, the evaluation sets and the problems; read and check the first row."""
    if args.rows is not None and args.rows < 1:
        raise ConfigError(f"rows={args.rows}: give 1 or more.")
    revision = revision_of(args.revision, recipe.hub)
    source = open_source(recipe.hub, recipe.config, recipe.split, revision, args.source)
    overlap = index_evaluations(names(args.evaluation, recipe.evaluations), args.ngram)
    problems = _problems(recipe, itertools.islice(source.rows, args.rows), overlap, counts)
    first = list(itertools.islice(problems, 1))
    return source, overlap, (p for p in itertools.chain(first, problems))


def _problems(
    recipe: Recipe, placed: Iterable[Placed], overlap: Overlap, counts: Counter[str]
) -> Iterator[tuple[int, Problem]]:
    """Problems with their number in the source; rows left out are counted by reason."""
    seen: set[str] = set()
    for number, (where, row) in enumerate(placed):
        counts["read"] += 1
        try:
            problem = recipe.problem(row, where)
        except Skip as skip:
            counts[str(skip)] += 1
            continue
        key = question_key(problem.question)
        if key in seen:
            counts["duplicate_question"] += 1
        elif not overlap.is_clean((problem.question, problem.reference, problem.answer)):
            counts["contaminated"] += 1
        else:
            yield number, problem
        seen.add(key)


def _write(
    chunk: Sequence[tuple[int, Problem]],
    prompts: dict[str, RolePrompt],
    style: str,
    scribe: Scribe,
    counts: Counter[str],
) -> list[Row]:
    """Rows with their role texts; a row without one of them is left out and counted."""
    live: list[tuple[int, Problem, dict[str, str]]] = [(n, p, {}) for n, p in chunk]
    for column, prompt in prompts.items():
        asked = [prompt.request(_given(problem) | texts) for _, problem, texts in live]
        outcomes = scribe.write(asked)
        for (_, _, texts), outcome in zip(live, outcomes, strict=True):
            if outcome.text is None:
                counts[f"{column}: {outcome.dropped}"] += 1
            else:
                texts[column] = outcome.text
        live = [entry for entry in live if column in entry[2]]
    rows = []
    answering = ANSWERING[style]
    for number, problem, texts in live:
        if answering in texts and not keeps_final(texts[answering], problem):
            counts[f"{answering}: answer_lost"] += 1
        else:
            rows.append(_row(problem, number, texts))
    return rows


def _given(problem: Problem) -> dict[str, str]:
    return {
        "question": problem.question,
        "reference": problem.reference or problem.answer,
        "answer_field": problem.final or "(see the solution)",
        "task": problem.task,
    }


def _row(problem: Problem, number: int, texts: dict[str, str]) -> Row:
    answer = texts.get("answer", problem.answer)
    return {
        "question": problem.question,
        **texts,
        "answer": with_final(answer, problem.final),
        "answer_field": problem.final,
        "task": problem.task,
        **problem.extra,
        "source_row": number,
    }


def _pack(
    recipe: Recipe,
    args: argparse.Namespace,
    source: RowSource,
    overlap: Overlap,
    rows: list[Row],
    counts: Counter[str],
    facts: dict[str, Any],
) -> None:
    dropped = {reason: n for reason, n in sorted(counts.items()) if reason != "read"}
    if not rows:
        why = ", ".join(f"{reason} {n}" for reason, n in dropped.items()) or "the source is empty"
        raise DataError(
            f"{source.name}: no row was kept of {counts['read']} ({why}); nothing was written. "
            "Check the writer, its max_new_tokens and the prompts."
        )
    told = {
        "recipe": recipe.name,
        "source": source.describe(),
        "counts": {"read": counts["read"], "kept": len(rows), "dropped": dropped},
        "contamination": overlap.summary(),
        **facts,
        **recipe.notes,
        "command": args.command,
    }
    write_data(args.out, rows, told, args.seed, (args.test_share, args.valid_share))
    print(f"{recipe.name}: {len(rows)} rows in {args.out}", flush=True)
