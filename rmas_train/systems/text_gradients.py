"""Text gradients, by their own package (TextGrad, Yuksekgonul and others 2024, arXiv 2406.07496).

An agent answers alone. Then, as often as there are rounds, a model says what is wrong with the
answer (the loss), how it could be better (the gradient), and writes it anew (the step): the paper's
optimisation of a solution at test time.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from types import ModuleType
from typing import Any

from rmas_train.agents.prompt_files import TEXTGRAD, split_marks
from rmas_train.recursion import Rows, Team
from rmas_train.systems.alone import Alone, for_each_agent, single_agent
from rmas_train.systems.asked import Endpoint, OneModel
from rmas_train.systems.base import SAMPLE, Answer, Built, Ingredients, NotApplicable, SystemEntry
from rmas_train.systems.in_step import Ask, hold
from rmas_train.systems.looks import Look

ROLE = "answer to the question"  # of the variable, in the package's prompts


@dataclass(frozen=True)
class TextGrad:
    """An agent whose answer is criticised and written anew.

    Attributes:
        agent: answers first, alone.
        model: (requests) -> replies of the model that criticises and writes anew.
        instruction: user's text of ``textgrad.yaml``, with marks: how an answer is judged.
    """

    agent: Alone
    model: Callable[[Rows], list[Answer]]
    instruction: str
    latent_length: int = 0
    uses_rounds: bool = True

    def answer(self, rows: Rows, rounds: int) -> list[Answer]:
        """One answer per row; its tokens are those of all that was written for it."""
        size, answers = self.agent.batch_size, []
        for begin in range(0, len(rows), size):
            chosen = rows[begin : begin + size]
            first = self.agent.answer(chosen)
            talks = [
                partial(self._improve, row=row, answer=answer, steps=rounds)
                for row, answer in zip(chosen, first, strict=True)
            ]
            answers += hold(talks, self.model)
        return answers

    def _improve(self, ask: Ask, row: Mapping[str, Any], answer: Answer, steps: int) -> Answer:
        engine = Engine(ask, answer, row.get(SAMPLE, 0))
        variable = package().Variable(answer.text, requires_grad=True, role_description=ROLE)
        loss = package().TextLoss(filled(self.instruction, row), engine)
        optimizer = package().TextualGradientDescent(parameters=[variable], engine=engine)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(variable).backward(engine)
            try:
                optimizer.step()
            except IndexError:  # no tags with a new answer in the reply; the old one stays
                continue
        return replace(engine.spent, text=variable.value)


class Engine:
    """What the package asks, as its ``EngineLM``; one for each question.

    Attributes:
        spent: the first answer, with the tokens of all replies.
    """

    model_string = "rmas_train"

    def __init__(self, ask: Ask, first: Answer, sample: int) -> None:
        self.spent = first
        self._ask, self._sample = ask, sample

    def __call__(self, text: str, system_prompt: str | None = None, **_: Any) -> str:
        reply = self._ask({"system": system_prompt or "", "text": text, SAMPLE: self._sample})
        self.spent = replace(
            self.spent,
            tokens=self.spent.tokens + reply.tokens,
            prompt_tokens=self.spent.prompt_tokens + reply.prompt_tokens,
        )
        return str(reply.text)

    generate = __call__


def filled(text: str, row: Mapping[str, Any]) -> str:
    """A prompt's text with a row's columns in place of the marks."""
    parts = split_marks(text)
    return "".join(str(row[p.value]) if p.kind == "column" else p.value for p in parts)


@cache
def package() -> ModuleType:
    """``textgrad``; when imported it opens a log of all texts, and its own library ``litellm`` asks
    a host for prices and reads a file ``.env``: none of these here."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_MODE"] = "PRODUCTION"
    with tempfile.TemporaryDirectory() as logs:
        os.environ["TEXTGRAD_LOG_DIR"] = logs
        import textgrad

        for handler in list(textgrad.logger.handlers):
            textgrad.logger.removeHandler(handler)
            handler.close()
    textgrad.logger.setLevel(logging.CRITICAL + 1)
    return textgrad


def textgrad_agents(team: Team) -> list[SystemEntry]:
    """An entry for each agent."""
    return for_each_agent(team, "textgrad", _build, Look("TextGrad", "#6699CC", "X", 29))


def _build(ingredients: Ingredients, name: str) -> Built:
    agent = single_agent(ingredients, name)
    if isinstance(agent, NotApplicable):
        return agent
    if TEXTGRAD not in ingredients.prompts:
        return NotApplicable(f"there is no {TEXTGRAD}.yaml among the prompts")
    if importlib.util.find_spec("textgrad") is None:
        return NotApplicable("it needs a package: pip install 'rmas_train[textgrad]'")
    options, own = ingredients.config.evaluation, agent.prompt.agent
    instruction = str(ingredients.prompts[TEXTGRAD]["user"])
    if options.textgrad_url is not None:
        return TextGrad(agent, Endpoint(ingredients.config, own).answer, instruction)
    reader = replace(agent, max_new_tokens=options.textgrad_tokens, tools=None)
    return TextGrad(agent, OneModel(reader).answer, instruction)
