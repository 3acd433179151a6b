"""A published benchmark as test.jsonl: python build.py --out FOLDER --hub ID --kind KIND ....

Every row is kept. --source reads a file, or a folder as the hub has it, in place of the hub.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from typing import Any

from kinds import KINDS, Row

from rmas_train.data.files import renamed
from rmas_train.errors import ConfigError, DataError, did_you_mean
from rmas_train.recipes.options import Parser, add_source_options, names, revision_of, run_script
from rmas_train.recipes.packing import check_out, write_files
from rmas_train.recipes.row_sources import open_source

SEED = 42  # the release's
TESTS = ("all", "public")


def parser() -> Parser:
    found = Parser(__doc__)
    add = found.add_argument
    add("--hub", default="", help="hub id of the set")
    add("--config", help="its configuration on the hub; not given: the only one")
    add("--split", default="test", help="its split")
    add("--files", help="its files, as patterns with commas; not given: those of the split")
    add("--kind", default="plain", help=" | ".join(KINDS))
    add("--columns", help="our=theirs with commas, as question=problem,answer=response")
    add("--option_seed", type=int, default=SEED, help="gpqa, medqa: of the order of options")
    add("--tests", default="all", help="livecodebench: all | public")
    add_source_options(found)
    return found


def run(argv: list[str]) -> None:
    args: argparse.Namespace = parser().parse(argv)
    check_out(args.out)
    kind, columns = checked(args)
    revision, patterns = revision_of(args.revision, args.hub), names(args.files, ())
    source = open_source(args.hub, args.config, args.split, revision, args.source, patterns)
    rows: list[Row] = []
    for number, (where, row) in enumerate(itertools.islice(source.rows, args.rows)):
        found = kind(renamed(row, columns, where, "columns"), where, args)
        rows.append(found | {"source_row": number})
    if not rows:
        raise DataError(f"{source.name}: no rows; check the split and the files.")
    facts = {
        "recipe": "benchmark",
        "kind": args.kind,
        "source": source.describe(),
        "counts": {"read": len(rows), "kept": len(rows)},
        "option_seed": args.option_seed,
        "command": args.command,
    }
    write_files(args.out, {"test": rows}, facts, args.seed)
    print(f"benchmark: {len(rows)} rows in {args.out}", flush=True)


def checked(args: argparse.Namespace) -> tuple[Callable[..., Row], dict[str, str]]:
    """The function of ``--kind``, and ``--columns`` as a dict.

    Raises:
        ConfigError: an option that cannot work.
    """
    if args.kind not in KINDS:
        raise ConfigError(f"kind={args.kind}: no such kind. {did_you_mean(args.kind, KINDS)}")
    if args.tests not in TESTS:
        raise ConfigError(f"tests={args.tests}: no such choice; give all or public.")
    if args.rows is not None and args.rows < 1:
        raise ConfigError(f"rows={args.rows}: give 1 or more.")
    if not (args.hub or args.source):
        raise ConfigError(
            "neither hub nor source is given; give data.recipe_options.source=<file or folder with "
            "the set's rows>."
        )
    columns: dict[str, Any] = {}
    for pair in names(args.columns, ()):
        ours, _, theirs = pair.partition("=")
        if not ours or not theirs:
            raise ConfigError(f"columns={args.columns}: write our=theirs, with commas.")
        columns[ours] = theirs
    return KINDS[args.kind], columns


if __name__ == "__main__":
    sys.exit(run_script(run))
