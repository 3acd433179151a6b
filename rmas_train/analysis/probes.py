"""Linear probes: what can be read off the messages of an edge, and from which round on.

Ridge classification on whole messages, five-fold cross-validated. A probe says that something is
there, not that the target uses it; ``attribution`` says what is used. The first edge of a chain at
which a probe fails is where a fault lies; the loss's gradient cannot say that (docs/insight.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rmas_train.analysis.bench import Bench
from rmas_train.analysis.health import seen
from rmas_train.config import Config
from rmas_train.data.sampling import permutation
from rmas_train.errors import DataError

FOLDS = 5
RIDGE = 1e-2  # over the mean squared norm of a message
MOST_CLASSES = 0.5  # of the rows: above, a class has hardly any other row to be learnt from


class Probes:
    """``analyses=[probes]``: ``analysis.column`` of the rows from each edge and round."""

    def __init__(self, config: Config) -> None:
        self._column, self._seed = config.analysis.column, config.seed

    @torch.no_grad()
    def run(self, bench: Bench) -> dict[str, Any]:
        """Per round and edge: ``accuracy``, and with the labels of other rows ``by_chance``."""
        labels = [str(row.get(self._column, "")) for row in bench.rows]
        classes = sorted(set(labels))
        if not 1 < len(classes) <= MOST_CLASSES * len(labels):
            raise DataError(
                f"analysis.column={self._column}: {len(classes)} different values in {len(labels)} "
                "rows; a probe needs two or more, and twice as many rows. Name another column, or "
                "raise evaluation.max_rows."
            )
        index_B = torch.tensor([classes.index(label) for label in labels])
        order_B = torch.tensor(permutation(len(labels), self._seed, "probes"))
        _, messages = seen(bench)
        return {
            "column": self._column,
            "classes": len(classes),
            "most_frequent": max(labels.count(c) for c in classes) / len(labels),
            "places": [
                {
                    "round": round_,
                    "edge": edge,
                    "accuracy": probe(vectors.flatten(1), index_B, order_B),
                    "by_chance": probe(vectors.flatten(1), index_B.roll(1), order_B),
                }
                for (round_, edge), vectors in sorted(messages.items())
            ],
        }


def probe(x_BD: Tensor, labels_B: Tensor, order_B: Tensor) -> float:
    """Cross-validated accuracy of a linear classifier.

    Args:
        x_BD: what it reads, one row each.
        labels_B: classes from 0.
        order_B: a permutation; folds are its parts.
    """
    x_BD, right = x_BD.double().cpu(), 0
    for fold in range(FOLDS):
        held_out = torch.zeros(len(x_BD), dtype=torch.bool)
        held_out[order_B[fold::FOLDS]] = True
        middle_D = x_BD[~held_out].mean(0)
        train_ND, test_ND = x_BD[~held_out] - middle_D, x_BD[held_out] - middle_D
        wanted_NC = torch.nn.functional.one_hot(labels_B, int(labels_B.max()) + 1)[~held_out]
        shares_C = wanted_NC.double().mean(0)
        gram_NN = train_ND @ train_ND.T
        gram_NN.diagonal().add_(RIDGE * gram_NN.diagonal().mean().clamp_min(1e-30))
        weights_NC = torch.linalg.solve(gram_NN, wanted_NC - shares_C)
        guessed = (test_ND @ train_ND.T @ weights_NC + shares_C).argmax(-1)
        right += int((guessed == labels_B[held_out]).sum())
    return right / len(x_BD)
