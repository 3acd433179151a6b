"""What crosses each edge in each round: how loud messages are, and how alike."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from rmas_train.config import Config
from rmas_train.engine.inputs import LatentMessage
from rmas_train.recursion import Call


class Analysis(Protocol):
    """Looks at the calls of an unroll over the test rows."""

    def see(self, call: Call) -> None:
        """Called for every call, in the order in which they run, without a graph."""
        ...

    def result(self) -> Any:
        """Plain data for ``analyse/<name>.json``."""
        ...


class MessageStatistics:
    """Per round and edge: median norm of the vectors, and mean cosine between rows' messages."""

    def __init__(self, config: Config) -> None:  # noqa: ARG002
        self._seen: dict[tuple[int, str], list[Tensor]] = defaultdict(list)

    def see(self, call: Call) -> None:
        for edge in call.edges:
            message = call.messages[edge.key]
            if isinstance(message, LatentMessage):
                self._seen[call.round, edge.key].append(message.vectors.float().cpu())

    def result(self) -> list[dict[str, Any]]:
        return [
            {"round": round_, "edge": edge} | statistics_of(torch.cat(vectors))
            for (round_, edge), vectors in sorted(self._seen.items())
        ]


def statistics_of(vectors_BMD: Tensor) -> dict[str, float]:
    """``norm``: median; ``cosine``: mean over pairs of rows at the same place (1: collapsed)."""
    unit_MBD = F.normalize(vectors_BMD, dim=-1).transpose(0, 1)
    rows = vectors_BMD.shape[0]
    total = (unit_MBD.sum(1).pow(2).sum(-1) - rows).mean()  # over ordered pairs of unlike rows
    cosine = float(total / (rows * (rows - 1))) if rows > 1 else float("nan")
    return {"norm": float(vectors_BMD.norm(dim=-1).median()), "cosine": cosine}
