"""How much gradient a link passes where its agent is certain of its next token.

Theorem 4.1 of the paper bounds one link: where the next-token distribution has entropy of at most
eps, the Jacobian of text's soft form, W_in softmax(W_out h), is O(eps), while that of a residual
link stays away from zero. Here it is measured on the calls of an unroll: the norm that reaches a
hidden state when a random unit vector goes back from the message, through the whole link, through
its vocabulary read-out alone where it has one, and through text's soft form in the source's own
vocabulary (what a straight-through estimate of text would pass). The theorem says nothing of the
frozen agents between links, nor does this; ``profile.jsonl`` of a training run does.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rmas_train.agents.agent import Agent
from rmas_train.config import Config
from rmas_train.data.sampling import stream_seed
from rmas_train.engine.rollout import at_least_float32
from rmas_train.links.link_set import LinkSet
from rmas_train.links.modules import Link
from rmas_train.links.readout import Readout
from rmas_train.recursion import Call

PROBES = 8
BOUNDS = (0.001, 0.01, 0.1, 1.0)  # nats; the last bin is open
KINDS = ("link", "readout", "text")


class Confidence:
    """Entropy beside gradient norms, vector by vector, on every edge."""

    def __init__(self, config: Config) -> None:
        self._generator = torch.Generator().manual_seed(stream_seed(config.seed, "confidence"))
        self._inner = config.links.edge_input == "inner"
        self._found: list[dict[str, Any]] = []

    def see(self, call: Call) -> None:
        links = getattr(call.channel, "links", None)
        for edge in call.edges:
            link = links.outer[edge.key] if links is not None else None
            if call.hidden is None or links is None or not isinstance(link, Link):
                continue
            whole = self._through(links, call.agent, link)
            hidden_ND = call.hidden.flatten(0, 1).float()
            self._add(
                call.round, edge.key, self.measure(call.prompts.agent, link, whole, hidden_ND)
            )

    def _through(self, links: LinkSet, source: str, link: Link) -> Callable[[Tensor], Tensor]:
        """From a hidden state to the message: with the inner link where that comes first."""
        if not self._inner:
            return link
        return lambda h_ND: link(links.inner[source](h_ND))

    def measure(
        self, agent: Agent, link: Link, whole: Callable[[Tensor], Tensor], hidden_ND: Tensor
    ) -> dict[str, Tensor]:
        """``entropy`` of the agent's next token, nats, over the strings that a read-out counts;
        ``readout`` (where there is one), ``link`` and ``text``: gradient norms; (N,) each."""
        readout = link.bound_readout
        ways: dict[str, Callable[[Tensor], Tensor]] = {}
        with torch.no_grad():
            if isinstance(readout, Readout):
                p_NV, _ = readout.probabilities(hidden_ND)
                ways["readout"] = readout
            else:
                p_NV = _logits(agent, hidden_ND).softmax(-1)
            entropy_N = torch.special.entr(p_NV).sum(-1)
        ways |= {"link": whole, "text": lambda h_ND: soft_text(agent, h_ND)}
        norms = {name: self._gradient_norm(way, hidden_ND) for name, way in ways.items()}
        return {"entropy": entropy_N} | norms

    def _gradient_norm(self, function: Callable[[Tensor], Tensor], hidden_ND: Tensor) -> Tensor:
        """Root mean square, over random unit vectors v, of |J^T v|, per row."""
        squares_N = torch.zeros(len(hidden_ND), device=hidden_ND.device)
        with torch.enable_grad():
            h_ND = hidden_ND.detach().requires_grad_()
            out_NE = function(h_ND)
            for probe in range(PROBES):
                v_NE = torch.randn(out_NE.shape, generator=self._generator).to(out_NE)
                keep = probe + 1 < PROBES
                back = torch.autograd.grad(out_NE, h_ND, F.normalize(v_NE, dim=-1), keep)
                squares_N += back[0].float().pow(2).sum(-1) / PROBES
        return squares_N.sqrt()

    def _add(self, round_: int, edge: str, measured: dict[str, Tensor]) -> None:
        columns = {name: values.tolist() for name, values in measured.items()}
        for row in zip(*columns.values(), strict=True):
            place = {"round": round_, "edge": edge}
            self._found.append(place | dict(zip(columns, row, strict=True)))

    def result(self) -> dict[str, Any]:
        """``vectors``: every one; ``bins``: by entropy, their number and median norms."""
        return {"bins": by_entropy(self._found), "vectors": self._found}


def soft_text(agent: Agent, hidden_ND: Tensor) -> Tensor:
    """W_in softmax(W_out h): the expected embedding of the agent's own next token, (N, D)."""
    weights_VD = agent.embed(torch.arange(agent.rows, device=agent.device)).to(hidden_ND)
    return _logits(agent, hidden_ND).softmax(-1)[:, : len(weights_VD)].to(weights_VD) @ weights_VD


def _logits(agent: Agent, hidden_ND: Tensor) -> Tensor:
    return at_least_float32(agent.logits(hidden_ND.to(agent.dtype)))


def by_entropy(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bins of entropy, with the number of vectors and the medians of their gradient norms."""
    bins: list[dict[str, Any]] = []
    for low, high in pairwise([0.0, *BOUNDS, float("inf")]):
        here = [one for one in found if low <= one["entropy"] < high]
        known = {name: [one[name] for one in here if name in one] for name in KINDS}
        medians = {name: torch.tensor(x).median().item() for name, x in known.items() if x}
        most = None if high == float("inf") else high
        bins.append({"least": low, "below": most, "vectors": len(here)} | medians)
    return bins
