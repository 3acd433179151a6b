"""The grader of a closed set: what it reads, and which rows it refuses."""

from pathlib import Path

import pytest

from rmas_train.config import Config, DataConfig
from rmas_train.data.rows import Table
from rmas_train.errors import DataError
from rmas_train.evaluation.graders import make_grader

GRADER = make_grader(Config(data=DataConfig(grader="choices")))
CHOICES = ["red", "blue", "green", "light blue", "Rome"]


@pytest.mark.parametrize(
    ("answer", "text", "right", "read"),
    [
        (" blue", " blue", True, "blue"),
        (" blue", " Blue.", True, "blue"),
        (" blue", "BLUE", True, "blue"),
        (" blue", " a blue box", True, "blue"),
        (" blue", "The answer is blue", True, "blue"),
        (" blue", " blue\nQuestion: What colour is red?", True, "blue"),
        (" blue", " blue, not red", True, "blue"),
        (" blue", ' "blue"', True, "blue"),
        (" blue", "**blue**", True, "blue"),
        (" blue", "blue's", True, "blue"),
        (" blue", "It is blue-", True, "blue"),
        (" blue", "red or blue", False, "red"),
        (" blue", "not red but blue", False, "red"),
        (" blue", " green", False, "green"),
        (" blue", " light blue", False, "light blue"),
        (" light blue", " Light Blue!", True, "light blue"),
        (" light blue", " blue", False, "blue"),
        (" red", " reddish", False, None),
        (" red", " bored", False, None),
        (" red", " red-haired", False, None),
        (" red", " infra-red", False, None),
        (" red", "redgreen", False, None),
        (" red", "red_green", False, None),
        (" red", "r e d", False, None),
        (" red", "rouge", False, None),
        (" red", "", False, None),
        (" red", " \n", False, None),
        (" Rome", " rome", True, "Rome"),
        (" Rome", " Romé", False, None),
        (" Rome", "in Rome, Italy", True, "Rome"),
        (" red, blue", " red, blue", True, "red, blue"),
        (" red, blue", " Red and then blue and green.", True, "red, blue"),
        (" red, blue", " blue, red", False, "blue, red"),
        (" red, blue", " red", False, "red"),
        (" red, red", " red red", True, "red, red"),
        (" red, blue", " grey", False, None),
    ],
)
def test_the_first_choice_in_a_text_is_read(answer, text, right, read):
    grade = GRADER.grade({"answer": answer, "choices": CHOICES}, text)
    assert (grade.right, grade.readable, grade.read) == (right, read is not None, read)


def test_signs_in_a_choice_are_no_expression():
    row = {"answer": "c.", "choices": ["c.", "a|b"]}
    assert GRADER.grade(row, "so c. it is").right
    assert not GRADER.grade(row, "a cx").readable


@pytest.mark.parametrize(
    ("choices", "needle"),
    [
        (None, "choices' is None"),
        ("red|blue", "needs a list of two or more different texts"),
        ([], "needs a list"),
        (["red"], "needs a list"),
        (["red", ""], "needs a list"),
        (["red", 2], "needs a list"),
        (["red", "Red "], "needs a list"),
        (["blue", "green"], "answer ' red' holds none of the row's choices"),
    ],
)
def test_a_row_that_cannot_be_graded_is_named(choices, needle):
    good = {"question": "?", "answer": " red", "choices": ["red", "blue"], "_line": 1}
    GRADER.check(Table(Path("rows.jsonl"), [good]))
    bad = good | {"choices": choices, "_line": 2}
    with pytest.raises(DataError, match="^rows.jsonl, line 2: ") as caught:
        GRADER.check(Table(Path("rows.jsonl"), [good, bad]))
    assert needle in str(caught.value)
    del bad["choices"]
    with pytest.raises(DataError, match="line 2: column 'choices' is None"):
        GRADER.grade(bad, "red")  # rows of a plugin's benchmark are not checked before
