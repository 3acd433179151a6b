"""Where the release's lenient counting and the strict graders differ: its published examples."""

import pytest

from rmas_train.config import Config, DataConfig
from rmas_train.evaluation.graders import make_grader


def right(name, gold, text):
    return make_grader(Config(data=DataConfig(grader=name))).grade({"answer": gold}, text).right


# Wrong answers that the release counts as right.
COUNTED = [
    (r"\frac{3}{4}", r"\boxed{0.5}"),
    ("3/4", "0.5"),
    (r"3\sqrt{13}", r"\boxed{3\sqrt{2}}"),
    ("2x+1", r"\boxed{2x+9}"),
    ("6-5i", "6+5i"),
    (r"\frac{14}{3}", r"\boxed{4.2}"),
    ("14/3", "4.2"),
]


@pytest.mark.parametrize(("gold", "text"), COUNTED)
def test_the_whole_part_of_the_first_number_is_enough_for_the_release(gold, text):
    assert right("lenient_math", gold, text) and not right("math", gold, text)


@pytest.mark.parametrize(
    ("gold", "text", "is_right"),
    [
        ("12", r"so \boxed{12}", True),
        ("12", r"\boxed{13}", False),
        ("12", "", False),
        (r"\text{Evelyn}", r"\boxed{evelyn}", True),
        (r"\text{Evelyn}", r"\boxed{Bob}", False),
        ("x^2", r"\boxed{ x ^2 }", True),
        ("1,234", r"\boxed{1234}", True),
        ("1/0", "2", False),
    ],
)
def test_other_answers_are_counted_as_one_expects(gold, text, is_right):
    assert right("lenient_math", gold, text) is is_right


def test_a_missing_option_counts_as_a():
    lenient = make_grader(Config(data=DataConfig(grader="lenient_letter")))
    for text in ("", "I do not know.", "42"):
        grade = lenient.grade({"answer": "A"}, text)
        assert grade.right and not grade.readable and grade.read is None
        assert not lenient.grade({"answer": "B"}, text).right
        assert not right("letter", "A", text)
    assert lenient.grade({"answer": "?"}, "A").right  # so does a gold that cannot be read
    assert lenient.grade({"answer": "B"}, "The answer is B.").right


def test_words_anywhere_are_enough():
    text = "It was not Charles Dickens but his brother."
    assert right("lenient_text", "Charles Dickens", text)
    assert not right("squad", "Charles Dickens", text)
    assert not right("lenient_text", "Charles Dickens", "Dickens")
    assert not right("lenient_text", "the", "the")  # nothing is left of it


@pytest.mark.parametrize("name", ["lenient_math", "lenient_letter", "lenient_text"])
def test_nothing_is_unreadable(name):
    grade = make_grader(Config(data=DataConfig(grader=name))).grade({"answer": "B"}, " \n")
    assert not grade.right and not grade.readable and grade.read is None
