"""What ``links library add|list|find|compose`` do, once their arguments are read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rmas_train.compose import compose as compose_config
from rmas_train.runs.library import Pair, add, compose, pairs
from rmas_train.runs.made_links import folders_of, write_run
from rmas_train.support.output import clean


def say(text: str) -> None:
    print(clean(text), flush=True)


def run_add(typed: argparse.Namespace) -> None:
    name = typed.name or typed.folder.resolve().name
    for pair in add(typed.folder, typed.library, name):
        say(describe(pair))


def run_list(typed: argparse.Namespace) -> None:
    show(pairs(typed.library))


def run_find(typed: argparse.Namespace) -> None:
    found = [
        pair
        for pair in pairs(typed.library)
        if typed.source.lower() in pair.source["model"].lower()
        and typed.target.lower() in pair.target["model"].lower()
    ]
    show(found)


def show(found: Sequence[Pair]) -> None:
    for pair in found:
        say(describe(pair))
    say(f"{len(found)} pair(s)")


def describe(pair: Pair) -> str:
    """One line: which link, between which models, of which form, and how good."""
    form = f"{pair.card.links['variant']}, read-out {pair.card.links['readout']}"
    trained = [row for row in pair.scores if row["system"] == "latent" and row["control"] is None]
    scores = [
        f"{row['task']} R={row['rounds']} {100 * row['accuracy']:.1f}% (n = {row['n']})"
        for row in trained
    ]
    models = f"{pair.source['model']} -> {pair.target['model']}"
    models += "" if pair.is_trained else " (ends of a shared space, not trained together)"
    return f"{pair.name} {pair.edge}: {models}; {form}; {', '.join(scores) or 'not evaluated'}"


def run_compose(typed: argparse.Namespace) -> None:
    flags = [f"--config={file}" for file in typed.config]
    flags += [f"--config-dir={folder}" for folder in typed.config_dir]
    config = compose_config([*flags, *typed.what])
    folders_of(config)
    links, card, chosen = compose(config, typed.library, typed.use)
    inner, outer = write_run(config, links, card)
    for key, pair in chosen.items():
        say(f"{key}: {describe(pair)}")
    say(f"wrote {inner} and {outer}")
    say(f"next: python -m rmas_train stage=eval run={config.run_dir}")
    say(
        f"or:   python -m rmas_train stage=outer inner={inner} "
        f"training.outer.from_links={outer} run_dir=<another folder> ..."
    )


ACTIONS = {"add": run_add, "list": run_list, "find": run_find, "compose": run_compose}
