"""``sweep=<name>``: what the shipped files and one's own come to, and what is wrong with others."""

import json
from pathlib import Path

import pytest

from rmas_train.__main__ import main
from rmas_train.command import sweep
from rmas_train.command.sweep import expand, varying
from rmas_train.compose import compose
from rmas_train.reporting.sweep_table import cells, header, read_sweep, summarise
from rmas_train.support.output import stop_log

SHIPPED = sorted(path.stem for path in (Path(__file__).parents[2] / "conf/sweep").glob("*.yaml"))


def shown(capsys, *argv):
    """Names of the jobs that a command would run."""
    assert main([*argv, "--show"]) == 0
    out = capsys.readouterr().out
    return [line.removeprefix("--- # job ") for line in out.splitlines() if "--- # job" in line]


def fails(capsys, argv, *needles):
    assert main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    for needle in needles:
        assert needle in error


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_sweep_composes(name, capsys):
    assert len(shown(capsys, f"sweep={name}")) >= 2


def test_levers_are_one_at_a_time_beside_the_experiment_as_it_is(capsys):
    names = shown(capsys, "sweep=levers")
    assert names[0] == "job" and "training.outer.text_messages=1.0" in names
    assert all("," not in name for name in names)


def test_each_job_is_composed_once(capsys, monkeypatch):
    """Twenty jobs took minutes to begin: each had composed all the others."""
    composed = []
    monkeypatch.setattr(sweep, "compose", lambda job: composed.append(job) or compose(job))
    names = shown(capsys, "-m", "rounds=1,2,3", "seed=0,1")
    assert len(composed) == len(names) == 6


def test_what_is_typed_stands_in_the_files_place(capsys):
    assert shown(capsys, "sweep=depth", "rounds=2") == ["job"]
    assert shown(capsys, "sweep=depth", "rounds=2,4") == ["rounds=2", "rounds=4"]
    assert len(shown(capsys, "sweep=levers", "seed=0,1")) == 2 * len(shown(capsys, "sweep=levers"))


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("", "give options with lists"),
        ("rounds: 3", "rounds is 3"),
        ("rounds: []", "rounds is []"),
        ("[1, 2]", "give options with lists"),
        ("rounds: [1, 2", "mine.yaml"),
        ("roundz: [1, 2]", "roundz"),
        ("rounds: [1, x]", "rounds"),
    ],
)
def test_what_is_no_sweep_is_one_line(text, needle, tmp_path, capsys):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(text)
    fails(capsys, [f"--config-dir={tmp_path}", "sweep=mine", "--show"], needle)


def test_an_unknown_sweep_names_the_nearest(capsys):
    fails(capsys, ["sweep=dept"], "sweep=dept: no such choice", "Did you mean 'depth'")


def test_two_lists_of_jobs_are_too_many(tmp_path, capsys):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text("- {rounds: 1}\n- {rounds: 2}\n")
    fails(capsys, [f"--config-dir={tmp_path}", "sweep=mine", "sweep=levers"], "lists jobs too")


def test_names_and_values_of_jobs():
    jobs = expand(["++seed=0,1", "++name=x"], [[], ["++rounds=2"]])
    assert list(jobs) == ["seed=0", "seed=1", "rounds=2,seed=0", "rounds=2,seed=1"]
    assert varying(jobs)["rounds=2,seed=1"] == {"seed": "1", "rounds": "2"}
    assert varying(jobs)["seed=0"] == {"seed": "0"}


def row(run, rounds, accuracy, control=None):
    low_high = [accuracy - 0.1, accuracy + 0.1]
    return {
        "run": run,
        "system": "latent",
        "control": control,
        "task": "t",
        "rounds": rounds,
        "accuracy": accuracy,
        "ci95": low_high,
        "accuracy_within_reach": None,
        "trained_rounds": 3,
        "latent_length": 2,
    }


def test_means_and_deviations_over_seeds_and_missing_jobs():
    jobs = {f"lr={lr},seed={s}": {"lr": lr, "seed": str(s)} for lr in ("1", "2") for s in range(3)}
    rows = [row(f"lr=1,seed={s}", 1, x) for s, x in enumerate((0.2, 0.4, 0.6))]
    rows += [row("lr=2,seed=0", 1, 0.5), row("lr=2,seed=0", 1, 0.1, "null")]
    found = summarise({"keys": ["lr", "seed"], "jobs": jobs}, rows)
    assert header(found)[:3] == ("lr", "task", "rounds")
    first, second = found["rows"]
    assert first["values"] == {"lr": "1"} and first["seeds"] == 3
    assert (first["accuracy"], first["deviation"]) == pytest.approx((0.4, 0.2))
    assert second["deviation"] is None and second["seeds"] == 1
    assert found["missing"] == ["lr=2,seed=1", "lr=2,seed=2"]
    assert cells(found)[0][:4] == ("1", "t", "1", "40.0 (30.0 to 50.0)")


def test_a_sweep_that_lacks_a_job_says_so(overrides, workspace, capsys):
    typed = [*overrides, "-m", "training.outer.lr=1e-4,1e-3", "evaluation.systems=[]"]
    assert main(typed) == 0
    stop_log()
    root = workspace / "run"
    (root / "training.outer.lr=0.001" / "eval" / "results.json").unlink()
    capsys.readouterr()
    assert main(["stage=report", f"run_dir={root}"]) == 0
    out = capsys.readouterr().out
    assert "job training.outer.lr=0.001 has no results" in out
    assert json.loads((root / "results.json").read_text())["sweep"]["missing"]
    (root / "sweep.json").write_text('{"keys": 1}')
    fails(capsys, ["stage=report", f"run_dir={root}"], "sweep.json: cannot be read")
    assert read_sweep(workspace) is None
