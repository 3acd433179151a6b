"""Costs and limits of an evaluation: one question at a time, prices, memory, progress."""

import time
from dataclasses import replace

import pytest
import torch
from tiny import make_links, make_rows

from rmas_train.config import Config, DataConfig, EvaluationConfig
from rmas_train.errors import ConfigError, OutOfMemoryError
from rmas_train.evaluation.benchmark import RowsBenchmark
from rmas_train.evaluation.costs import with_costs
from rmas_train.evaluation.evaluate import Judge, Trial, answers_that_fit, run_trial
from rmas_train.evaluation.graders import PatternGrader
from rmas_train.evaluation.parts import parts_of
from rmas_train.evaluation.progress import Progress
from rmas_train.evaluation.score import by_system, result_row
from rmas_train.systems.base import Answer
from rmas_train.systems.latent import TRAINED


def config(**evaluation):
    data = DataConfig(name="tiny", answer_pattern=r"(?P<answer>\w+)")
    options = {"max_new_tokens": 3, "systems": ["shuffled", "decoder_alone"]} | evaluation
    return Config(rounds=2, data=data, evaluation=EvaluationConfig(**options))


def judged(team, **evaluation):
    options = config(**evaluation)
    links = make_links(team).requires_grad_(False)
    judge = Judge(options, team, {"trained": links})
    parts = parts_of(options, [RowsBenchmark("tiny", make_rows(6), PatternGrader(options))])
    found = [r for part in parts for some in judge.answer(part) for r in some]
    rows = [result_row(who, own, parts[0].rows) for who, own in by_system(found).items()]
    return judge, parts, rows


def test_prices_and_the_time_of_a_single_question(team):
    judge, parts, rows = judged(team, price_per_hour=7.2, single_rows=3)
    for row in with_costs(rows, judge, parts):
        assert row["price_per_1000"] == pytest.approx(2.0 * row["seconds"])
        if row["control"] == "shuffled":
            assert row["seconds_single"] is None, "its answers need other rows"
        else:
            assert 0 < row["seconds_single"] < 60
    judge, parts, rows = judged(team)
    assert not {"seconds_single", "price_per_1000"} & set(with_costs(rows, judge, parts)[0])


class Narrow:
    """Has memory for three rows; says which rows it saw."""

    latent_length, uses_rounds = 0, True

    def __init__(self, most=3, mixes_rows=False):
        self.most, self.seen, self.mixes_rows = most, [], mixes_rows

    def answer(self, rows, rounds):
        self.seen.append(len(rows))
        if len(rows) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [Answer(row["question"], 1, 0) for row in rows]


def trial_of(system):
    options = config()
    part = parts_of(options, [RowsBenchmark("tiny", make_rows(10), PatternGrader(options))])[0]
    return Trial(part, TRAINED, system, (1,))


def test_rows_that_do_not_fit_are_answered_in_halves_in_their_order():
    trial = trial_of(Narrow())
    records = run_trial(trial, range(10))
    assert [r["text"] for r in records] == [row["question"] for row in make_rows(10)]
    assert trial.system.seen == [10, 5, 3, 2, 5, 3, 2]


@pytest.mark.parametrize("system", [Narrow(most=0), Narrow(mixes_rows=True)])
def test_what_cannot_be_halved_says_what_to_lower(system):
    with pytest.raises(OutOfMemoryError, match=r"latent.*lower evaluation.batch_size"):
        answers_that_fit(trial_of(system), make_rows(10))


def test_progress_is_told_now_and_then_and_at_the_end(monkeypatch):
    told, now = [], [100.0]
    monkeypatch.setattr("rmas_train.evaluation.progress.say", told.append)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress([40, 60], seconds=10)
    for _ in range(10):
        now[0] += 6
        progress.tell(10, "1 of 2, tiny")
    assert told[0] == "eval part 1 of 2, tiny: 20 of 100 answers  ETA 48s"
    assert told[-1] == "eval part 1 of 2, tiny: 100 of 100 answers  ETA 0s" and len(told) == 5


@pytest.mark.parametrize("options", [{"price_per_hour": -1.0}, {"single_rows": -1}])
def test_odd_costs_are_refused(options):
    with pytest.raises(ConfigError, match="too small"):
        replace(config().evaluation, **options)
