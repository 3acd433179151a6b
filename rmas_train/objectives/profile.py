"""The gradient profile: how much gradient each edge gets in each round.

Of a step's mean loss L, for every edge and round: the norm of dL/d(message), and the norm of what
this round's use of the link adds to dL/d(its parameters). The parts of all rounds add up to the
link's gradient; parts of micro-batches and ranks are added as vectors before a norm is taken.
The paper's Theorem 4.1 bounds one link's Jacobian; the profile is of the whole way from the answer
back through frozen agents, links and rounds, which the theorem leaves open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmas_train.channels import LatentChannel, updated
from rmas_train.engine.inputs import LatentMessage
from rmas_train.recursion import Call

Place = tuple[int, str]  # round, edge key


@dataclass
class _Sent:
    """One message of one micro-batch, and what made it."""

    message: Tensor
    link: nn.Module
    thought: Tensor
    before: Tensor | None

    @property
    def gradient(self) -> Tensor | None:
        """What came back to the message, after every hook that changes it."""
        return self.message.grad


class MessageProfile:
    """Collects a step's messages and their gradients while ``is_on``.

    Args:
        channel: of the unroll.
    """

    def __init__(self, channel: LatentChannel) -> None:
        self._channel = channel
        self.is_on = False
        self._sent: dict[Place, list[_Sent]] = {}

    def watch(self, calls: Iterator[Call]) -> Iterator[Call]:
        """The calls of an unroll; their messages are watched."""
        for call in calls:
            yield call
            if self.is_on and torch.is_grad_enabled():
                self._watch(call)

    def _watch(self, call: Call) -> None:
        sent = call.sent
        for edge in call.edges:
            message = sent.messages[edge.key]
            link = self._channel.links.outer[edge.key]
            is_trained = any(p.requires_grad for p in link.parameters())
            if not isinstance(message, LatentMessage) or not message.vectors.requires_grad:
                continue
            if sent.hidden is None or sent.latents is None or not is_trained:
                continue
            thought = self._channel.thought(sent.hidden, sent.latents).detach()
            before = self._channel.earlier(call, edge)
            message.vectors.retain_grad()
            before = None if before is None else before.detach()
            one = _Sent(message.vectors, link, thought, before)
            self._sent.setdefault((call.round, edge.key), []).append(one)

    def collect(
        self, reduce: Callable[[Tensor], Tensor], scale: float = 1.0
    ) -> list[dict[str, Any]]:
        """What this file's top says, per round and edge; lets go of the messages.

        ``message`` and ``parameters``: gradient norms. ``norm``: mean norm of the message vectors.
        ``variation``: share of their power that differs between rows, as in ``analysis.health``.

        Args:
            reduce: sum over ranks.
            scale: what gradients were multiplied by on their way, beyond dL.
        """
        found = []
        for (round_, edge), sent in sorted(self._sent.items()):
            squares = torch.stack([_squares(one) for one in sent]).sum()
            vector = sum_of(_parameter_gradient(one) for one in sent)
            squares, vector = reduce(squares) / scale**2, reduce(vector) / scale
            norms = {"message": squares.sqrt().item(), "parameters": vector.norm().item()}
            place = {"round": round_, "edge": edge}
            found.append(place | norms | _health([one.message.detach() for one in sent], reduce))
        self._sent = {}
        return found


def _health(messages: list[Tensor], reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """From sums over micro-batches and ranks, so that both are as of one batch."""
    rows = reduce(torch.tensor(float(sum(len(x) for x in messages))))
    sum_MD = reduce(torch.stack([x.float().sum(0) for x in messages]).sum(0))
    power = reduce(torch.stack([x.float().pow(2).sum() for x in messages]).sum())
    norm = reduce(torch.stack([x.float().norm(dim=-1).sum() for x in messages]).sum())
    shared = sum_MD.pow(2).sum() / rows.to(sum_MD)
    vectors = rows.to(norm) * len(sum_MD)
    variation = 1 - shared / power.clamp_min(1e-30)
    return {"norm": (norm / vectors).item(), "variation": variation.clamp_min(0).item()}


def _squares(one: _Sent) -> Tensor:
    if one.gradient is None:
        return torch.zeros((), device=one.thought.device)
    return one.gradient.float().pow(2).sum()


def _parameter_gradient(one: _Sent) -> Tensor:
    """What this use of a link adds to the gradient of its parameters, as one vector."""
    parameters = [p for p in one.link.parameters() if p.requires_grad]
    if one.gradient is None:
        return torch.cat([torch.zeros_like(p).flatten() for p in parameters])
    with torch.enable_grad():
        out = updated(one.link(one.thought), one.before)
    back = torch.autograd.grad(out, parameters, one.gradient.to(out), allow_unused=True)
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, back, strict=True)]
    return torch.cat([part.flatten() for part in parts])


def sum_of(vectors: Iterator[Tensor]) -> Tensor:
    """One after the other, so that two are held at most."""
    total = next(vectors)
    for vector in vectors:
        total = total + vector
    return total
