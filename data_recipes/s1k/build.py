"""Role texts for simplescaling/s1K: python build.py --out FOLDER --writer MODEL. See README.md."""

from __future__ import annotations

import sys
from typing import Any

from rmas_train.recipes.building import Recipe, build, writing_parser
from rmas_train.recipes.options import run_script
from rmas_train.recipes.problems import Problem, Skip, final_of, text_of


def problem(row: dict[str, Any], where: str) -> Problem:
    """The question with its solution; a solution without a final answer cannot be judged."""
    question, solution = text_of(row, "question", where), text_of(row, "solution", where)
    final = final_of(solution)
    if final is None:
        raise Skip("no_final_answer")
    extra = {"domain": str(row.get("cot_type") or ""), "origin": str(row.get("source_type") or "")}
    return Problem(question, solution, solution, final, "math", extra)


RECIPE = Recipe(
    name="s1k",
    hub="simplescaling/s1K",
    problem=problem,
    evaluations=(
        "HuggingFaceH4/MATH-500",
        "math-ai/aime25",
        "MathArena/aime_2026@train",
        "Idavidrein/gpqa/gpqa_diamond@train",
    ),
)

if __name__ == "__main__":
    sys.exit(run_script(lambda argv: build(RECIPE, writing_parser(__doc__).parse(argv))))
