"""A run that stops at any step and goes on is the run that never stopped, bit for bit."""

import json
import signal
from pathlib import Path

import pytest
import torch
from tiny import make_links, make_rows

from rmas_train.config import DataConfig, RuntimeConfig, TrainingConfig
from rmas_train.data.rows import Table
from rmas_train.data.sampling import Sampler
from rmas_train.errors import CheckpointError, StoppedError
from rmas_train.objectives.inner import InnerObjective
from rmas_train.objectives.outer import OuterObjective
from rmas_train.runtime.runtime import Runtime
from rmas_train.training.callbacks import Callback, LinkWatch, MetricsFile
from rmas_train.training.checkpoint import list_checkpoints, read
from rmas_train.training.loop import train
from rmas_train.training.saver import Saver

STEPS, ROWS, BATCH = 9, 12, 4  # three epochs of three steps
ROLES = DataConfig(
    role_texts={"planner": "plan", "critic": "refined_plan", "solver": "solution"},
    feedback_texts={"solver": "feedback"},
)
OPTIONS = {"steps": STEPS, "batch_size": BATCH, "lr": 1e-2, "warmup_steps": 2, "log_every": 2}


class Disturb(Callback):
    """Draws random numbers, as a user's callback may, and stops the run after a step."""

    def __init__(self, last):
        self._last, self.drawn = last, []

    def load(self, state):
        self.drawn = list(state)

    def __call__(self, step):
        self.drawn.append(torch.rand(()).item())
        if step.step == self._last:
            signal.raise_signal(signal.SIGTERM)

    def state(self):
        return self.drawn


@pytest.fixture(scope="module")
def runtime():
    return Runtime(RuntimeConfig(device="cpu"))


def objective(stage, team):
    links, table = make_links(team), Table(Path("rows.jsonl"), make_rows(ROWS))
    if stage == "inner":
        return InnerObjective(team, links, table, ROLES)
    return OuterObjective(team, links, table, 2, 2, train_inner=True, clip_message=0.5)


def go(stage, team, runtime, folder, last=None, resume="auto", fail_in=None, **options):
    """A run from its newest checkpoint, if any; (links, moments, metrics, random numbers)."""
    trained = objective(stage, team)
    if fail_in is not None:
        break_in(trained, *fail_in)
    config = TrainingConfig(**OPTIONS | options)
    rounds = 1 if stage == "inner" else 2
    depths = [1 + s % rounds for s in range(STEPS)]
    sampler = Sampler([None] * ROWS, depths, BATCH, seed=3)
    folder.mkdir(exist_ok=True)
    disturb = Disturb(last)
    callbacks = [
        MetricsFile(folder / "metrics.jsonl", config.log_every, STEPS),
        LinkWatch(trained.expected_links),
        disturb,
    ]
    saver = Saver(folder / "checkpoints", {"stage": stage}, config, runtime, resume)
    train(trained, sampler, config, runtime, callbacks, saver)
    done = read(list_checkpoints(folder / "checkpoints")[0])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
    return dict(trained.links.named_parameters()), done, metrics, disturb.drawn


def break_in(trained, step, part):
    """Raise in the middle of a step's accumulation."""
    plain, seen = trained.forward, []

    def forward(rows, rounds):
        seen.append(rows)
        if len(seen) == 4 * step + part:
            raise KeyboardInterrupt
        return plain(rows, rounds)

    trained.forward = forward


def assert_same(a, b):
    (links, done, metrics, drawn), (links2, done2, metrics2, drawn2) = a, b
    for name, p in links.items():
        assert torch.equal(p, links2[name]), name
    for key, moment in done.optimizer.items():
        assert torch.equal(moment, done2.optimizer[key]), key
    assert done.random.keys() == done2.random.keys()
    for key, state in done.random.items():
        assert torch.equal(state, done2.random[key]), key
    assert done.state["updates"] == done2.state["updates"]
    assert done.state["schedule"] == done2.state["schedule"]
    assert metrics == metrics2
    assert drawn == drawn2


@pytest.mark.parametrize("stage", ["inner", "outer"])
def test_a_run_stopped_at_any_step_goes_on_bit_equal(team, runtime, tmp_path, stage):
    torch.manual_seed(5)
    whole = go(stage, team, runtime, tmp_path / "whole")
    assert [line["step"] for line in whole[2]] == [0, 2, 4, 6, 8]
    for last in range(STEPS):
        torch.manual_seed(5)
        with pytest.raises(StoppedError, match=f"SIGTERM before step {last + 1}.*resume=auto"):
            go(stage, team, runtime, tmp_path / str(last), last)
        torch.manual_seed(99)  # what the new process draws before it resumes must not matter
        assert_same(whole, go(stage, team, runtime, tmp_path / str(last)))


def test_a_run_stopped_at_every_step_goes_on_bit_equal(team, runtime, tmp_path):
    torch.manual_seed(5)
    whole = go("outer", team, runtime, tmp_path / "whole")
    torch.manual_seed(5)
    for last in range(STEPS):
        with pytest.raises(StoppedError):
            go("outer", team, runtime, tmp_path / "parts", last)
    assert_same(whole, go("outer", team, runtime, tmp_path / "parts"))


@pytest.mark.parametrize("part", [1, 3])
def test_a_run_killed_in_the_middle_of_accumulation_goes_on_bit_equal(
    team, runtime, tmp_path, part
):
    """The interrupted step is taken again as a whole."""
    small = {"micro_batch_size": 1, "save_every": 2}
    torch.manual_seed(5)
    whole = go("outer", team, runtime, tmp_path / "whole", **small)
    torch.manual_seed(5)
    with pytest.raises(KeyboardInterrupt):
        go("outer", team, runtime, tmp_path / "cut", fail_in=(5, part), **small)
    newest = list_checkpoints(tmp_path / "cut" / "checkpoints")[0]
    assert newest.name == "step_00000004"
    assert_same(whole, go("outer", team, runtime, tmp_path / "cut", **small))


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    team, runtime, tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr("rmas_train.training.saver.say", said.append)
    torch.manual_seed(5)
    whole = go("outer", team, runtime, tmp_path / "whole", save_every=2, keep=3)
    for damage in ("flip", "cut", "manifest", "missing"):
        folder = tmp_path / damage
        torch.manual_seed(5)
        with pytest.raises(StoppedError):
            go("outer", team, runtime, folder, 5, save_every=2, keep=3)
        newest = list_checkpoints(folder / "checkpoints")[0]
        spoil(newest, damage)
        said.clear()
        assert_same(whole, go("outer", team, runtime, folder, save_every=2, keep=3))
        assert any("DAMAGED CHECKPOINT" in line and newest.name in line for line in said)


def spoil(checkpoint, damage):
    path = checkpoint / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-7])
    elif damage == "manifest":
        (checkpoint / "manifest.json").write_text("{")
    else:
        path.unlink()


def test_no_valid_checkpoint_at_all_is_an_error(team, runtime, tmp_path):
    with pytest.raises(StoppedError):
        go("outer", team, runtime, tmp_path, 5)
    for path in list_checkpoints(tmp_path / "checkpoints"):
        spoil(path, "flip")
    with pytest.raises(CheckpointError, match="none of its .* is valid"):
        go("outer", team, runtime, tmp_path)


def test_the_newest_checkpoints_stay(team, runtime, tmp_path):
    go("outer", team, runtime, tmp_path, save_every=2, keep=2)
    names = [p.name for p in list_checkpoints(tmp_path / "checkpoints")]
    assert names == ["step_00000009", "step_00000008"]


def test_what_a_killed_save_did_not_remove_is_removed_on_the_way_on(team, runtime, tmp_path):
    go("outer", team, runtime, tmp_path, save_every=1, keep=4)
    go("outer", team, runtime, tmp_path, save_every=1, keep=2)  # nothing is left to do but this
    names = [p.name for p in (tmp_path / "checkpoints").iterdir()]
    assert sorted(names) == ["step_00000008", "step_00000009"]


def test_a_checkpoint_is_due_after_some_minutes_too(team, runtime, tmp_path):
    go("outer", team, runtime, tmp_path, save_every=1000, save_minutes=0, keep=100)
    assert len(list_checkpoints(tmp_path / "checkpoints")) == STEPS
