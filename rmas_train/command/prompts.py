"""``python -m rmas_train prompts convert``: prompt files from a copy of the release's prompts."""

from __future__ import annotations

from pathlib import Path

from rmas_train.support.output import clean
from rmas_train.support.reading import Parser

DESCRIPTION = "Prompt files for data.prompts."
CONVERT = (
    "The release's own wording and slots, from a copy of its prompts.py that you have. The file is "
    "parsed and never run; its text stays on your machine."
)


def parser() -> Parser:
    top = Parser(prog="python -m rmas_train prompts", description=DESCRIPTION)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = commands.add_parser("convert", help=CONVERT, description=CONVERT)
    one.add_argument("source", type=Path, help="copy of the release's prompts.py")
    one.add_argument("folder", type=Path, help="new folder, to be named as data.prompts")
    one.add_argument(
        "--style", default="sequential", help="sequential, mixture, distillation or deliberation"
    )
    one.add_argument("--task", default="math", help="math, code or choice (default: math)")
    one.add_argument(
        "--bugs",
        action="store_true",
        help="with the release's known bug: the planner of a code task gets the mathematics prompt "
        "from round 2 on",
    )
    return top


def run_command(argv: list[str]) -> None:
    """Run what was typed after ``prompts``.

    Raises:
        UserError: an error that the user can correct.
    """
    typed = parser().parse_args(argv)

    from rmas_train.release.released_prompts import convert_prompts

    written = convert_prompts(typed.source, typed.folder, typed.style, typed.task, bugs=typed.bugs)
    names = ", ".join(map(str, written))
    print(clean(f"wrote {names}; use them with data.prompts={typed.folder}"), flush=True)
