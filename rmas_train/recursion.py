"""The unroll: questions through R rounds of agents that pass messages to each other.

The one loop behind training, evaluation and analysis, so that all of them see the same messages.
It yields the calls of the agents one by one; losses, answers and measurements are taken from
these. No loss, no optimizer, no ranks here.

    for call in recursion.unroll(rows, rounds=3):
        call.round, call.agent, call.inbox, call.messages   # who, what arrived, what was sent
    loss = call.answer_loss(answers)                         # of the last call, or in any round
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import Prompt
from rmas_train.engine.answer import Text, answer_loss, answer_states, write
from rmas_train.engine.decoding import GREEDY, Chooser
from rmas_train.engine.inputs import Message
from rmas_train.engine.interrupt import Interrupt
from rmas_train.engine.message_checks import check_message
from rmas_train.engine.prompt_batch import (
    PrefixStore,
    PromptBatch,
    UnrollPrefixes,
    make_prompt_batch,
)
from rmas_train.errors import ConfigError
from rmas_train.topology import CallId, Edge, Topology

Rows = Sequence[Mapping[str, Any]]
# What changes a message on its way into a slot: controls, ablations, noise.
Intervention = Callable[[Message, Edge, int], Message]  # message, edge, round


@dataclass(frozen=True)
class Team:
    """Frozen agents with their prompts, and who sends to whom; everything but the links.

    Attributes:
        edge_input: ``inner``: a message is outer(z) as released; ``hidden``: outer(h), as in the
            paper's text.
        message_update: ``replace``: each round's message is new; ``residual``: from an edge's
            second message on, it is added to the one before.
    """

    agents: dict[str, Agent]
    prompts: dict[str, Prompt]
    topology: Topology
    edge_input: str = "inner"
    message_update: str = "replace"


@dataclass(frozen=True)
class Sent:
    """What an agent sent in one call.

    Attributes:
        messages: edge key -> message, before any intervention.
        hidden, latents: h and z of the latent steps, (B, M, D) each; None where it wrote text.
        tokens: per row, text tokens written.
        texts: per row, what was written; ``ids``: as the tokens that it was written in.
    """

    messages: Mapping[str, Message]
    hidden: Tensor | None = None
    latents: Tensor | None = None
    tokens: Sequence[int] = ()
    texts: Sequence[str] = ()
    ids: Sequence[Sequence[int]] = ()


class Channel(Protocol):
    """How an agent's call becomes messages; the kind of all edges of an unroll."""

    def send(self, call: Call) -> Sent:
        """Messages over ``call.edges``."""
        ...


@dataclass
class Call:
    """One agent's call in an unroll.

    It runs when it is first asked what it sent, or when the unroll goes on. The last call of an
    unroll sends nothing.

    Attributes:
        round: from 1.
        agent: name.
        rows: of the unroll.
        inbox: source -> message as it arrived, after interventions.
        edges: over which it sends.
        earlier: edge key -> what it sent there in the round before; before any intervention.
        prompts: what it reads: its prompts with the inbox in their slots.
        chunk: rows per forward; None: all.
        keeps_graph: gradients go back through what it sends.
    """

    round: int
    agent: str
    rows: Rows
    inbox: Mapping[str, Message]
    edges: Sequence[Edge]
    earlier: Mapping[str, Message]
    prompts: PromptBatch
    chunk: int | None
    keeps_graph: bool
    channel: Channel = field(repr=False)

    @cached_property
    def sent(self) -> Sent:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.keeps_graph):
            return self.channel.send(self)

    @property
    def messages(self) -> Mapping[str, Message]:
        """Edge key -> message that it sent; the last call sends none."""
        return self.sent.messages if self.edges else {}

    @property
    def hidden(self) -> Tensor | None:
        """Last hidden states h of its latent steps, (B, M, D)."""
        return self.sent.hidden

    @property
    def latents(self) -> Tensor | None:
        """Its latents z = inner(h), (B, M, D)."""
        return self.sent.latents

    def answer_loss(self, answers: Sequence[list[int]], row_means: bool = False) -> Tensor:
        """Summed cross-entropy of these token ids after its prompts, one answer per row.

        ``row_means``: each row's mean over its tokens, summed over rows.
        """
        losses = []
        for part in self.prompts.parts(self.chunk):
            own = [answers[i] for i in part]
            batch, prefix = self.prompts.embed(part, own)
            losses.append(answer_loss(self.prompts.agent, batch, prefix, own, row_means))
        return torch.stack(losses).sum()

    def answer_states(self, answers: Sequence[list[int]]) -> list[Tensor]:
        """Per row, the hidden state before each of these token ids, (tokens, D)."""
        states: dict[int, Tensor] = {}
        for part in self.prompts.parts(self.chunk):
            own = [answers[i] for i in part]
            found_ND = answer_states(self.prompts.agent, *self.prompts.embed(part, own), own)
            states |= dict(zip(part, found_ND.split([len(a) for a in own]), strict=True))
        return [states[i] for i in range(len(self.rows))]

    @torch.no_grad()
    def write(
        self,
        max_new_tokens: int,
        chooser: Chooser = GREEDY,
        interrupts: Sequence[Interrupt] | None = None,
    ) -> list[Text]:
        """What the agent writes after its prompts; one text per row.

        Args:
            max_new_tokens: where to stop at the latest.
            chooser: of the rows' tokens.
            interrupts: one per row, or None.
        """
        plain = chooser.decoding.method == "plain"
        prompts = self.prompts if plain else self.prompts.whole()
        texts: dict[int, Text] = {}
        for part in prompts.parts(self.chunk):
            own = interrupts and [interrupts[i] for i in part]
            how = max_new_tokens, chooser.rows(part), own
            found = write(prompts.agent, prompts.embed(part), *how)
            texts |= dict(zip(part, found, strict=True))
        return [texts[i] for i in range(len(self.rows))]


class Recursion:
    """A system in motion: built once, unrolled for each batch of questions.

    Args:
        team: agents, prompts, topology.
        channel: what crosses the edges, and how gradients go back through it.
        gradient_rounds: only this many of the last rounds keep a graph; dropped: every term
            through a message that was sent earlier. None: all rounds.
        prefixes: keeps frozen prefixes from one unroll to the next; None: within an unroll only.
    """

    def __init__(
        self,
        team: Team,
        channel: Channel,
        *,
        gradient_rounds: int | None = None,
        prefixes: PrefixStore | None = None,
    ) -> None:
        self.team, self.channel = team, channel
        self._gradient_rounds = gradient_rounds
        self._prefixes = prefixes or PrefixStore()

    def unroll(
        self,
        rows: Rows,
        rounds: int,
        *,
        chunk: int | None = None,
        interventions: Sequence[Intervention] = (),
        answer_rounds: Iterable[int] | None = None,
    ) -> Iterator[Call]:
        """Every call whose result reaches an answer, in the order in which they run.

        The last one is the decoder's in the last round. To end the unroll early, stop iterating.

        Args:
            rows: columns of each problem; no column but those named in the prompts is read.
            rounds: 1 or more.
            chunk: rows per forward; None: all at once.
            interventions: change each message on its way, one after the other.
            answer_rounds: rounds in which the decoder is to answer; None: the last one.
        """
        _check_interventions(interventions)
        if chunk is not None and (type(chunk) is not int or chunk < 1):
            raise ConfigError(f"batch_size={chunk!r}: give a whole number, 1 or more.")
        topology = self.team.topology
        ids = topology.live_calls(rounds, answer_rounds)
        prefixes = self._prefixes.begin(keep=chunk is None or chunk >= len(rows))
        inboxes: dict[CallId, dict[str, Message]] = {call_id: {} for call_id in ids}
        sent: dict[str, Message] = {}
        for call_id in ids:
            round_, name = call_id
            edges = topology.sends(call_id, inboxes)
            call = Call(
                round_,
                name,
                rows,
                inboxes[call_id],
                edges,
                {edge.key: sent[edge.key] for edge in edges if edge.key in sent},
                self._prompts(rows, call_id, ids, prefixes, inboxes[call_id]),
                chunk,
                self._gradient_rounds is None or round_ > rounds - self._gradient_rounds,
                self.channel,
            )
            yield call
            for edge in call.edges:
                message = sent[edge.key] = self._sent(call, edge)
                for change in interventions:
                    message = _changed(change, message, edge, round_, len(rows))
                inboxes[round_ + edge.next_round, edge.target][name] = message
            del call  # its states are freed before the next call runs

    def _sent(self, call: Call, edge: Edge) -> Message:
        """The call's message over an edge.

        Raises:
            ConfigError: the channel sent none; names channel, edge and round.
        """
        message = call.messages.get(edge.key)
        if message is None:
            raise ConfigError(
                f"channel {type(self.channel).__name__} sent nothing over {edge.key} in round "
                f"{call.round}; give a message for each of call.edges."
            )
        return message

    def _prompts(
        self,
        rows: Rows,
        call_id: CallId,
        ids: Sequence[CallId],
        prefixes: UnrollPrefixes,
        inbox: Mapping[str, Message],
    ) -> PromptBatch:
        """A call's prompts, with slots if anything arrives."""
        round_, name = call_id
        encode = self.team.prompts[name].encode
        later = None
        if not inbox and (round_ + 1, name) in ids:
            later = encode(list(rows), round_ + 1, first=False)
        prompts = encode(list(rows), round_, first=not inbox)
        return make_prompt_batch(self.team.agents[name], prompts, prefixes, inbox, later)


def _check_interventions(interventions: Any) -> None:
    """A list of functions of message, edge and round.

    Raises:
        ConfigError: it is not; names it.
    """
    if callable(interventions) or not isinstance(interventions, Sequence):
        raise ConfigError(f"interventions={interventions!r}: give a list of them.")
    for change in interventions:
        try:
            signature(change).bind(None, None, 0)
        except ValueError:  # a built-in that does not say what it takes
            continue
        except TypeError as error:
            raise ConfigError(
                f"intervention {change!r}: {error}; give a function of message, edge and round."
            ) from error


def _changed(change: Intervention, message: Message, edge: Edge, round_: int, rows: int) -> Message:
    """What an intervention gives back.

    Raises:
        ConfigError: it is no message for these rows; names intervention, edge and round.
    """
    name = getattr(change, "__name__", repr(change))
    where = f"intervention {name} for {edge.key} in round {round_}"
    return check_message(change(message, edge, round_), message, rows, where)


def last_call(unroll: Iterable[Call]) -> Call:
    """Go through an unroll; its last call is the decoder's, with all that arrived in its inbox."""
    (last,) = deque(unroll, maxlen=1)
    return last
