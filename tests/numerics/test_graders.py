"""Graders against pairs that were graded by hand; none of them may be judged otherwise."""

import numerics.graded_pairs as pairs
import pytest

from rmas_train.config import Config, DataConfig
from rmas_train.data.rows import table_of
from rmas_train.errors import DataError
from rmas_train.evaluation.graders import make_grader

SETS = [
    ("math", pairs.MATH_RIGHT, True),
    ("math", pairs.MATH_WRONG, False),
    ("letter", pairs.LETTER_RIGHT, True),
    ("letter", pairs.LETTER_WRONG, False),
    ("squad", pairs.SQUAD_RIGHT, True),
    ("squad", pairs.SQUAD_WRONG, False),
    ("choices", pairs.CHOICE_RIGHT, True),
    ("choices", pairs.CHOICE_WRONG, False),
]
GRADED = [(name, gold, text, right) for name, of, right in SETS for gold, text in of]


def grader(name):
    return make_grader(Config(data=DataConfig(grader=name)))


def test_there_are_enough_pairs():
    assert len(GRADED) >= 200
    assert min(sum(g[0] == name for g in GRADED) for name in ("math", "letter", "squad")) >= 30


@pytest.mark.parametrize(("name", "gold", "text", "right"), GRADED)
def test_a_pair_is_graded_as_by_hand(name, gold, text, right):
    row = {"answer": gold, "choices": pairs.CHOICES}
    assert grader(name).grade(row, text).right is right


@pytest.mark.parametrize("name", ["math", "letter", "squad"])
@pytest.mark.parametrize("text", ["", "\n", "..."])
def test_nothing_is_unreadable_and_wrong(name, text):
    grade = grader(name).grade({"answer": "A" if name == "letter" else "1"}, text)
    assert not grade.right and not grade.readable and grade.read is None


def test_words_in_common_count_as_squad_counts_them():
    row = {"answer": "the tall old tower", "aliases": ["a red house"]}
    assert grader("squad").grade(row, "tall tower").score == pytest.approx(4 / 5)
    assert grader("squad").grade(row, "Red house").right
    assert grader("squad").grade(row, "house of red bricks").score == pytest.approx(4 / 6)
    assert grader("squad").grade(row, "nothing").score == 0.0


@pytest.mark.parametrize(
    ("name", "answer"), [("math", "-"), ("letter", "K"), ("letter", "AB"), ("squad", "the")]
)
def test_gold_answers_that_cannot_be_graded_are_named(name, answer):
    table = table_of([{"question": "q", "answer": answer}], "rows")
    with pytest.raises(DataError, match=repr(answer)):
        grader(name).check(table)
