"""Gradients by link, and the optimizer that clips or skips each link as a whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from rmas_train.config import TrainingConfig
from rmas_train.errors import DeadLinkError
from rmas_train.support.reading import check_type

WATCH_STEPS = 10
WEAK = 1e-6


def gradient_norms(
    groups: Mapping[str, nn.Module], gradient: Callable[[nn.Parameter], Tensor | None]
) -> dict[str, float]:
    """L2 norm of each link's gradient; 0 where no parameter has one.

    Args:
        groups: links by name.
        gradient: a parameter's whole gradient.
    """
    norms = {}
    for name, link in groups.items():
        found = [gradient(p) for p in link.parameters()]
        grads = [g for g in found if g is not None]
        norms[name] = torch.nn.utils.get_total_norm(grads) if grads else torch.zeros(())
    # One transfer for all of them.
    values = torch.stack([n.cpu() for n in norms.values()]).tolist()
    return dict(zip(norms, values, strict=True))


class DeadLinkWatch:
    """Sums each link's gradient norm over its first steps and reports links with none.

    Args:
        expected: rounds of a step -> links that a gradient can reach at that depth; a step counts
            for these only.
    """

    def __init__(self, expected: Callable[[int], set[str]]) -> None:
        self._expected = expected
        self._norms: dict[str, list[float]] = {}
        self._judged: set[str] = set()

    def __call__(self, rounds: int, norms: Mapping[str, float]) -> None:
        """Add one optimizer step.

        Raises:
            DeadLinkError: a link got no gradient in its first ``WATCH_STEPS`` steps.
        """
        for name in self._expected(rounds) & set(norms) - self._judged:
            self._norms.setdefault(name, []).append(norms[name])
        ready = {n for n, seen in self._norms.items() if len(seen) >= WATCH_STEPS} - self._judged
        if ready:
            self._judge(ready)
            self._judged |= ready

    def state(self) -> dict[str, Any]:
        """Plain data to go on from."""
        return {"norms": self._norms, "judged": sorted(self._judged)}

    def load(self, state: Mapping[str, Any]) -> None:
        check_type(state, dict[str, Any], "LinkWatch")
        check_type(state["norms"], dict[str, list[float]], "LinkWatch.norms")
        check_type(state["judged"], list[str], "LinkWatch.judged")
        self._norms = {name: list(seen) for name, seen in state["norms"].items()}
        self._judged = set(state["judged"])

    def _judge(self, names: set[str]) -> None:
        sums = {n: sum(seen[:WATCH_STEPS]) for n, seen in self._norms.items()}
        listed = ", ".join(f"{n} {total:.3g}" for n, total in sorted(sums.items()))
        middle = median(sums.values())
        for name in sorted(names):
            if sums[name] == 0:
                raise DeadLinkError(
                    f"link {name} got no gradient in its first {WATCH_STEPS} optimizer steps "
                    f"(summed norms: {listed}); its graph is cut somewhere between the link and "
                    "the loss."
                )
            if sums[name] < WEAK * middle:
                warnings.warn(
                    f"link {name} gets less than {WEAK:g} of the median link's gradient (summed "
                    f"norms over {WATCH_STEPS} steps: {listed}); it may learn nothing.",
                    stacklevel=2,
                )


class LinkAdamW(torch.optim.AdamW):
    """AdamW that scales each link's gradient, and skips a link that has none.

    Both happen inside ``step``, so that they are the same where a back end updates flat parts of
    the links instead of their parameters.

    Args:
        links: name -> module; one parameter group each.
        config: learning rate, betas, epsilon, weight decay.
    """

    def __init__(self, links: Mapping[str, nn.Module], config: TrainingConfig) -> None:
        groups = [
            {"params": list(link.parameters()), "name": name, "factor": None}
            for name, link in links.items()
        ]
        super().__init__(
            groups,
            lr=config.lr,
            betas=(config.betas[0], config.betas[1]),
            eps=config.eps,
            weight_decay=config.weight_decay,
        )

    def set_factors(self, factors: Mapping[str, float | None]) -> None:
        """What the next step multiplies each link's gradient by; None: no gradient, no update."""
        for group in self.param_groups:
            group["factor"] = factors[group["name"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if group["factor"] is None:
                    p.grad = None
                elif p.grad is not None and group["factor"] != 1:
                    p.grad.mul_(group["factor"])
        return super().step(closure)


def clip_factors(norms: Mapping[str, float], largest: float, scope: str) -> dict[str, float | None]:
    """Factors that bring gradients down to norm ``largest``, per link or as one vector.

    None for a link without gradient; ``largest`` 0 clips nothing.
    """
    total = sum(n**2 for n in norms.values()) ** 0.5
    factors: dict[str, float | None] = {}
    for name, norm in norms.items():
        size = norm if scope == "link" else total
        clip = largest / size if largest and size > largest else 1.0
        factors[name] = clip if norm else None
    return factors
