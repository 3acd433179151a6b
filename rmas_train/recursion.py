"""The unroll: questions through R rounds of agents that pass messages in latent space.

The one function behind training and evaluation, so that both see the same messages. No loss, no
optimizer, no ranks here.

Tensor names: B rows, L tokens, M latent steps, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rmas_train.agents.agent import Agent
from rmas_train.agents.prefix import PrefixCache, Prefixes
from rmas_train.agents.prompts import Prompt
from rmas_train.agents.recompute import recompute
from rmas_train.agents.rollout import rollout
from rmas_train.agents.turn import Turn, make_turn
from rmas_train.links.linkset import LinkSet
from rmas_train.topology import Call, Edge, Topology

Rows = Sequence[Mapping[str, Any]]
Deliver = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Team:
    """Frozen agents with their prompts, and who sends to whom; everything but the links.

    Attributes:
        edge_input: ``inner``: a message is outer(z) as released; ``hidden``: outer(h), as in the
            paper's text.
    """

    agents: dict[str, Agent]
    prompts: dict[str, Prompt]
    topology: Topology
    edge_input: str = "inner"


@dataclass
class Unrolled:
    """What an unroll leaves for the decoder.

    Attributes:
        turn: the decoder's turn of the last round, to be opened with ``inbox``.
        inbox: source -> message (B, M, D) for its slots.
        messages: (round, edge) -> message as sent, before ``deliver``.
        latent_steps: per row, over all rollouts.
    """

    turn: Turn
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
    checkpoint: bool = False,
    cache: PrefixCache | None = None,
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
        checkpoint: keep each call's messages only and run the call again in backward (activation
            checkpointing), so that memory hardly grows with rounds; same gradient, more time.
        cache: frozen prefixes of earlier unrolls.
    """
    calls = team.topology.live_calls(rounds)
    prefixes = Prefixes(cache, keep=chunk is None or chunk >= len(rows))
    inboxes: dict[Call, dict[str, Tensor]] = {call: {} for call in calls}
    messages: dict[tuple[int, str], Tensor] = {}
    for call in calls[:-1]:
        round_, name = call
        inbox = inboxes[call]
        turn = take_turn(team, rows, call, calls, prefixes, first=not inbox)
        edges = team.topology.sends(call, inboxes)
        think = partial(_think, turn, links.inner[name], team.edge_input, latent_length, chunk)
        sent = _send(links, name, edges, think, inbox, checkpoint)
        for edge, message in zip(edges, sent, strict=True):
            messages[round_, edge.key] = message
            target = (round_ + edge.next_round, edge.target)
            inboxes[target][name] = deliver(message) if deliver else message
    inbox = inboxes[calls[-1]]
    turn = take_turn(team, rows, calls[-1], calls, prefixes, first=not inbox)
    return Unrolled(turn, inbox, messages, latent_length * (len(calls) - 1))


def take_turn(
    team: Team, rows: Rows, call: Call, calls: list[Call], prefixes: Prefixes, first: bool
) -> Turn:
    """A call's prompts; ``first``: without slots, as no message arrives."""
    round_, name = call
    encode = team.prompts[name].encode
    later = None
    if first and (round_ + 1, name) in calls:
        later = encode(list(rows), round_ + 1, first=False)
    return make_turn(team.agents[name], encode(list(rows), round_, first=first), prefixes, later)


def _think(
    turn: Turn,
    inner: nn.Module,
    edge_input: str,
    latent_length: int,
    chunk: int | None,
    inbox: dict[str, Tensor],
) -> Tensor:
    """One agent call: fill the slots, roll out; what the outer links get, (B, M, D)."""
    thoughts, order = [], []
    for part in turn.parts(chunk):
        batch, prefix = turn.open(part, inbox)
        hidden_BMD, latents_BMD = rollout(turn.agent, inner, batch, latent_length, prefix)
        thoughts.append(latents_BMD if edge_input == "inner" else hidden_BMD)
        order += part
    thought_BMD = torch.cat(thoughts)
    if order == sorted(order):
        return thought_BMD
    return thought_BMD[torch.tensor(order).argsort().to(thought_BMD.device)]


def _send(
    links: LinkSet,
    name: str,
    edges: list[Edge],
    think: Callable[[dict[str, Tensor]], Tensor],
    inbox: dict[str, Tensor],
    checkpoint: bool,
) -> list[Tensor]:
    """A call's message over each edge, (B, M, D_target) each.

    Upstream of no trainable link there is nothing to differentiate: the call runs without a graph.
    """
    inner, outer = links.inner[name], [links.outer[edge.key] for edge in edges]
    upstream = [*inbox.values(), *inner.parameters()]
    if not any(x.requires_grad for x in upstream):
        with torch.no_grad():
            thought_BMD = think(inbox)
        return [link(thought_BMD) for link in outer]

    def run(*messages: Tensor) -> tuple[Tensor, ...]:
        thought_BMD = think(dict(zip(inbox, messages, strict=True)))
        return tuple(link(thought_BMD) for link in outer)

    if not checkpoint:
        return list(run(*inbox.values()))
    parameters = [p for link in (inner, *outer) for p in link.parameters()]
    return list(recompute(run, list(inbox.values()), parameters))
