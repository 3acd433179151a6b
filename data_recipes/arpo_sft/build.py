"""Role texts for dongguanting/ARPO-SFT-54K: python build.py --out FOLDER --writer MODEL."""

from __future__ import annotations

import re
import sys
from typing import Any

from rmas_train.errors import DataError
from rmas_train.recipes.building import Recipe, build, writing_parser
from rmas_train.recipes.options import run_script
from rmas_train.recipes.problems import Problem, Skip, final_of, text_of
from rmas_train.support.reading import short

ASKS, WRITES, FRAMES = ("human", "user"), ("gpt", "assistant", "function_call"), ("system",)
ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def problem(row: dict[str, Any], where: str) -> Problem:
    """A question and its trace of thoughts, tool calls and results; the answer ends the trace.

    ``conversations`` (turns with ``from`` and ``value``) or ``input`` and ``output``, both seen.
    """
    if "conversations" in row:
        question, trace = _turns(row["conversations"], where)
    else:
        if "input" not in row:
            text_of(row, "conversations", where)
        question, trace = text_of(row, "input", where), text_of(row, "output", where)
    answers = ANSWER.findall(trace)
    if not answers:
        raise Skip("no_answer_tag")
    final = final_of(answers[-1])
    if final is None:
        raise Skip("no_final_answer")
    return Problem(question, answers[-1].strip(), trace, final, "qa", {"trace": trace})


def _turns(turns: Any, where: str) -> tuple[str, str]:
    """The first question, and all that follows, results of tools included."""
    if not isinstance(turns, list) or not all(isinstance(t, dict) for t in turns):
        raise DataError(
            f"{where}: column 'conversations' is {short(turns)}, not a list of turns; mend the row."
        )
    said = []
    for number, turn in enumerate(turns):
        place = f"{where}, conversations[{number}]"
        if (role := text_of(turn, "from", place)) not in FRAMES:
            said.append((role, text_of(turn, "value", place)))
    if len(said) < 2 or said[0][0] not in ASKS or said[-1][0] not in WRITES:
        raise Skip("no_question_and_answer")
    return said[0][1], "\n".join(text for _, text in said[1:])


RECIPE = Recipe(
    name="arpo_sft",
    hub="dongguanting/ARPO-SFT-54K",
    problem=problem,
    evaluations=("HuggingFaceH4/MATH-500", "math-ai/aime25"),
)

if __name__ == "__main__":
    sys.exit(run_script(lambda argv: build(RECIPE, writing_parser(__doc__).parse(argv))))
