"""The unroll: questions through R rounds of agents that pass messages in latent space.

The one function behind training and evaluation, so that both see the same messages. No loss, no
optimizer, no ranks here.

Tensor names: B rows, L tokens, M latent steps, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import Prompt
from rmas_train.engine.gradient import FULL, Gradient, Outputs, parallel
from rmas_train.engine.prefix import Agree, PrefixCache, Prefixes
from rmas_train.engine.prompt_batch import PromptBatch, make_prompt_batch
from rmas_train.engine.recompute import recompute
from rmas_train.engine.rollout import read_text, reread, rollout
from rmas_train.links.linkset import LinkSet
from rmas_train.topology import CallId, Topology

Rows = Sequence[Mapping[str, Any]]
Deliver = Callable[[Tensor], Tensor]
Texts = Mapping[str, Sequence[list[int]]]


@dataclass(frozen=True)
class Team:
    """Frozen agents with their prompts, and who sends to whom; everything but the links.

    Attributes:
        edge_input: ``inner``: a message is outer(z) as released; ``hidden``: outer(h), as in the
            paper's text.
        agree: where ranks share an agent's layers, makes a yes of all out of each one's.
    """

    agents: dict[str, Agent]
    prompts: dict[str, Prompt]
    topology: Topology
    edge_input: str = "inner"
    agree: Agree = bool


@dataclass(frozen=True)
class Backward:
    """How an unroll is gone back through; the default is exact.

    Attributes:
        gradient: through each rollout.
        rounds: only this many of the last rounds keep a graph; dropped: every term through a
            message that was sent earlier. None: all rounds.
        checkpoint: keep each call's messages only and run the call again in backward (activation
            checkpointing), so that memory hardly grows with rounds; same gradient, more time.
    """

    gradient: Gradient = FULL
    rounds: int | None = None
    checkpoint: bool = False


EXACT = Backward()


@dataclass
class Unrolled:
    """What an unroll leaves for the decoder.

    Attributes:
        turn: the decoder's turn of the last round, to be opened with ``inbox``.
        inbox: source -> message (B, M, D) for its slots.
        messages: (round, edge) -> message as sent, before ``deliver``.
        latent_steps: per row, over all rollouts.
    """

    turn: PromptBatch
    inbox: dict[str, Tensor]
    messages: dict[tuple[int, str], Tensor]
    latent_steps: int


def unroll(
    team: Team,
    links: LinkSet,
    rows: Rows,
    rounds: int,
    latent_length: int,
    *,
    chunk: int | None = None,
    deliver: Deliver | None = None,
    backward: Backward = EXACT,
    cache: PrefixCache | None = None,
    texts: Texts | None = None,
    fast: bool = False,
) -> Unrolled:
    """Run every call whose result reaches the answer, but the decoder's last one.

    Args:
        team: agents, prompts, topology.
        links: inner and outer links; gradients flow into those that require them.
        rows: columns of each problem; no column but those named in the prompts is read.
        rounds: 1 or more.
        latent_length: M; 0 leaves every slot empty (control `null`).
        chunk: rows per forward; None: all at once.
        deliver: changes each message (all rows, M, D) on its way into a slot (controls).
        backward: how gradients go back.
        cache: frozen prefixes of earlier unrolls.
        texts: agent -> token ids of each row, 1 or more; such an agent does not roll out but reads
            its text, and the states of these tokens are sent (the release's teacher forcing).
        fast: see ``rollout``.
    """
    calls = team.topology.live_calls(rounds)
    prefixes = Prefixes(cache, keep=chunk is None or chunk >= len(rows), agree=team.agree)
    inboxes: dict[CallId, dict[str, Tensor]] = {call: {} for call in calls}
    messages: dict[tuple[int, str], Tensor] = {}
    for call in calls[:-1]:
        round_, name = call
        inbox = inboxes[call]
        turn = take_turn(team, rows, call, calls, prefixes, inbox, texts)
        edges = team.topology.sends(call, inboxes)
        think = Thinking(
            turn,
            links.inner[name],
            [links.outer[edge.key] for edge in edges],
            team.edge_input,
            latent_length,
            chunk=chunk,
            gradient=backward.gradient,
            texts=(texts or {}).get(name),
            fast=fast,
        )
        recent = backward.rounds is None or round_ > rounds - backward.rounds
        with torch.set_grad_enabled(torch.is_grad_enabled() and recent):
            sent = think.send(inbox, backward.checkpoint)
        for edge, message in zip(edges, sent, strict=True):
            messages[round_, edge.key] = message
            target = (round_ + edge.next_round, edge.target)
            inboxes[target][name] = deliver(message) if deliver else message
    inbox = inboxes[calls[-1]]
    turn = take_turn(team, rows, calls[-1], calls, prefixes, inbox, texts)
    return Unrolled(turn, inbox, messages, latent_length * (len(calls) - 1))


def take_turn(
    team: Team,
    rows: Rows,
    call: CallId,
    calls: list[CallId],
    prefixes: Prefixes,
    inbox: Mapping[str, Any],
    texts: Texts | None = None,
) -> PromptBatch:
    """A call's prompts, with slots if anything arrives."""
    round_, name = call
    encode = team.prompts[name].encode
    later = None
    if not inbox and (round_ + 1, name) in calls:
        later = encode(list(rows), round_ + 1, first=False)
    prompts = encode(list(rows), round_, first=not inbox)
    lengths = {s: [len(ids) for ids in (texts or {})[s]] for s in inbox if s in (texts or {})}
    return make_prompt_batch(team.agents[name], prompts, prefixes, later, lengths)


@dataclass(frozen=True)
class Thinking:
    """One agent call: fill the slots, roll out, send over each edge.

    Attributes:
        turn: the agent with its prompts.
        inner: its inner link.
        outer: the link of each edge over which it sends.
        edge_input, latent_length, chunk, gradient: see ``unroll``.
        texts: of this agent, see there.
        fast: see ``rollout``.
    """

    turn: PromptBatch
    inner: nn.Module
    outer: Sequence[nn.Module]
    edge_input: str
    latent_length: int
    chunk: int | None
    gradient: Gradient
    texts: Sequence[list[int]] | None = None
    fast: bool = False

    def send(self, inbox: dict[str, Tensor], checkpoint: bool) -> Sequence[Tensor]:
        """The message over each edge, (B, M, D_target) each."""
        messages = list(inbox.values())
        parameters = [p for link in (self.inner, *self.outer) for p in link.parameters()]

        def run(*messages: Tensor, again: Tensor | None = None) -> tuple[Tensor, Outputs]:
            hidden, latents = self._think(dict(zip(inbox, messages, strict=True)), again)
            return latents, self._through_links(hidden, latents)

        if not any(x.requires_grad for x in (*messages, *self.inner.parameters())):
            # Upstream of no trainable link: there is nothing to go back through.
            with torch.no_grad():
                thought = self._think(inbox)
            return self._through_links(*thought)
        if self.gradient.mode == "parallel":
            return parallel(run, messages, parameters, self.gradient.steps)
        if checkpoint:
            return recompute(lambda *messages: run(*messages)[1], messages, parameters)
        return run(*messages)[1]

    def _think(
        self, inbox: dict[str, Tensor], again: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """States and latents of all rows; ``again``: all positions at once, over these latents."""
        agent, found, order = self.turn.agent, [], []
        for part in self.turn.parts(self.chunk):
            texts = self.texts and [self.texts[i] for i in part]
            batch, prefix = self.turn.open(part, inbox, texts)
            if self.texts and texts:
                lengths = max(map(len, texts)), max(map(len, self.texts))
                found.append(read_text(agent, self.inner, batch, *lengths, prefix))
            elif again is None:
                how = (self.latent_length, prefix, self.gradient, self.fast)
                found.append(rollout(agent, self.inner, batch, *how))
            else:
                found.append(reread(agent, self.inner, batch, again[part], prefix))
            order += part
        hidden, latents = (torch.cat(x) for x in zip(*found, strict=True))
        if order == sorted(order):
            return hidden, latents
        back = torch.tensor(order).argsort().to(hidden.device)
        return hidden[back], latents[back]

    def _through_links(self, hidden: Tensor, latents: Tensor) -> Outputs:
        thought_BMD = latents if self.edge_input == "inner" else hidden
        return tuple(link(thought_BMD) for link in self.outer)
