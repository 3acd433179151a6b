"""How much gradient a read-out passes where the agent is certain of its next token.

Theorem 4.1 of the paper bounds one link: where the next-token distribution has entropy of at most
eps, the Jacobian of text's soft form, W_in softmax(W_out h), is O(eps), while that of a residual
link stays away from zero. Here it is measured on the calls of an unroll: the norm that reaches a
hidden state when a random unit vector goes back from the message, through the read-out alone and
through the whole link. The theorem says nothing of the frozen agents between links, nor does this.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rmas_train.config import Config
from rmas_train.data.sampling import stream_seed
from rmas_train.links.modules import Link
from rmas_train.links.readout import Readout
from rmas_train.recursion import Call

PROBES = 8
BOUNDS = (0.001, 0.01, 0.1, 1.0)  # nats; the last bin is open


class Confidence:
    """Entropy beside gradient norms, vector by vector, for edges with a vocabulary read-out."""

    def __init__(self, config: Config) -> None:
        self._generator = torch.Generator().manual_seed(stream_seed(config.seed, "confidence"))
        self._found: list[dict[str, Any]] = []

    def see(self, call: Call) -> None:
        links = getattr(call.channel, "links", None)
        for edge in call.edges:
            link = links.outer[edge.key] if links is not None else None
            if call.hidden is None or not isinstance(link, Link):
                continue
            if isinstance(link.bound_readout, Readout):
                hidden_ND = call.hidden.flatten(0, 1)
                self._add(call.round, edge.key, self.measure(link, hidden_ND))

    def measure(self, link: Link, hidden_ND: Tensor) -> dict[str, Tensor]:
        """``entropy`` in nats, ``readout`` and ``link``: gradient norms; (N,) each."""
        assert isinstance(link.bound_readout, Readout)
        with torch.no_grad():
            p_NS, _ = link.bound_readout.probabilities(hidden_ND)
            entropy_N = torch.special.entr(p_NS).sum(-1)
        norms = {
            name: self._gradient_norm(function, hidden_ND, link.d_target)
            for name, function in (("readout", link.bound_readout), ("link", link))
        }
        return {"entropy": entropy_N} | norms

    def _gradient_norm(
        self, function: Callable[[Tensor], Tensor], hidden_ND: Tensor, width: int
    ) -> Tensor:
        """Root mean square, over random unit vectors v, of |J^T v|, per row."""
        squares_N = torch.zeros(len(hidden_ND), device=hidden_ND.device)
        with torch.enable_grad():
            h_ND = hidden_ND.detach().requires_grad_()
            out_NE = function(h_ND)
            for probe in range(PROBES):
                v_NE = torch.randn(len(h_ND), width, generator=self._generator).to(out_NE)
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


def by_entropy(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bins of entropy, with the number of vectors and the medians of their gradient norms."""
    bins: list[dict[str, Any]] = []
    for low, high in pairwise([0.0, *BOUNDS, float("inf")]):
        here = [one for one in found if low <= one["entropy"] < high]
        medians = {
            name: torch.tensor([one[name] for one in here]).median().item()
            for name in ("readout", "link")
            if here
        }
        most = None if high == float("inf") else high
        bins.append({"least": low, "below": most, "vectors": len(here)} | medians)
    return bins
