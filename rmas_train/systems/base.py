"""What answers questions: one small protocol for the trained system, its controls and baselines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rmas_train.config import Config
from rmas_train.data.sampling import stream_seed
from rmas_train.engine.answer import Text
from rmas_train.engine.decoding import Chooser, Decoding
from rmas_train.engine.thoughts import ThoughtStore
from rmas_train.links.link_set import LinkSet
from rmas_train.recursion import Rows, Team
from rmas_train.systems.looks import Look, system_name
from rmas_train.tools.calls import Session, Toolbox, ToolCall

Question = str | Mapping[str, Any]
SAMPLE = "_sample"  # key of a row: which of its samples is asked for; without it, the first one


@dataclass(frozen=True)
class Answer:
    """What a system wrote for one question, and what it cost.

    Attributes:
        text: decoded, without special tokens.
        tokens: text tokens generated, end-of-text token included.
        latent_steps: latent steps of all agents in all rounds.
        calls: of tools; neither they nor their results are in ``text``.
        retried: it had ended without an answer that can be read, and went on once.
        prompt_tokens: tokens and message vectors in the prompts of all agents in all rounds; what
            tools return is not counted.
    """

    text: str
    tokens: int
    latent_steps: int
    calls: tuple[ToolCall, ...] = ()
    prompt_tokens: int = 0
    retried: bool = False


class AnsweringSystem(Protocol):
    """Anything that answers the rows of a benchmark.

    Attributes:
        latent_length: vectors per message; 0 where none are sent.
        uses_rounds: whether answers depend on the depth; if not, it answers once for all depths.
        mixes_rows: optional; true where an answer depends on the rows beside its own, so that all
            rows of a part have to be answered together.
    """

    @property
    def latent_length(self) -> int: ...

    @property
    def uses_rounds(self) -> bool: ...

    def answer(self, rows: Rows, rounds: int) -> list[Answer]:
        """One answer per row, at this depth."""
        ...


def _whole(row: Mapping[str, Any], text: str) -> str | None:  # noqa: ARG001
    return text.strip() or None


@dataclass(frozen=True)
class NotApplicable:
    """Why a system cannot answer here; its row in the results says so, and has no numbers."""

    why: str


@dataclass(frozen=True)
class Ingredients:
    """What a system can be built from.

    Attributes:
        links: ``trained``, and ``start`` and ``untrained`` where there are such.
        rows: that it will answer, all of a part or some of them.
        first: index of the first of these rows in the benchmark.
        tools: what may happen in the decoder's final text; None: nothing.
        prompts: prompt file -> texts, of agents outside the topology (``single``, ``moa``).
        read: (row, text) -> the answer that the grader finds in a text; None: none.
        thoughts: that the latent systems of an evaluation share.
        kept: what systems have loaded themselves, from one part to the next.
    """

    config: Config
    team: Team
    links: Mapping[str, LinkSet]
    rows: Rows
    tools: Toolbox | None = None
    prompts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    first: int = 0
    read: Callable[[Mapping[str, Any], str], str | None] = _whole
    thoughts: ThoughtStore = field(default_factory=ThoughtStore)
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def decoding(self) -> Decoding:
        """How every agent of every system writes."""
        return decoding_of(self.config)


Built = AnsweringSystem | NotApplicable | None


@dataclass(frozen=True)
class SystemEntry:
    """A system in the registry; or there is a function there, from a team to several of these.

    Attributes:
        system, control: its columns in result files.
        build: makes it, and loads nothing; or says why it cannot be. None: it is left out.
        look: how tables and pictures show it.
    """

    system: str
    control: str | None
    build: Callable[[Ingredients], Built]
    look: Look

    @property
    def name(self) -> str:
        """``latent``, ``latent shuffled``, ``text``, ..."""
        return system_name({"system": self.system, "control": self.control})


def decoding_of(config: Config) -> Decoding:
    """As ``evaluation`` says."""
    options = config.evaluation
    return Decoding(
        options.decoding, options.temperature, options.top_k, options.top_p, config.seed
    )


def chooser_for(decoding: Decoding, rows: Rows) -> Chooser:
    """Chooses the tokens of texts about these rows.

    What is drawn depends on the root seed, a row's columns and its sample; keys that begin with
    ``_`` (a row's place in a file) are no columns.
    """
    return decoding.chooser([_seed(decoding.seed, row) for row in rows])


def _seed(root: int, row: Mapping[str, Any]) -> int:
    columns = {key: value for key, value in row.items() if not key.startswith("_")}
    content = json.dumps(columns, sort_keys=True, default=repr)
    return stream_seed(root, "text", row.get(SAMPLE, 0), content)


def open_sessions(tools: Toolbox | None, rows: Rows) -> list[Session] | None:
    """One for each answer, or None where nothing can happen in an answer."""
    return None if tools is None else [tools.open(row) for row in rows]


def answers_of(
    texts: Sequence[Text],
    latent_steps: int,
    sessions: Sequence[Session] | None,
    prompt_tokens: Sequence[int],
) -> list[Answer]:
    """Texts with the calls that were made in them, and what was read before them."""
    calls = [tuple(s.calls) for s in sessions] if sessions else [()] * len(texts)
    again = [s.retried for s in sessions] if sessions else [False] * len(texts)
    return [
        Answer(text.text, text.tokens, latent_steps, own, read, retried)
        for text, own, read, retried in zip(texts, calls, prompt_tokens, again, strict=True)
    ]


def added(before: Sequence[int], more: Sequence[int]) -> list[int]:
    """Counts of each row, with more of them."""
    return [n + m for n, m in zip(before, more, strict=True)]
