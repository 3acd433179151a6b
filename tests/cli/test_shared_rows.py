"""Test rows that are training rows too: an error, unless asked for."""

import json

import pytest
from tiny import make_rows

import rmas_train
from rmas_train.__main__ import main
from rmas_train.compose import compose
from rmas_train.errors import DataError
from rmas_train.support.output import stop_log


@pytest.fixture(autouse=True)
def logs():
    yield
    stop_log()


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(path):
    return path.read_text().splitlines()


def refused(capsys, argv, *needles):
    capsys.readouterr()
    assert main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and len(error.splitlines()) == 1, error
    for needle in (*needles, "data.allow_shared_rows=true"):
        assert needle in error, error


@pytest.mark.parametrize("stage", ["pipeline", "inner", "outer"])
def test_one_file_for_both_is_refused(overrides, workspace, capsys, stage):
    typed = [*overrides, "data.test=train.jsonl", f"stage={stage}"]
    refused(capsys, typed, "24 of its 24 test rows", "line 1 is ", "train.jsonl, line 1)")
    assert not (workspace / "run" / "outer").exists()


def test_the_first_shared_row_is_named(overrides, workspace, capsys):
    """White space and columns that no prompt shows make no difference."""
    ours, theirs = make_rows(24), make_rows(6, first=100)
    copied = {"question": f"  {ours[7]['question']} ", "answer": ours[7]["answer"].strip()}
    write(workspace / "data" / "test.jsonl", [*theirs, copied])
    refused(capsys, overrides, "1 of its 7 test rows", "test.jsonl, line 7 is ", "line 8)")


def test_columns_that_the_prompts_show_make_rows_differ(overrides, workspace):
    for name, note in (("train", "in the park"), ("test", "at home")):
        path = workspace / "data" / f"{name}.jsonl"
        write(path, [row | {"note": note} for row in make_rows(12)])
    path = workspace / "prompts" / "planner.yaml"
    path.write_text(path.read_text().replace("<<question>>", "<<note>> <<question>>"))
    assert main([*overrides, "stage=inner"]) == 0


def test_rows_of_an_inner_file_count_as_training_rows(overrides, workspace, capsys):
    write(workspace / "data" / "own.jsonl", make_rows(6, first=100))
    typed = [*overrides, "data.inner_files.critic=own.jsonl"]
    refused(capsys, typed, "6 of its 6 test rows", "own.jsonl, line 1")


def test_who_asks_for_it_gets_it(overrides, workspace, capsys):
    typed = [*overrides, "data.test=train.jsonl", "evaluation.systems=[]"]
    assert main([*typed, "data.allow_shared_rows=true"]) == 0
    assert main(["stage=eval", f"run={workspace / 'run'}"]) == 0


@pytest.mark.slow
def test_an_evaluation_on_the_training_rows_is_asked_too(overrides, workspace, capsys):
    assert main([*overrides, "evaluation.systems=[]"]) == 0
    run = workspace / "run"
    refused(capsys, ["stage=eval", f"run={run}", "data.test=train.jsonl"], "24 of its 24")
    asked = ["data.test=train.jsonl", "data.allow_shared_rows=true"]
    assert main(["stage=eval", f"run={run}", *asked]) == 0


@pytest.mark.slow
def test_a_run_from_before_the_option_is_evaluated_as_it_was(overrides, workspace):
    typed = [*overrides, "data.test=train.jsonl", "evaluation.systems=[]"]
    assert main([*typed, "data.allow_shared_rows=true"]) == 0
    config = workspace / "run" / "outer" / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if "allow_shared_rows" not in line))
    assert main(["stage=eval", f"run={workspace / 'run'}"]) == 0


def test_rows_from_python(overrides):
    config = compose(overrides)
    with pytest.raises(DataError, match="test_rows: 2 of its 4 test rows are training rows too"):
        rmas_train.train(config, rows=make_rows(12), test_rows=make_rows(4, first=10))
    rmas_train.train(config, rows=make_rows(12))  # the same rows for both, on purpose


def test_a_recipe_may_draw_a_row_twice_but_not_make_equal_files(overrides, workspace, capsys):
    """The relay: some of its problems are few."""
    relay = [o for o in overrides if o.startswith(("run_dir=", "training.", "rounds="))]
    relay += ["stage=inner", f"data.folder={workspace / 'relay'}"]
    relay += ["data.recipe_options.train=300", "data.recipe_options.test=50"]
    assert main(relay) == 0
    rows = [
        {json.loads(line)["question"] for line in read(workspace / "relay" / name)}
        for name in ("train.jsonl", "test.jsonl")
    ]
    assert rows[0] & rows[1]
    refused(capsys, [*relay, "data.test=train.jsonl"], "300 of its 300 test rows")
