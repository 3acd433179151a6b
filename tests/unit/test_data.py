"""Rows, sampling order, graders."""

import json

import pytest

from rmas_train.config import Config, DataConfig
from rmas_train.data.rows import check_answer, read_table
from rmas_train.data.sampling import Sampler, depth_at, share
from rmas_train.errors import DataError
from rmas_train.evaluation.graders import PatternGrader


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no rows"),
        (["{"], "line 1: not JSON"),
        (["[]"], "line 1: a list"),
        (['{"question": "a"}', '{"answer": "b"}'], "line 2: no question"),
        (['{"question": "  "}'], "line 1: no question"),
        (['{"question": "a", "rounds_needed": 0}'], "rounds_needed is 0"),
        (['{"question": "a", "rounds_needed": "2"}'], "rounds_needed is '2'"),
        (['{"question": "a", "rounds_needed": 2, "rounds_most": 1}'], "rounds_most is 1"),
        (['{"question": "a", "rounds_most": true}'], "rounds_most is True"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(tmp_path, lines, message):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_columns(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "none.jsonl")
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "a", "awnser": "b"}))
    with pytest.raises(DataError, match="line 1: no text column 'answer'.*Did you mean 'awnser'"):
        PatternGrader(Config()).check(read_table(path))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (42, """'answer' is 42, a number, not a text.*write "42", in quotes"""),
        (float("nan"), "'answer' is NaN, a number.*give a text"),
        (["a", "b"], r"""'answer' is \["a", "b"\], a list"""),
        (None, "'answer' is null, not a text"),
        (True, "'answer' is true, true or false, not a text"),
        ({"a": "b" * 99}, """'answer' is {"a": "b+..., an object"""),
        (" \n\t", "'answer' is blank.*fill it in"),
    ],
)
def test_an_answer_that_is_no_text_is_told_with_its_type(tmp_path, answer, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "a", "answer": answer}))
    with pytest.raises(DataError, match=f"rows.jsonl, line 1: column {message}"):
        PatternGrader(Config()).check(read_table(path))
    with pytest.raises(DataError, match=f"row 0: column {message}"):
        check_answer({"answer": answer}, "evaluation.benchmarks=own, row 0")


def test_the_default_pattern_compares_whole_texts():
    """Stripped, over several lines; as the pattern before it, where there is one line."""
    default, before = PatternGrader(Config()), grader(r"^\s*(?P<answer>.+?)\s*$")
    for text in ("4", " 4 ", "a b\n", "\n\tx y  z \r\n", "x" * 50_000 + " " * 50_000):
        assert default.read(text) == before.read(text) == text.strip()
    lines = "def f(x):\n    return x\n\n\nprint(f(1))"
    assert default.read(f"\n {lines}  \n") == lines
    assert default.read(" \n ") is default.read("") is None
    assert default.grade({"answer": lines}, f"{lines}\n").right
    assert not default.grade({"answer": lines}, lines.replace("    ", "  ")).right
    assert not default.grade({"answer": lines}, lines.splitlines()[0]).right


def test_a_pattern_that_reads_one_line_says_how_it_reads_several(table):
    rows = [{"question": "a", "answer": "b\nc", "_line": 1}]
    with pytest.raises(DataError, match=r"\(\?s\) at its beginning"):
        grader("^(?P<answer>.+)$").check(table(rows))


def test_binary_files_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"question": "\xff\xfe"}')
    with pytest.raises(DataError, match="not UTF-8"):
        read_table(path)


def test_a_gold_answer_that_cannot_be_read_is_an_error(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "a", "answer": "maybe"}))
    with pytest.raises(DataError, match="does not match"):
        grader(r"^(?P<answer>\d+)$").check(read_table(path))


def grader(pattern):
    return PatternGrader(Config(data=DataConfig(answer_pattern=pattern)))


def test_reading_answers_is_strict():
    read = grader(r"^\s*\d (?P<answer>[A-J])\s*$").read
    assert read(" 4 D") == "D"
    for text in ("D", "4 D 5", "4 K", "", "the answer is 4 D"):
        assert read(text) is None


def sampler(**changes):
    options = {
        "rounds_needed": [1, 1, 2, 3, 1, 2, 3],
        "depths": [1, 3, 1, 2] * 5,
        "batch_size": 3,
        "seed": 0,
    }
    return Sampler(**options | changes)


def test_rows_are_within_reach_of_the_steps_depth():
    s = sampler()
    for step, depth in enumerate(s.depths):
        assert all(s.rounds_needed[i] <= depth for i in s.rows(step))


def test_the_order_is_a_function_of_seed_and_step_alone():
    a, b = sampler(), sampler()
    for step in reversed(range(20)):
        b.rows(step)
    assert [a.rows(s) for s in range(20)] == [b.rows(s) for s in range(20)]
    assert [a.rows(s) for s in range(20)] != [sampler(seed=1).rows(s) for s in range(20)]


def test_every_row_once_per_epoch_and_epochs_differ():
    s = sampler(rounds_needed=[None] * 12, depths=[1] * 8)
    epochs = [sum((s.rows(4 * e + k) for k in range(4)), []) for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]


def test_no_row_within_reach_is_an_error():
    with pytest.raises(DataError, match="rounds_needed <= 1"):
        sampler(rounds_needed=[2, 3])


def test_depth_schedules():
    growing = [depth_at(s, 600, 3, "growing", 0) for s in range(600)]
    parts = (growing[:100], growing[100:300], growing[300:])
    assert [set(part) for part in parts] == [{1}, {1, 2}, {1, 2, 3}]
    assert {depth_at(s, 7, 1, "growing", 0) for s in range(7)} == {1}
    assert {depth_at(s, 99, 3, "fixed", 0) for s in range(99)} == {3}
    drawn = [depth_at(s, 300, 3, "uniform", 0) for s in range(300)]
    assert {drawn.count(d) > 70 for d in (1, 2, 3)} == {True}


def test_shares_are_consecutive_and_complete():
    rows = list(range(11))
    for parts in (1, 2, 3, 4):
        pieces = [share(rows, parts, p) for p in range(parts)]
        assert sum(pieces, []) == rows
        assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_rows_that_lead_on_are_drawn_and_counted_at_their_own_depth_only():
    from rmas_train.data.rows import is_within_reach

    least, most = [1, 2, 2, None], [1, 2, None, None]
    s = Sampler(least, [1, 2, 3] * 8, batch_size=3, seed=0, rounds_most=most)
    for step, depth in enumerate(s.depths):
        for i in s.rows(step):
            row = {"rounds_needed": least[i] or 1}
            row |= {"rounds_most": most[i]} if most[i] else {}
            assert is_within_reach(row, depth)
    within = [[is_within_reach({"rounds_needed": 2, "rounds_most": 2}, r)] for r in (1, 2, 3)]
    assert within == [[False], [True], [False]]
