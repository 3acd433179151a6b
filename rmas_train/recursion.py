"""The unroll: questions through R rounds of agents that pass messages in latent space.

The one function behind training and evaluation, so that both see the same messages. No loss, no
optimizer, no ranks here.

Tensor names: B rows, L tokens, M latent steps, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import EncodedPrompt, Prompt
from rmas_train.agents.recompute import recompute
from rmas_train.agents.rollout import rollout
from rmas_train.agents.sequences import embed_batch
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
        prompts: the decoder's prompts of the last round, with open slots.
        inbox: source -> message (B, M, D) for those slots.
        messages: (round, edge) -> message as sent, before ``deliver``.
        latent_steps: per row, over all rollouts.
    """

    prompts: list[EncodedPrompt]
    inbox: dict[str, Tensor]
    messages: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    latent_steps: int = 0


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
    """
    calls = team.topology.live_calls(rounds)
    result = Unrolled([], {})
    inboxes: dict[Call, dict[str, Tensor]] = {call: {} for call in calls}
    for call in calls:
        round_, agent = call
        inbox = inboxes[call]
        prompts = team.prompts[agent].encode(list(rows), round_, first=not inbox)
        if call == calls[-1]:
            result.prompts, result.inbox = prompts, inbox
            return result
        edges = team.topology.sends(call, inboxes)
        think = partial(_call, team, links, agent, edges, prompts, latent_length, chunk)
        sent = _recomputed(think, links, agent, edges, inbox) if checkpoint else think(inbox)
        result.latent_steps += latent_length
        for edge in edges:
            message = sent[edge.key]
            result.messages[round_, edge.key] = message
            target = (round_ + edge.next_round, edge.target)
            inboxes[target][agent] = deliver(message) if deliver else message
    raise AssertionError("the decoder's last call is always live")


def _call(
    team: Team,
    links: LinkSet,
    name: str,
    edges: list[Edge],
    prompts: list[EncodedPrompt],
    latent_length: int,
    chunk: int | None,
    inbox: dict[str, Tensor],
) -> dict[str, Tensor]:
    """One agent call: fill the slots, roll out, send over each edge; edge -> (B, M, D_target)."""
    agent = team.agents[name]
    sent: dict[str, list[Tensor]] = {edge.key: [] for edge in edges}
    for part in _chunks(len(prompts), chunk):
        embeds_BLD, mask_BL = embed_batch(
            agent, prompts[part], {source: m[part] for source, m in inbox.items()}
        )
        hidden_BMD, latents_BMD = rollout(
            agent, links.inner[name], embeds_BLD, mask_BL, latent_length
        )
        thought_BMD = latents_BMD if team.edge_input == "inner" else hidden_BMD
        for edge in edges:
            sent[edge.key].append(links.outer[edge.key](thought_BMD))
    return {key: torch.cat(parts) for key, parts in sent.items()}


def _recomputed(
    think: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    links: LinkSet,
    name: str,
    edges: list[Edge],
    inbox: dict[str, Tensor],
) -> dict[str, Tensor]:
    """``think(inbox)``, run again in backward instead of kept; each run makes its own KV cache."""

    def run(*messages: Tensor) -> tuple[Tensor, ...]:
        sent = think(dict(zip(inbox, messages, strict=True)))
        return tuple(sent[edge.key] for edge in edges)

    used = [links.inner[name], *(links.outer[edge.key] for edge in edges)]
    parameters = [p for link in used for p in link.parameters()]
    sent = recompute(run, list(inbox.values()), parameters)
    return {edge.key: message for edge, message in zip(edges, sent, strict=True)}


def _chunks(count: int, chunk: int | None) -> list[slice]:
    size = chunk or count
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]
