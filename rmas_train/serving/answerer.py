"""A trained system that answers texts of other programs, with counts and clear refusals."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import EncodedPrompt, tokenise_whole
from rmas_train.api import load
from rmas_train.data.rows import check_text
from rmas_train.engine.decoding import Decoding
from rmas_train.engine.inputs import embed_prompts
from rmas_train.errors import ConfigError, DataError, did_you_mean
from rmas_train.links.card import TENSORS
from rmas_train.links.folder import find_links
from rmas_train.recursion import last_call
from rmas_train.release.hub import HUB_ID, cached_links
from rmas_train.serving.options import SystemOptions
from rmas_train.serving.questions import cut
from rmas_train.serving.scoring import Score, score_endings
from rmas_train.support.reading import short
from rmas_train.systems.alone import Alone
from rmas_train.systems.base import Answer
from rmas_train.systems.latent import System

Row = Mapping[str, Any]
# What a model's name may end with, after a colon: nothing else of the system changes.
CONTROLS = {
    "null": "slots stay empty",
    "decoder_alone": "the decoder's prompt without slots",
}
UNKNOWN_LIMIT = 2**15  # positions, of an agent that states no limit


class TooLongError(DataError):
    """A question that an agent cannot read whole."""


@dataclass(frozen=True)
class Reply:
    """An answer, and what it cost.

    Attributes:
        text: up to the first stop.
        prompt_tokens: tokens and message vectors in the prompts of all agents in all rounds.
        tokens: that the decoder wrote, end-of-text token and what a stop cut off included.
        latent_steps: of all agents in all rounds.
        is_full: the decoder wrote as many tokens as it may.
    """

    text: str
    prompt_tokens: int
    tokens: int
    latent_steps: int
    is_full: bool


@dataclass(frozen=True)
class Reading:
    """One prompt that an agent reads, and how many positions it needs besides."""

    agent: Agent
    prompt: EncodedPrompt
    beside: int


class Answerer:
    """A system with a name; see ``open_answerer``.

    Attributes:
        name: of the model.
        fingerprint: sha256 of its links' tensors.
    """

    def __init__(self, system: System, name: str, fingerprint: str) -> None:
        self.system, self.name, self.fingerprint = system, name, fingerprint
        decoder = system.team.topology.decoder
        self._prompt = system.team.prompts[decoder]
        self.columns = sorted(set().union(*(p.columns for p in system.team.prompts.values())))

    def answer(
        self,
        rows: Sequence[Row],
        control: str | None = None,
        max_tokens: int | None = None,
        stops: Sequence[str] = (),
        batch_size: int = 32,
        decoding: Decoding | None = None,
    ) -> list[Reply]:
        """One reply per row.

        Args:
            rows: ``question`` and the other columns that the prompts name; with ``SAMPLE`` the
                number of the text among several of one question.
            control: one of ``CONTROLS``; None: the trained system.
            max_tokens: longest answer; None: as the links say.
            stops: texts at which an answer is cut off.
            batch_size: rows per forward.
            decoding: how tokens are chosen; None: the likeliest one.

        Raises:
            DataError: a column is missing or no text.
            TooLongError: a prompt with its answer is longer than an agent can read.
        """
        room = self.system.max_new_tokens if max_tokens is None else max_tokens
        how = room, decoding or self.system.decoding
        for row in rows:
            self._check(row, control, room)
        return [
            Reply(cut(a.text, stops), a.prompt_tokens, a.tokens, a.latent_steps, a.tokens >= room)
            for a in self._answers(rows, control, how, batch_size)
        ]

    def score(
        self,
        rows: Sequence[Row],
        continuations: Sequence[str],
        control: str | None = None,
        batch_size: int = 32,
    ) -> list[Score]:
        """How probable a continuation is as the beginning of each row's answer.

        White space at its beginning is left out: an answer begins the decoder's own turn.

        Args:
            rows, control, batch_size: see ``answer``.
            continuations: one per row.

        Raises:
            DataError, TooLongError: see ``answer``; or a continuation without text.
        """
        endings = tokenise_whole(
            self._prompt.agent, [text.lstrip() for text in continuations], ended=False
        )
        for row, text, ids in zip(rows, continuations, endings, strict=True):
            if not text.strip() or not ids:
                raise DataError(f"continuation {short(text)} has no text to score; give one.")
            self._check(row, control, len(ids))
        scores = []
        for i in range(0, len(rows), batch_size):
            scores += self._scores(rows[i : i + batch_size], endings[i : i + batch_size], control)
        return scores

    def _answers(
        self, rows: Sequence[Row], control: str | None, how: tuple[int, Decoding], batch_size: int
    ) -> list[Answer]:
        room, decoding = how
        if control == "decoder_alone":
            return Alone(self._prompt, room, batch_size, decoding).answer(rows)
        system = replace(self.system, max_new_tokens=room, decoding=decoding)
        return system.answer(rows, None, self._latent_length(control), batch_size=batch_size)

    @torch.no_grad()
    def _scores(
        self, rows: Sequence[Row], endings: Sequence[list[int]], control: str | None
    ) -> list[Score]:
        agent = self._prompt.agent
        if control == "decoder_alone":
            prompts = self._prompt.encode(list(rows), 1, first=True)
            return score_endings(agent, embed_prompts(agent, prompts, {}, endings), None, endings)
        decoder = last_call(self.system.unroll(rows, None, self._latent_length(control)))
        found: dict[int, Score] = {}
        for part in decoder.prompts.parts(None):
            own = [endings[i] for i in part]
            batch, prefix = decoder.prompts.embed(part, own)
            found |= dict(zip(part, score_endings(agent, batch, prefix, own), strict=True))
        return [found[i] for i in range(len(rows))]

    def _latent_length(self, control: str | None) -> int:
        return 0 if control == "null" else self.system.latent_length

    def _check(self, row: Row, control: str | None, room: int) -> None:
        """A row has all columns, and each agent can read its prompts whole."""
        if missing := [column for column in self.columns if column not in row]:
            raise DataError(
                f"no column {', '.join(missing)}, which the prompts name besides the "
                f"question; give them in `columns`. The prompts name: {', '.join(self.columns)}."
            )
        for column in self.columns:
            check_text(row, column, "this request", "named in a prompt")
        for reading in self._readings(row, control, room):
            agent, length = reading.agent, len(reading.prompt.ids)
            most = agent.most_positions or UNKNOWN_LIMIT
            if length + reading.beside > most:
                raise TooLongError(
                    f"agent {agent.name} reads {most} positions at most, but its prompt has "
                    f"{length} tokens, and {reading.beside} more are for messages and its answer; "
                    "shorten the question, or ask for fewer tokens."
                )

    def _readings(self, row: Row, control: str | None, room: int) -> list[Reading]:
        """What each call of each agent reads."""
        system, topology = self.system, self.system.team.topology
        if control == "decoder_alone":
            (prompt,) = self._prompt.encode([row], 1, first=True)
            return [Reading(self._prompt.agent, prompt, room)]
        length, found = self._latent_length(control), []
        calls = topology.live_calls(system.rounds)
        for round_, name in calls:
            is_first = not any(
                (round_ - edge.next_round, edge.source) in calls for edge in topology.incoming(name)
            )
            (prompt,) = system.team.prompts[name].encode([row], round_, first=is_first)
            own = room if (round_, name) == calls[-1] else length
            beside = len(prompt.slots) * length + own
            found.append(Reading(system.team.agents[name], prompt, beside))
        return found


def open_answerer(options: SystemOptions) -> Answerer:
    """The system of a run folder, a links folder or a hub repository.

    Raises:
        LinksError, AgentError, HubError, ConfigError: as ``rmas_train.load``.
    """
    where = str(options.run or options.links)
    if not Path(where).exists() and options.links is not None and HUB_ID.fullmatch(where):
        folder = cached_links(where, options.revision)
    else:
        folder = find_links(Path(where))
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    system = load(folder, agents=options.agents, device=device)
    for key in ("rounds", "latent_length", "max_new_tokens"):
        if (value := getattr(options, key)) is not None:
            setattr(system, key, value)
    digest = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    return Answerer(system, options.name or model_name(Path(where)), digest)


def model_name(where: Path) -> str:
    """The run folder's name, also for a links folder inside it."""
    path = where.resolve()
    while path.name in ("links", "outer") and path.parent != path:
        path = path.parent
    return path.name or "rmas"


def check_control(control: str | None) -> str | None:
    """A control that was typed.

    Raises:
        ConfigError: there is no such control.
    """
    if control is not None and control not in CONTROLS:
        raise ConfigError(f"control={control}: {did_you_mean(control, CONTROLS)}")
    return control


def control_of(name: str, answerer: Answerer) -> str | None:
    """The control that a model's name asks for; None: the trained system.

    Raises:
        DataError: no such model.
    """
    names = model_names(answerer)
    if name not in names:
        raise DataError(f"model '{name}' is not served here. {did_you_mean(name, names)}")
    return names[name]


def model_names(answerer: Answerer) -> dict[str, str | None]:
    """Model name -> control. ``rmas`` always means the system that is served."""
    return own_names(answerer) | own_names(answerer, "rmas")


def own_names(answerer: Answerer, base: str | None = None) -> dict[str, str | None]:
    """The same without ``rmas``, or with this name alone."""
    base = answerer.name if base is None else base
    return {base: None} | {f"{base}:{control}": control for control in CONTROLS}
