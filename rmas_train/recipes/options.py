"""Options of a recipe's ``build.py``; ``data.recipe_options`` passes them on as typed."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from rmas_train.errors import ConfigError, did_you_mean
from rmas_train.recipes.overlap import NGRAM
from rmas_train.recipes.writing import WriterOptions
from rmas_train.support.output import check_typed, exit_code, redacted
from rmas_train.support.reading import parse_yaml

JOURNAL = "RMAS_JOURNAL"  # set by rmas_train.recipes.prepare, whose --out is a temporary folder
PLACES = ("out", "journal")  # where a build happens; no part of what it makes


class Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError, and suggests the nearest name for an unknown option."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--out", type=Path, required=True, help="folder that is written")
        self.add_argument("--seed", type=int, default=0, help="of the split and of drawn texts")

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}; --help lists the options.")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse the typed options.

        Raises:
            ConfigError: an option that is unknown, malformed, or holds a secret.
        """
        check_typed(f"data.recipe_options.{k.lstrip('-')}={v}" for k, v in _pairs(argv))
        args, unknown = self.parse_known_args(argv)
        if unknown:
            known = [name.lstrip("-") for name in self._option_string_actions]
            near = did_you_mean(unknown[0].lstrip("-"), known)
            raise ConfigError(f"{self.prog}: unknown option {redacted(unknown[0])}. {near}")
        args.command = " ".join(f"{k} {v}".strip() for k, v in _recorded(argv))
        return args


def add_share_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--test_share", type=float, default=0.1, help="part of the questions held out as test")
    add("--valid_share", type=float, default=0.05, help="part held out as valid")


def add_split_options(parser: Parser) -> None:
    add_share_options(parser)
    add = parser.add_argument
    add("--ngram", type=int, default=NGRAM, help="words in a row that count as contamination")
    add("--evaluation", help="evaluation sets: files[:column] and hub ids, with commas; none")


def add_source_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--source", help="a .jsonl, .json or .parquet file of the set's rows, in place of the hub")
    add("--revision", help="the hub's commit, or set@commit,...; it is recorded as seen anyway")
    add("--rows", type=int, help="most source rows that are read")


def add_writer_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--writer", default="", help="model folder, hub id, or URL of an OpenAI-like endpoint")
    add("--writer_model", help="an endpoint's name for its model")
    add("--writer_revision", help="commit of a hub id; for an endpoint, noted as given")
    add("--dtype", default=WriterOptions.dtype, help="of a local writer")
    add("--temperature", type=float, default=0.0)
    add("--max_new_tokens", type=int, default=WriterOptions.max_new_tokens)
    add("--max_prompt_tokens", type=int, default=WriterOptions.max_prompt_tokens)
    add("--batch_size", type=int, default=WriterOptions.batch_size, help="of a local writer")
    add("--parallel", type=int, default=WriterOptions.parallel, help="requests to an endpoint")
    add("--key_env", default=WriterOptions.key_env, help="variable that holds the endpoint's key")
    add("--timeout", type=float, default=WriterOptions.timeout, help="seconds per request")
    add("--retries", type=int, default=WriterOptions.retries, help="of a request that failed")
    add("--journal", type=Path, help="finished texts; <out>.journal.jsonl by default")


def writer_options(args: argparse.Namespace) -> WriterOptions:
    renamed = {"model": "writer_model", "revision": "writer_revision"}
    own = {f.name: getattr(args, renamed.get(f.name, f.name)) for f in fields(WriterOptions)}
    return WriterOptions(**own)


def journal_path(args: argparse.Namespace) -> Path:
    named = args.journal or os.environ.get(JOURNAL)
    return Path(named) if named else args.out.with_name(f"{args.out.name}.journal.jsonl")


def revision_of(typed: str | None, hub: str) -> str | None:
    """The commit of one set, from one commit for all sets or from ``set@commit,...``."""
    if typed is None or "@" not in typed:
        return typed
    return dict(pair.split("@", 1) for pair in names(typed, ())).get(hub)


def names(typed: str | None, default: Sequence[str]) -> list[str]:
    """Names with commas, or a YAML list from a config; ``none``: no name.

    Raises:
        ConfigError: a list that cannot be read.
    """
    if typed is None:
        return list(default)
    if not typed.startswith("["):
        return [n.strip() for n in typed.split(",") if n.strip() not in ("", "none")]
    try:
        return [str(name) for name in parse_yaml(typed)]
    except ValueError as error:
        raise ConfigError(f"evaluation={typed}: {error}; write names with commas.") from error


def run_script(build: Callable[[list[str]], None]) -> int:
    """Run a ``build.py``: returns 0, or 2 after a one-line error that the user can correct."""
    warnings.formatwarning = lambda message, kind, *_: f"{kind.__name__}: {message}\n"
    return exit_code(
        lambda: build(sys.argv[1:]), "interrupted; finished texts are kept in the journal"
    )


def _pairs(argv: Sequence[str]) -> list[tuple[str, str]]:
    """``--key value`` and ``--key=value`` as pairs."""
    pairs: list[tuple[str, str]] = []
    for word in argv:
        if word.startswith("--"):
            key, _, value = word.partition("=")
            pairs.append((key, value))
        elif pairs:
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]} {word}".strip())
    return pairs


def _recorded(argv: Sequence[str]) -> list[tuple[str, str]]:
    return [(k, redacted(v)) for k, v in _pairs(argv) if k.lstrip("-") not in PLACES]
