"""Role texts for UCSC-VLAA/m1k-tokenized: python build.py --out FOLDER --writer MODEL."""

from __future__ import annotations

import re
import sys
from typing import Any

from rmas_train.recipes.building import Recipe, build, writing_parser
from rmas_train.recipes.options import run_script
from rmas_train.recipes.problems import Problem, Skip, last_boxed, text_of

LETTER = re.compile(r"^[A-Z]$")


def problem(row: dict[str, Any], where: str) -> Problem:
    """A medical choice question; the letter is the final answer.

    A distilled answer that boxes another letter contradicts the gold one and is left out.
    """
    question, letter = text_of(row, "prompt", where), text_of(row, "answer_letter", where)
    solution = text_of(row, "distilled_answer_string", where)
    if not LETTER.match(letter):
        raise Skip("answer_letter_is_no_letter")
    boxed = last_boxed(solution)
    if boxed is not None and LETTER.match(boxed) and boxed != letter:
        raise Skip("answer_contradicts_letter")
    extra = {"domain": str(row.get("domain_name") or ""), "origin": str(row.get("source") or "")}
    return Problem(question, solution, solution, letter, "choice", extra)


RECIPE = Recipe(
    name="m1k",
    hub="UCSC-VLAA/m1k-tokenized",
    problem=problem,
    evaluations=("GBaker/MedQA-USMLE-4-options", "Idavidrein/gpqa/gpqa_diamond@train"),
)

if __name__ == "__main__":
    sys.exit(run_script(lambda argv: build(RECIPE, writing_parser(__doc__).parse(argv))))
