"""An evaluation goes on from the records that are there, and makes none of them twice."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from launching import ROOT, environment
from tiny import write_rows

import rmas_train.stages.evaluate as stage
from rmas_train.__main__ import main
from rmas_train.evaluation import evaluate
from rmas_train.evaluation.records import Records, key_of, read_records
from rmas_train.runs.session import tidy
from rmas_train.support.output import stop_log

FEW = ["training.inner.steps=1", "training.outer.steps=1", "rounds=1"]


@pytest.fixture(autouse=True)
def logs():
    yield
    stop_log()


def record(index, **more):
    about = {"task": "t", "system": "s", "control": None, "rounds": 1, "index": index}
    grade = {"text": "x", "right": True, "readable": True, "read": "x"}
    costs = {"latent_length": 0, "tokens": 1, "latent_steps": 0, "seconds": 0.1}
    return about | {"hash": f"h{index}", "group": None} | grade | costs | more


def test_records_are_there_again_and_a_torn_line_is_not(tmp_path):
    first = Records(tmp_path / "r", {"a": 1}, 0)
    first.add([record(0), record(1)])
    other = Records(tmp_path / "r", {"a": 1}, 1)
    other.add([record(2)])
    path = tmp_path / "r" / "rank-0.jsonl"
    path.write_text(path.read_text() + '{"task": "t", "sys')
    again = Records(tmp_path / "r", {"a": 1}, 0)
    again.load()
    assert sorted(key_of(r)[4] for r in again.every()) == [0, 1, 2]
    again.add([record(3)])
    assert [r["index"] for r in read_records(path)] == [0, 1, 3]


def test_records_of_another_identity_or_row_or_group_are_not_used(tmp_path):
    Records(tmp_path / "r", {"a": 1}, 0).add([record(0)])
    same = Records(tmp_path / "r", {"a": 1}, 0)
    same.load()
    assert same.get(record(0)) is not None
    assert same.get(record(0, hash="other")) is None
    assert same.get(record(0, group="0-99")) is None
    assert same.get(record(1)) is None
    other = Records(tmp_path / "r", {"a": 2}, 0)
    other.load()
    assert list(other.every()) == []


def test_a_record_with_odd_calls_is_made_again(tmp_path):
    path = tmp_path / "answers.jsonl"
    found = [record(0, calls=[{"refused": False}]), record(1, calls=[3]), record(2, calls="x")]
    path.write_text("".join(json.dumps(one) + "\n" for one in found))
    assert [r["index"] for r in read_records(path)] == [0]


@pytest.mark.parametrize("damage", ["{}", "[]", "7", '{"task": 1}', "nothing", "", '{"task": "t"}'])
def test_what_is_no_record_is_made_again(damage, tmp_path):
    """As in files of versions that kept less, or of somebody else."""
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(record(0)) + "\n" + damage + "\n" + json.dumps(record(1)) + "\n")
    assert [r["index"] for r in read_records(path)] == [0, 1]
    assert list(read_records(tmp_path / "none.jsonl")) == []


@pytest.mark.parametrize("is_finished", [True, False])
def test_records_that_a_kill_left_beside_their_results_are_removed(is_finished, tmp_path):
    Records(tmp_path / "eval_records", {"a": 1}, 0).add([record(0)])
    results = tmp_path / "eval" / "results.json"
    results.parent.mkdir()
    results.write_text("{}")
    newest = max(p.stat().st_mtime_ns for p in (tmp_path / "eval_records").iterdir())
    when = newest + (1 if is_finished else -1) * 10**9
    os.utime(results, ns=(when, when))
    tidy(tmp_path)
    assert (tmp_path / "eval_records").exists() is not is_finished


@pytest.fixture
def answered(monkeypatch):
    """(system, control, rows) of every call of a system."""
    calls, plain = [], evaluate.run_trial

    def counted(trial, chosen):
        calls.append((trial.entry.name, len(chosen)))
        return plain(trial, chosen)

    monkeypatch.setattr(evaluate, "run_trial", counted)
    return calls


def results(run):
    return json.loads((Path(run) / "eval" / "results.json").read_text())["rows"]


def without_seconds(rows):
    return [row | {"seconds": 0} for row in rows]


@pytest.mark.slow
def test_more_rows_and_more_systems_redo_nothing(overrides, workspace, answered):
    """Rows that are mixed with new ones are answered again, and no other."""
    run = f"run_dir={workspace / 'run'}"
    typed = [*overrides, *FEW, "evaluation.systems=[shuffled]", "evaluation.max_rows=4"]
    assert main(typed) == 0
    stop_log()
    assert Counter(answered) == {("latent", 4): 1, ("latent shuffled", 4): 1}
    answered.clear()
    more = ["stage=eval", f"run={workspace / 'run'}", "evaluation.systems=[shuffled,text]"]
    assert main([*more, "evaluation.max_rows=6"]) == 0
    stop_log()
    assert Counter(answered) == {("latent", 2): 1, ("latent shuffled", 6): 1, ("text", 6): 1}
    extended = results(workspace / "run")
    answered.clear()
    assert main([*more, "evaluation.max_rows=6"]) == 0
    stop_log()
    assert answered == [] and results(workspace / "run") == extended
    whole = [*typed[:-2], "evaluation.systems=[shuffled,text]", "evaluation.max_rows=6"]
    assert main([*whole, f"run_dir={workspace / 'whole'}"]) == 0
    assert without_seconds(results(workspace / "whole")) == without_seconds(extended)
    assert run and not (workspace / "run" / "eval_records").exists()


def test_with_plugins_a_finished_evaluation_is_made_anew(overrides, workspace, answered):
    """A plugin's grader may be another one by now, and no identity says so."""
    (workspace / "mine.py").write_text("")
    sys.path.insert(0, str(workspace))
    typed = [*overrides, *FEW, "evaluation.systems=[]", "plugins=[mine]"]
    assert main(typed) == 0
    stop_log()
    answered.clear()
    assert main(["stage=eval", f"run={workspace / 'run'}", "plugins=[mine]"]) == 0
    sys.path.remove(str(workspace))
    assert Counter(answered) == {("latent", 6): 1}


@pytest.mark.slow
def test_a_stopped_evaluation_goes_on(overrides, workspace, answered, monkeypatch):
    typed = [*overrides, *FEW, "evaluation.systems=[null,text]"]
    plain = evaluate.run_trial

    def stop_at_text(trial, chosen):
        if trial.entry.name == "text":
            raise KeyboardInterrupt
        return plain(trial, chosen)

    monkeypatch.setattr(evaluate, "run_trial", stop_at_text)
    assert main(typed) == 130
    stop_log()
    assert not (workspace / "run" / "eval").exists()
    monkeypatch.setattr(evaluate, "run_trial", plain)
    answered.clear()
    assert main([*typed, "resume=auto"]) == 0
    assert Counter(answered) == {("text", 6): 1}
    assert {r["system"] for r in results(workspace / "run")} == {"latent", "text"}


def test_changed_rows_are_answered_again(overrides, workspace, answered):
    """By content: the file has another fourth row, and the first three are as they were."""
    typed = [*overrides, *FEW, "evaluation.systems=[]"]
    assert main(typed) == 0
    stop_log()
    lines = (workspace / "data" / "test.jsonl").read_text().splitlines()
    write_rows(workspace / "data" / "other.jsonl", 6, first=300)
    other = (workspace / "data" / "other.jsonl").read_text().splitlines()
    (workspace / "data" / "other.jsonl").write_text("\n".join([*lines[:3], *other[3:]]) + "\n")
    answered.clear()
    assert main(["stage=eval", f"run={workspace / 'run'}", "data.test=other.jsonl"]) == 0
    assert Counter(answered) == {("latent", 3): 1}
    assert stage.RECORDS == "eval_records"


@pytest.mark.slow
def test_an_evaluation_killed_at_any_moment_has_the_records_of_an_unbroken_one(tmp_path):
    """On one process; ``eval_kills.py --kills 30`` makes more of them, and on two."""
    script = Path(__file__).with_name("eval_kills.py")
    record = tmp_path / "kills.json"
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "2", "--processes", "1", "--json", str(record)],
        env=environment(PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "tests")])),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    found = json.loads(record.read_text())
    assert all(one["kills"] >= 2 and not one["unequal"] for one in found.values())
    assert len(found) == 1
