"""Rows of a generator of reasoning-gym: python build.py --out FOLDER [--dataset chain_sum].

--settings: the generator's own, as in min_terms=2,max_terms=3. See README.md.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import version
from typing import Any

from rmas_train.data.files import Placed
from rmas_train.errors import ConfigError, DataError, did_you_mean
from rmas_train.evaluation.reasoning import datasets, library, read_answer, scorer
from rmas_train.recipes.options import Parser, add_share_options, run_script
from rmas_train.recipes.packages import collect, save, without_repeats
from rmas_train.recipes.packing import Row, check_out
from rmas_train.recipes.problems import Skip
from rmas_train.support.output import one_line
from rmas_train.support.reading import parse_yaml

OURS = ("seed", "size")  # settings that are options here


def open_generator(name: str, settings: str, rows: int, seed: int) -> Any:
    """The library's data set.

    Raises:
        ConfigError: no such data set or setting, or a value that it refuses.
    """
    if name not in datasets():
        raise ConfigError(f"dataset={name}: no such generator. {did_you_mean(name, datasets())}")
    known = {field.name for field in fields(datasets()[name][1])} - {*OURS}
    try:
        found = parse_yaml(f"{{{settings.replace('=', ': ')}}}")
    except ValueError as error:
        raise ConfigError(
            f"settings={settings}: {error}; write name=value, with commas."
        ) from error
    for key in found:
        if key not in known:
            raise ConfigError(
                f"settings={settings}: {name} has no {key}. {did_you_mean(key, known)}"
            )
    try:
        return library().create_dataset(name, size=rows, seed=seed, **found)
    except Exception as error:  # of more than a hundred generators
        told = one_line(error) or type(error).__name__
        raise ConfigError(
            f"dataset={name} settings={settings}: {told}; mend the settings."
        ) from error


def problem(entry: dict[str, Any], name: str) -> Row:
    """One row; a text that an agent writes begins with the space that stands before it.

    Raises:
        Skip: there is no gold answer, or as JSON the scorer does not know it again.
    """
    if not isinstance(entry["answer"], str) or not entry["answer"].strip():
        raise Skip("no_answer")
    try:
        text = json.dumps(entry, ensure_ascii=False)
    except (TypeError, ValueError):
        raise Skip("no_json") from None
    answer = f" {entry['answer'].strip()}"
    if scorer(name)(read_answer(answer, answer), json.loads(text)) != 1.0:
        raise Skip("answer_not_scored")
    worked = entry["metadata"].get("answer_cot")
    note = f" {worked.strip()}" if isinstance(worked, str) else answer
    question = entry["question"].strip()
    return {"question": question, "answer": answer, "note": note, "entry": text}


def entries(generator: Any, name: str) -> Iterator[Placed]:
    """What the generator draws, each with its data set's name.

    Raises:
        DataError: it fails.
    """
    for number in range(len(generator)):
        try:
            yield name, generator[number]
        except Exception as error:  # of more than a hundred generators
            raise DataError(
                f"dataset={name}, row {number}: {one_line(error)}; give other settings or seed."
            ) from error


def run(argv: list[str]) -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--dataset", default="chain_sum", help="a generator's name")
    add("--rows", type=int, default=5000, help="rows that are drawn")
    add("--settings", default="", help="name=value,... of the generator")
    add_share_options(parser)
    args = parser.parse(argv)
    if args.rows < 1:
        raise ConfigError(f"rows={args.rows}: give 1 or more.")
    check_out(args.out)
    generator = open_generator(args.dataset, args.settings or "", args.rows, args.seed)
    counts: Counter[str] = Counter()
    rows = collect(entries(generator, args.dataset), problem, counts)
    rows = without_repeats(rows, ("question",), counts)
    made = {"name": args.dataset, "version": version("reasoning-gym"), "licence": "Apache-2.0"}
    save(args, rows, counts, {"recipe": "reasoning_gym", "source": made})


if __name__ == "__main__":
    sys.exit(run_script(run))
