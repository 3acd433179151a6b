"""``training.outer.answers_of``: the loss is on what text recursion answered."""

import json

from rmas_train.__main__ import main
from rmas_train.evaluation.records import row_hash
from rmas_train.stages.text_answers import text_answers
from rmas_train.support.output import stop_log


def test_the_outer_stage_learns_from_text_recursions_answers(overrides, workspace, capsys):
    asked = ["data.test=train.jsonl", "data.allow_shared_rows=true", "evaluation.systems=[text]"]
    assert main([*overrides, *asked, "run_dir=teacher", "evaluation.max_rows=16"]) == 0
    stop_log()
    lines = (workspace / "teacher" / "eval" / "answers.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    wanted = {
        r["hash"]: r["text"].strip() for r in records if r["system"] == "text" and r["rounds"] == 2
    }
    found = text_answers(workspace / "teacher" / "eval" / "answers.jsonl")
    assert found == wanted and len(found) == 16
    capsys.readouterr()
    typed = ["stage=outer", "inner=teacher/inner/links", "run_dir=student"]
    done = main([*overrides, *typed, "training.outer.answers_of=teacher"])
    out = capsys.readouterr().out
    stop_log()
    kept = sum(1 for text in wanted.values() if text)
    assert kept, "the tiny agents write something"
    assert done == 0 and f"answers of text recursion: {kept} of 24 training rows" in out


def test_rows_that_were_never_asked_are_named(overrides, workspace, capsys):
    assert main([*overrides, "stage=inner"]) == 0
    stop_log()
    folder = workspace / "other" / "eval"
    folder.mkdir(parents=True)
    (folder / "answers.jsonl").write_text("")
    typed = ["stage=outer", f"training.outer.answers_of={workspace / 'other'}"]
    assert main([*overrides, *typed]) == 2
    error = capsys.readouterr().err
    assert "has no answer of text recursion to a row" in error and "data.test=train.jsonl" in error


def test_the_hash_is_that_of_records():
    assert row_hash({"question": "a", "_line": 1}) == row_hash({"question": "a", "_line": 2})
