"""One checkpoint after each round: accuracy, entropy, and when to stop.

The decoder answers after every round of one unroll, so all depths see the same messages. A rule
reads nothing but what is known by then; stopping saves the rounds after it.

- ``agreement``: stop when a round's answer is that of the round before.
- ``entropy``: stop when the mean entropy of the answer's tokens is below a threshold.
- ``trained``: stop when a logistic regression on round, entropy, its change and agreement says that
  the answer is right with a probability above a threshold. It is fitted on other rows: those of
  ``data.valid``, or else every second row, which are then left out of all rules' numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rmas_train.analysis.bench import Bench, Rows
from rmas_train.config import Config
from rmas_train.engine.answer import mean_entropies
from rmas_train.evaluation.statistics import wilson
from rmas_train.runs.stop_rule import StopRule, features, fit

POINTS = 9  # thresholds per rule


@dataclass(frozen=True)
class Answers:
    """What the decoder said after each round; (rows, rounds) each."""

    right: Tensor
    entropy: Tensor
    texts: list[list[str]]

    @property
    def agrees(self) -> Tensor:
        """With the round before; the first round with nothing."""
        same = [[i > 0 and row[i] == row[i - 1] for i in range(len(row))] for row in self.texts]
        return torch.tensor(same)

    def features(self, depth: int) -> Tensor:
        return features(self.entropy, self.agrees, depth)

    def part(self, index: Sequence[int]) -> Answers:
        rows = list(index)
        return Answers(self.right[rows], self.entropy[rows], [self.texts[i] for i in rows])


class Depth:
    """``analyses=[depth]``."""

    def __init__(self, config: Config) -> None:
        self._rounds = config.rounds

    @torch.no_grad()
    def run(self, bench: Bench) -> dict[str, Any]:
        """``rounds``: per depth ``accuracy``, ``ci95``, ``entropy``; ``stopping``: per rule, points
        of ``threshold``, mean ``rounds`` and ``accuracy``; ``rule``: the trained one, which
        ``evaluation.systems=[stop_trained]`` follows; ``fitted_on``: its rows."""
        found = answers_by_round(bench, bench.rows)
        if bench.valid is not None:
            most = bench.config.training.outer.validate_rows
            fitted = answers_by_round(bench, bench.valid[:most])
            judged, where = found, f"{len(fitted.texts)} validation rows"
        else:
            fitted = found.part(range(0, len(found.texts), 2))
            judged = found.part(range(1, len(found.texts), 2))
            where = f"{len(fitted.texts)} test rows, which are left out below"
        return {
            "rounds": [self._after(found, r) for r in range(self._rounds)],
            "stopping": stopping_curves(judged, fitted) if len(judged.texts) else {},
            "fitted_on": where,
            "rule": asdict(fitted_rule(fitted)),
        }

    def _after(self, found: Answers, r: int) -> dict[str, Any]:
        right = found.right[:, r].float()
        low, high = wilson(float(right.sum()), len(right))
        return {
            "rounds": r + 1,
            "accuracy": right.mean().item(),
            "ci95": [low, high],
            "entropy": found.entropy[:, r].mean().item(),
        }


def answers_by_round(bench: Bench, rows: Rows) -> Answers:
    """Ask for an answer after every round of one unroll."""
    depth = bench.config.rounds
    right, entropy, texts = [], [], []
    for batch in bench.batches(rows):
        columns: list[list[Any]] = [[], [], []]
        for call in bench.unroll(batch, answer_rounds=range(1, depth + 1)):
            if call.agent != bench.team.topology.decoder:
                continue
            texts_B = call.write(bench.config.evaluation.max_new_tokens)
            written = [text.text for text in texts_B]
            grades = [bench.grader.grade(r, t) for r, t in zip(batch, written, strict=True)]
            columns[0].append([grade.right for grade in grades])
            states = call.answer_states([list(text.ids) for text in texts_B])
            columns[1].append(mean_entropies(bench.decoder, states))
            columns[2].append(written)
        per_row = [list(zip(*column, strict=True)) for column in columns]
        right += per_row[0]
        entropy += per_row[1]
        texts += [list(row) for row in per_row[2]]
    return Answers(torch.tensor(right), torch.tensor(entropy), texts)


def fitted_rule(answers: Answers) -> StopRule:
    depth = answers.right.shape[1]
    return fit(answers.features(depth), answers.right.float())


def stopping_curves(judged: Answers, fitted: Answers) -> dict[str, list[dict[str, float]]]:
    """Per rule, what it comes to at several thresholds."""
    depth = judged.right.shape[1]
    rule = fitted_rule(fitted)
    entropy, chance = judged.entropy, rule.chance(judged.features(rule.depth))
    # Thresholds are chosen where rules are.
    known = [fitted.entropy, rule.chance(fitted.features(rule.depth))]
    levels = [
        x.double().flatten().quantile(torch.linspace(0, 1, POINTS).double()).tolist() for x in known
    ]
    fixed = [
        {"threshold": float(r + 1)} | _outcome(judged, torch.full((len(judged.texts),), r))
        for r in range(depth)
    ]
    return {
        "fixed": fixed,
        "agreement": [{"threshold": 1.0} | _outcome(judged, first(judged.agrees))],
        "entropy": [
            {"threshold": x} | _outcome(judged, first(entropy <= x))
            for x in dict.fromkeys(levels[0])
        ],
        "trained": [
            {"threshold": x} | _outcome(judged, first(chance >= x))
            for x in dict.fromkeys(levels[1])
        ],
        "oracle": [{"threshold": 1.0} | _outcome(judged, first(judged.right))],
    }


def first(stops_BR: Tensor) -> Tensor:
    """Round (from 0) in which each row stops; the last where no rule says so."""
    stops_BR = stops_BR.clone().bool()
    stops_BR[:, -1] = True
    return stops_BR.int().argmax(1)


def _outcome(answers: Answers, stop_B: Tensor) -> dict[str, float]:
    right = answers.right.gather(1, stop_B[:, None]).float()
    return {"rounds": stop_B.float().mean().item() + 1, "accuracy": right.mean().item()}
