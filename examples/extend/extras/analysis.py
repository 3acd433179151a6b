"""An analysis of messages: over how many directions the messages of an edge spread."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rmas_train.config import Config
from rmas_train.recursion import Call
from rmas_train.registry import ANALYSES


@ANALYSES.register("effective_rank")
class EffectiveRank:
    """exp of the entropy of the normalised singular values, per round and edge."""

    def __init__(self, config: Config) -> None:
        self._seen: dict[tuple[int, str], list[Tensor]] = {}

    def see(self, call: Call) -> None:
        for key, message in call.messages.items():
            for x in message.tensors():
                self._seen.setdefault((call.round, key), []).append(x.flatten(0, 1).cpu())

    def result(self) -> list[dict[str, Any]]:
        found = []
        for (round_, edge), parts in sorted(self._seen.items()):
            values = torch.linalg.svdvals(torch.cat(parts).double())
            shares = values / values.sum()
            entropy = -(shares * shares.clamp_min(1e-12).log()).sum()
            found.append({"round": round_, "edge": edge, "effective_rank": entropy.exp().item()})
        return found
