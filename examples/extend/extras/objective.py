"""An objective: cross-entropy on the answer in every round, not in the last one alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rmas_train.objectives.outer import OuterObjective
from rmas_train.registry import OBJECTIVES


class EveryRound(OuterObjective):
    """Mean over rounds of the decoder's loss in that round."""

    def forward(self, rows: Sequence[int], rounds: int) -> Tensor:
        answers, losses = self.answers(rows), []
        for call in self.unroll(rows, rounds, answer_rounds=range(1, rounds + 1)):
            if call.agent == self.team.topology.decoder:
                losses.append(call.answer_loss(answers))
        return self.bounded(torch.stack(losses).mean())[None]


OBJECTIVES.register("every_round", EveryRound.from_config)
