"""Role texts for nvidia/OpenCodeReasoning: python build.py --out FOLDER --writer MODEL."""

from __future__ import annotations

import sys
from typing import Any

from rmas_train.recipes.building import Recipe, build, writing_parser
from rmas_train.recipes.options import run_script
from rmas_train.recipes.problems import Problem, Skip, text_of


def problem(row: dict[str, Any], where: str) -> Problem:
    """A programming problem with its program.

    Rows whose question has to be fetched from another set (``-``, the set's split_1) are left out.
    """
    question, program = text_of(row, "input", where), text_of(row, "solution", where)
    if question == "-":
        raise Skip("question_not_included")
    if not program.startswith("```"):
        program = f"```python\n{program}\n```"
    names = {"licence": "license", "origin": "source", "difficulty": "difficulty", "id": "id"}
    extra = {ours: str(row.get(theirs) or "") for ours, theirs in names.items()}
    return Problem(question, program, program, "", "code", extra)


RECIPE = Recipe(
    name="opencodereasoning",
    hub="nvidia/OpenCodeReasoning",
    config="split_0",
    split="split_0",
    problem=problem,
    evaluations=("evalplus/mbppplus",),
)

if __name__ == "__main__":
    sys.exit(run_script(lambda argv: build(RECIPE, writing_parser(__doc__).parse(argv))))
