"""Callbacks: told before the update, with gradients; states of several of one class."""

from pathlib import Path

import pytest
import torch
from naive import own_text
from tiny import make_links, make_rows

from rmas_train.config import Config, RuntimeConfig, TrainingConfig
from rmas_train.data.rows import Table
from rmas_train.data.sampling import Sampler
from rmas_train.errors import DataError, StoppedError
from rmas_train.objectives.outer import OuterObjective
from rmas_train.runs.session import session
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.output import start_log, stop_log
from rmas_train.training.callbacks import Callback, ProgressBar, Step, by_name
from rmas_train.training.loop import train
from rmas_train.training.optimizer import gradient_norms
from rmas_train.training.saver import Saver


class Sums(Callback):
    """Keeps a sum of its own from step to step."""

    def __init__(self, factor):
        self.factor, self.total = factor, 0.0

    def __call__(self, step):
        self.total += self.factor * step.loss

    def load(self, state):
        self.total = state["total"]

    def state(self):
        return {"total": self.total}


class Gradients(Callback):
    """Sees gradients and parameters as they are before each update."""

    def __init__(self):
        self.norms, self.before, self.told = [], [], []

    def before_update(self, update):
        self.told.append(("before", update.step))
        self.norms.append((update.gradient_norms, gradient_norms(update.links, update.gradient)))
        self.before.append({n: p.detach().clone() for n, p in named(update.links)})

    def __call__(self, step):
        self.told.append(("after", step.step))


def named(links):
    return [(f"{name}.{k}", p) for name, link in links.items() for k, p in link.named_parameters()]


def trained(team, callbacks, saver=None, steps=3):
    links = make_links(team)
    objective = OuterObjective(team, links, Table(Path("rows"), make_rows(8)), 2, 2)
    sampler = Sampler([None] * 8, [2] * steps, 4, seed=0)
    config = TrainingConfig(steps=steps, batch_size=4, lr=1e-2, warmup_steps=1)
    runtime = Runtime(RuntimeConfig(device="cpu"))
    train(objective, sampler, config, runtime, callbacks, saver and saver(config, runtime))
    return links


def test_gradients_are_there_before_the_update(team):
    seen = Gradients()
    links = trained(team, [seen])
    assert seen.told == [(when, step) for step in range(3) for when in ("before", "after")]
    for logged, found in seen.norms:
        assert logged == found and all(norm > 0 for norm in found.values())
    start = dict(named(make_links(team).trainable()))
    assert all(torch.equal(seen.before[0][k], start[k]) for k in seen.before[0])
    last = dict(named(links.trainable()))
    assert not all(torch.equal(seen.before[2][k], last[k]) for k in last), (
        "the last step came after"
    )


def test_callbacks_of_one_class_keep_their_own_state(team, tmp_path):
    def saver(resume):
        return lambda config, runtime: Saver(tmp_path, {}, config, runtime, resume)

    first = [Sums(1), Sums(10), Sums(100)]
    trained(team, first, saver(None))
    assert first[0].total > 0 and first[1].total == 10 * first[0].total
    again = [Sums(1), Sums(10), Sums(100)]
    trained(team, again, saver("auto"))  # finished: nothing is left to do but to load
    assert [c.total for c in again] == [c.total for c in first]


def test_the_first_of_a_class_has_the_name_that_older_checkpoints_know():
    callbacks = [Sums(1), Gradients(), Sums(2)]
    assert list(by_name(callbacks)) == ["Sums", "Gradients", "Sums#2"]


def test_a_plain_function_is_told_after_each_step(team):
    losses = []
    trained(team, [lambda step: losses.append(step.loss)])
    assert len(losses) == 3


def test_a_line_is_written_every_tenth_and_when_time_has_passed(tmp_path):
    """With tokens per second, from what the loop counts, and memory."""
    start_log(tmp_path, rank=1)
    for seconds in (3600.0, 0.0):
        bar = ProgressBar("outer", 30, seconds)
        bar.begin(0)
        for step in range(4):
            bar(Step(step, 2, 1.5, 1e-3, {}, 0.5, tokens=40))
    stop_log()
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split()[4:6] for line in lines] == [["outer", f"{n}/30"] for n in (3, 1, 2, 3, 4)]
    for line in lines:
        assert "2.0 steps/s  80 target tokens/s" in line and "GiB  ETA" in line


def test_the_loop_counts_tokens(team):
    steps = []
    trained(team, [steps.append], steps=1)
    whole = [len(own_text(team.agents["solver"], r["answer"])) for r in make_rows(8)]
    assert min(whole) * 4 <= steps[0].tokens <= max(whole) * 4


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("rows.jsonl, line 3: no answer"), "error: rows.jsonl, line 3: no answer"),
        (StoppedError("stopped by SIGTERM before step 2", 15), "stop: stopped by SIGTERM"),
        (ZeroDivisionError("a bug"), "error: a bug"),
        (KeyboardInterrupt(), "stop: interrupted"),
        (None, "ended without an error"),
    ],
)
def test_the_log_ends_with_what_ended_the_run(tmp_path, error, line):
    config = Config(run_dir=str(tmp_path), runtime=RuntimeConfig(device="cpu"))
    try:
        with session(config):
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error
    text = (tmp_path / "run.log").read_text()
    last = [part for part in text.splitlines() if not part.startswith("  ")][-1]
    assert line in last
    assert ("Traceback" in text) == isinstance(error, ZeroDivisionError)
