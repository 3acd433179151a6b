"""Models that are asked in free words, a system text and a user's text each time."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import Prompt, tokenise
from rmas_train.config import Config
from rmas_train.data.sampling import stream_seed
from rmas_train.recipes.endpoint import EndpointWriter
from rmas_train.recipes.writing import Request, WriterOptions, Written, visible
from rmas_train.recursion import Rows
from rmas_train.systems.alone import Alone
from rmas_train.systems.base import SAMPLE, Answer

BOTH = {"user": "<<system>>\n\n<<text>>"}  # not every chat template has a system turn
EMPTY = Answer("", 0, 0)


@dataclass(frozen=True)
class OneModel:
    """An agent by itself; what is longer than it can read gets an empty reply.

    Attributes:
        agent: whose model, decoding and longest text are taken; its prompt is not.
    """

    agent: Alone

    def answer(self, requests: Rows) -> list[Answer]:
        prompt = Prompt(self.agent.prompt.agent, BOTH)
        encoded = prompt.encode(list(requests), 1, first=True)
        most = prompt.agent.most_positions or float("inf")
        fits = [len(one.ids) + self.agent.max_new_tokens <= most for one in encoded]
        short = [request for request, fit in zip(requests, fits, strict=True) if fit]
        replies = iter(replace(self.agent, prompt=prompt).answer(short))
        return [next(replies) if fit else EMPTY for fit in fits]


class TextGradEndpoint(EndpointWriter):
    """The endpoint, with the options that name it in messages."""

    option, model_option = "evaluation.textgrad_url", "evaluation.textgrad_model"
    kept = "records are kept"

    def _read(self, answer: Any) -> Written:
        """A criticism that was cut is used as far as it goes, as that of a model here."""
        content = answer.choices[0].message.content if answer.choices else None
        return Written(visible(content or "").text or "")


class Endpoint:
    """A model behind an OpenAI-compatible endpoint; tokens are counted as the agent's tokenizer
    counts them."""

    def __init__(self, config: Config, agent: Agent) -> None:
        options = config.evaluation
        assert options.textgrad_url is not None
        self._agent, self._seed = agent, config.seed
        self._endpoint = TextGradEndpoint(
            WriterOptions(
                writer=options.textgrad_url,
                model=options.textgrad_model,
                max_new_tokens=options.textgrad_tokens,
                key_env=options.textgrad_key_variable,
                temperature=options.temperature,
                seed=config.seed,
            )
        )

    def answer(self, requests: Rows) -> list[Answer]:
        with ThreadPoolExecutor(self._endpoint.parallel) as pool:
            return list(pool.map(self._reply, requests))

    def _reply(self, request: Mapping[str, Any]) -> Answer:
        system, text = request["system"], request["text"]
        seed = stream_seed(self._seed, "textgrad", request[SAMPLE], system, text)
        (written,) = self._endpoint.write([Request(text, system)], seed=seed % 2**31)
        reply = written.text or ""
        read, wrote = map(len, tokenise(self._agent, [system + text, reply], plain=True))
        return Answer(reply, wrote, 0, (), read)
