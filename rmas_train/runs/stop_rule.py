"""A trained stopping rule: the chance that an answer is right, from what is known by then.

Logistic regression on round, entropy of the answer's tokens, its change since the round before, and
agreement with that round's answer. ``analyses=[depth]`` fits one and keeps it in its result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from rmas_train.errors import ConfigError
from rmas_train.support.files import find_path
from rmas_train.support.reading import check_type, parse_json

FIT_STEPS, DECAY = 100, 1e-3


@dataclass(frozen=True)
class StopRule:
    """What ``fit`` found.

    Attributes:
        depth: rounds of the answers that it was fitted on; ``features`` are relative to it.
        middle, scale: of each feature, (F).
        weights: of the scaled features and of a constant, (F + 1).
    """

    depth: int
    middle: list[float]
    scale: list[float]
    weights: list[float]

    def chance(self, x: Tensor) -> Tensor:
        """Chance that an answer is right; features (..., F), result (...)."""
        middle_F, scale_F, weights_F = (
            torch.tensor(values, dtype=torch.float64)
            for values in (self.middle, self.scale, self.weights)
        )
        scaled = F.pad((x.double() - middle_F) / scale_F, (0, 1), value=1.0)
        return (scaled @ weights_F).sigmoid()


def features(entropy_BR: Tensor, agrees_BR: Tensor, depth: int, begin: int = 0) -> Tensor:
    """(rows, rounds, 4): round, entropy, its change since the round before, agreement.

    Args:
        entropy_BR: mean entropy of the answer's tokens after each round, in nats.
        agrees_BR: whether the answer is that of the round before.
        depth: rounds of the rule.
        begin: round (from 0) of the first column; its change is 0.
    """
    change_BR = torch.cat([torch.zeros_like(entropy_BR[:, :1]), entropy_BR.diff(dim=1)], 1)
    rounds_R = (torch.arange(entropy_BR.shape[1]) + begin) / max(1, depth)
    columns = [rounds_R.expand_as(entropy_BR), entropy_BR, change_BR, agrees_BR.to(entropy_BR)]
    return torch.stack(columns, -1).double()


def fit(x_BRF: Tensor, right_BR: Tensor) -> StopRule:
    """Logistic regression of right on features, scaled to their deviation; Newton's method."""
    x_NF, y_N = x_BRF.flatten(0, 1).double(), right_BR.flatten().double()
    middle_F, scale_F = x_NF.mean(0), x_NF.std(0).clamp_min(1e-9)
    x_NF = F.pad((x_NF - middle_F) / scale_F, (0, 1), value=1.0)
    weights_F = x_NF.new_zeros(x_NF.shape[1])
    for _ in range(FIT_STEPS):
        p_N = (x_NF @ weights_F).sigmoid()
        slope_F = x_NF.T @ (p_N - y_N) / len(x_NF) + DECAY * weights_F
        curve_FF = (x_NF.T * (p_N * (1 - p_N))) @ x_NF / len(x_NF)
        curve_FF.diagonal().add_(DECAY)
        step_F = torch.linalg.solve(curve_FF, slope_F)
        weights_F = weights_F - step_F
        if step_F.norm() < 1e-9:
            break
    return StopRule(x_BRF.shape[1], middle_F.tolist(), scale_F.tolist(), weights_F.tolist())


def read_rule(name: str | None) -> StopRule:
    """The rule in a result of ``analyses=[depth]``.

    Raises:
        ConfigError: no such file, or no rule in it; names the file.
    """
    path = find_path(name) if name else None
    if path is not None and path.is_dir():
        path = path / "analyse" / "depth.json"
    if path is None or not path.is_file():
        raise ConfigError(
            f"evaluation.systems=[stop_trained] with evaluation.stop_rule={name}: give the run "
            "folder in which stage=analyse analyses=[depth] has been run."
        )
    return _read(path)


def _read(path: Path) -> StopRule:
    try:
        found = parse_json(path.read_text(encoding="utf-8"))["result"]["rule"]
        check_type(found, StopRule, "result.rule")
        rule = StopRule(**found)
        if not len(rule.middle) == len(rule.scale) == len(rule.weights) - 1 == 4 or rule.depth < 1:
            raise ValueError("key result.rule has not four features")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{path}: no stopping rule can be read there ({error}); run stage=analyse "
            "analyses=[depth] again."
        ) from error
    return rule
