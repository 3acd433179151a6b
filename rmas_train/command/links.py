"""``python -m rmas_train links import|export|library|report|push|pull|...``: no training."""

from __future__ import annotations

import argparse
from pathlib import Path

from rmas_train.errors import ConfigError
from rmas_train.support.reading import Parser

DESCRIPTION = "Links as files: the released layout both ways, a health report, and the hub."
IMPORT_HELP = """\
released folder with a sub-folder per repository, hub id of the repository with the outer links, or
the name of a published system (sequential_light, ...); then key=value as for a run: they give
topology, agents, prompts, rounds and run_dir. Only manifests and link files are read or fetched,
no base model."""


def parser() -> Parser:
    top = Parser(prog="python -m rmas_train links", description=DESCRIPTION)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=summary)

    one = add("import", "released links into a run folder, for stage=eval and rmas_train.load")
    one.add_argument("what", nargs="*", metavar="SOURCE key=value", help=IMPORT_HELP)
    one.add_argument(
        "--repo",
        action="append",
        default=[],
        metavar="ROLE=WHERE",
        help="folder, or hub id with @revision if wanted, of one agent or of `outer`; repeatable",
    )
    one.add_argument(
        "--task", help="math or code, where files are per task (default: by data.task)"
    )
    for flag, metavar, summary in (
        ("--config", "FILE", "options, as for a run; repeatable"),
        ("--config-dir", "DIR", "folder of groups of one's own, as for a run; repeatable"),
    ):
        one.add_argument(flag, action="append", default=[], metavar=metavar, help=summary)

    one = add("export", "our links as released files, without base models")
    one.add_argument("folder", type=Path, help="links folder or run folder")
    one.add_argument("out", type=Path, help="new folder")
    one.add_argument("--task", help="task in the file names (default: as imported, or math)")
    one.add_argument("--layout", choices=("hub", "local"), default="hub", help="default: hub")

    one = add("from-checkpoint", "a links folder from any checkpoint, for stage=eval and load")
    one.add_argument("checkpoint", type=Path, help="folder <run>/<stage>/checkpoints/step_<n>")
    one.add_argument("out", type=Path, help="new folder")

    one = add("report", "norms, movement, singular values, collapse; which links look untouched")
    one.add_argument("folder", type=Path, help="links folder, run folder or released folder")
    one.add_argument("--task", help="math or code, for a released folder (default: math)")
    one.add_argument("--draws", type=int, default=5, help="fresh links per shape (default: 5)")
    one.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")

    one = add("library", "links between two models, stored and composed into systems")
    _add_library(one)

    one = add("push", "send a links folder to the hub, private unless --public")
    one.add_argument("folder", type=Path, help="links folder or run folder")
    one.add_argument("repo", help="hub id, organisation/name")
    one.add_argument("--public", action="store_true", help="visible to everybody")
    one.add_argument("--dry-run", action="store_true", help="list the files and send nothing")

    one = add("pull", "fetch a links folder from the hub and check its seal")
    one.add_argument("repo", help="hub id, organisation/name")
    one.add_argument("folder", type=Path, help="new folder")
    one.add_argument("--revision", help="branch, tag or commit; pin it for results you publish")
    return top


def _add_library(top: argparse.ArgumentParser) -> None:
    commands = top.add_subparsers(dest="action", required=True, metavar="ACTION")
    one = commands.add_parser("add", help="copy a run's links, with the scores of its evaluation")
    one.add_argument("folder", type=Path, help="run folder or links folder")
    one.add_argument("library", type=Path, help="folder of the library; made if it is not there")
    one.add_argument("--name", help="its name in the library (default: that of the folder)")
    one = commands.add_parser("list", help="every pair: who sends, who receives, scores")
    one.add_argument("library", type=Path, help="folder of the library")
    one = commands.add_parser("find", help="pairs of models whose names hold a text")
    one.add_argument("library", type=Path, help="folder of the library")
    one.add_argument("--source", default="", help="of the model that sends")
    one.add_argument("--target", default="", help="of the model that receives")
    one = commands.add_parser("compose", help="links of a system, without training")
    one.add_argument("library", type=Path, help="folder of the library")
    one.add_argument("what", nargs="*", metavar="key=value", help="as for a run: agents, topology")
    one.add_argument("--use", action="append", default=[], metavar="NAME", help="take these alone")
    one.add_argument("--config", action="append", default=[], metavar="FILE", help="as for a run")
    one.add_argument(
        "--config-dir", action="append", default=[], metavar="DIR", help="as for a run"
    )


def run_command(argv: list[str]) -> None:
    """Run what was typed after ``links``.

    Raises:
        UserError: an error that the user can correct.
    """
    if argv[:2] == ["from", "checkpoint"]:
        argv = ["from-checkpoint", *argv[2:]]
    typed, rest = parser().parse_known_args(argv)
    takes_more = hasattr(typed, "what") and not any(a.startswith("-") for a in rest)
    if rest and takes_more:
        typed.what += rest  # key=value may stand before and after the flags
    elif rest:
        raise ConfigError(f"links {typed.command}: {rest[0]} is not expected here. See --help.")

    # Torch only once something is to be done.
    from rmas_train.command.link_commands import COMMANDS

    COMMANDS[typed.command](typed)
