"""Pictures of a folder with several runs: each has its own, unless they are jobs of a sweep."""

from rmas_train.reporting.pictures import accuracy_picture, apart, cost_task
from rmas_train.systems.looks import BUILTIN


def row(run, task, accuracy, rounds=1):
    low, high = max(0.0, accuracy - 0.1), min(1.0, accuracy + 0.1)
    about = {"run": run, "task": task, "system": "latent", "control": None, "rounds": rounds}
    return about | {
        "trained_rounds": 1,
        "latent_length": 1,
        "accuracy": accuracy,
        "ci95": [low, high],
    }


ROWS = [row("good", "notes", 0.9), row("format", "notes", 0.1), row("relay", "relay", 0.5)]
LINES = {"notes": {"1": {"ceiling": 1.0}}}


def test_runs_that_share_a_task_have_their_own():
    rows, lines = apart({"rows": ROWS, "references": LINES, "sweep": None})
    assert {(r["task"], r["accuracy"]) for r in rows} == {
        ("good: notes", 0.9),
        ("format: notes", 0.1),
        ("relay", 0.5),
    }
    assert lines["good: notes"] == lines["format: notes"] == LINES["notes"]


def test_jobs_of_a_sweep_and_single_runs_stay_as_they_are():
    for rows, sweep in ((ROWS, {"keys": ["rounds"]}), (ROWS[1:], None)):
        assert apart({"rows": rows, "references": LINES, "sweep": sweep}) == (rows, LINES)


def test_many_panels_stand_in_rows(tmp_path):
    rows = [row("a", f"task {i}", 0.5, rounds) for i in range(6) for rounds in (1, 2)]
    accuracy_picture(tmp_path / "a.png", rows, {}, {"latent": BUILTIN["latent"]})
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_costs_are_of_a_task_that_both_systems_answered():
    text = row("relay", "relay", 0.5) | {"system": "text"}
    assert cost_task(ROWS) is None
    assert cost_task([*ROWS, text]) == "relay"
