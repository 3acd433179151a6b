"""``--help``: stages, config groups and every option."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from rmas_train.compose import groups
from rmas_train.config import Config, describe
from rmas_train.config.run import STAGES

USAGE = """\
Usage: python -m rmas_train [stage=STAGE] [group=choice ...] [key=value ...]
       python -m rmas_train -m key=a,b,c ...        every combination: one table, one heat map
       torchrun --nproc-per-node N -m rmas_train ...
       python -m rmas_train links import|export|report|push|pull ...   see `links --help`

Examples:
  python -m rmas_train                                        all stages on the shipped relay
  python -m rmas_train stage=inner
  python -m rmas_train stage=outer rounds=3 latent_length=4
  python -m rmas_train stage=eval run=outputs/relay rounds=1,2,3,5
  python -m rmas_train -m rounds=1,2,3 latent_length=2,4,8
"""


def print_help() -> None:
    console = Console()
    console.print(USAGE, markup=False, highlight=False)
    console.print(f"Stages: {', '.join(STAGES)}\n", markup=False, highlight=False)
    choices = Table(title="Config groups (group=choice)", title_justify="left")
    choices.add_column("group")
    choices.add_column("choices", overflow="fold")
    for group, names in groups().items():
        if names:
            choices.add_row(group, ", ".join(names))
    console.print(choices)
    options = Table(title="Options (key=value)", title_justify="left")
    options.add_column("key", no_wrap=True)
    options.add_column("meaning", overflow="fold")
    for key, _, meaning in describe(Config):
        options.add_row(key, meaning.replace("[", r"\["))
    console.print(options)
    console.print("Values: run any command; the resolved config is printed first.", highlight=False)
