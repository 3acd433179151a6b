"""``--help``: stages, flags, config groups and every option with its default, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rmas_train.compose import folded, groups
from rmas_train.config import Config, describe
from rmas_train.config.run import STAGES
from rmas_train.support.reading import WIDTH

USAGE = """\
Usage: python -m rmas_train [stage=STAGE] [group=choice ...] [key=value ...]
       python -m rmas_train -m key=a,b,c ...     every combination: one table
       torchrun --nproc-per-node N -m rmas_train ...
       python -m rmas_train links import|export|report|push|pull ...
       python -m rmas_train prompts convert PROMPTS.PY FOLDER
       python -m rmas_train audit links=FOLDER data=... ...
       python -m rmas_train serve run=FOLDER     an OpenAI-compatible server
       python -m rmas_train lm-eval ...          lm-evaluation-harness

`rmas-train` is the same command, installed. The last five have a --help.

Examples:
  python -m rmas_train                     all stages on the shipped relay
  python -m rmas_train stage=inner
  python -m rmas_train stage=outer rounds=3 latent_length=4
  python -m rmas_train stage=eval run=outputs/relay rounds=1,2,3,5
  python -m rmas_train -m rounds=1,2,3 latent_length=2,4,8
  python -m rmas_train --config my.yaml training.outer.lr=5e-4
  python -m rmas_train --config-dir my_conf experiment=my_experiment --show
"""
FLAGS = {
    "--config FILE": "options from a YAML file, nested keys; after the experiment, before what is "
    "typed; repeatable. It may name group choices (experiment: relay); without an experiment it "
    "stands on experiment=none.",
    "--config-dir DIR": "a folder with groups of your own (topology/, agents/, data/, "
    "experiment/, ...), searched before the shipped ones; repeatable.",
    "--show": "print the resolved config as YAML and run nothing.",
    "-m, --multirun": "a sweep: several values per key, separated by commas.",
    "--version": "print the version.",
    "-h, --help": "print this.",
}


def print_help() -> None:
    """All of it, on standard output."""
    parts = [USAGE, _wrapped(f"Stages: {', '.join(STAGES)}"), "", "Flags, anywhere:"]
    for flag, meaning in FLAGS.items():
        parts += [f"  {flag}", _wrapped(meaning, 6)]
    parts += ["", "Config groups (group=choice):"]
    parts += [_wrapped(f"{g}={' | '.join(folded(c))}", 2, 6) for g, c in groups().items() if c]
    parts += ["", "Options (key=default):", *_options()]
    print("\n".join(parts))


def _options() -> Iterator[str]:
    for key, default, meaning in describe(Config):
        yield _wrapped(f"{key}={default}", 2, 6)
        yield _wrapped(meaning, 6)


def _wrapped(text: str, first: int = 0, then: int | None = None) -> str:
    """Lines of at most 80 characters, indented."""
    rest = first if then is None else then
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=" " * first,
        subsequent_indent=" " * rest,
        break_on_hyphens=False,
    )
