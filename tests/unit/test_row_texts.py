"""Texts of a prompt that depend on the row."""

import pytest
from tiny import make_agent

from rmas_train.agents.prompt_files import columns_of
from rmas_train.agents.prompts import Prompt, make_prompt
from rmas_train.agents.row_texts import RowTest, read_row_texts
from rmas_train.errors import DataError

TEXTS = {
    "user": "<<question>> <<last>>",
    "columns": {
        "last": [
            {"when": [{"column": "question", "options": True}], "text": "red"},
            {"when": [{"column": "name", "given": True}], "text": "blue <<name>>"},
            {"text": "green"},
        ]
    },
}


@pytest.mark.parametrize(
    ("row", "written"),
    [
        ({"question": "one\nA) two\nB) three"}, "red"),
        ({"question": "one A) two", "name": "six"}, "blue six"),
        ({"question": "one", "name": ""}, "green"),
        ({"question": "one", "name": None}, "green"),
        ({"question": "<<last>> <<name>>"}, "green"),
    ],
)
def test_the_first_case_that_holds_is_written(row, written):
    agent = make_agent("planner")
    ours = Prompt(agent, TEXTS).encode([row], 1, first=False)[0].ids
    plain = Prompt(agent, {"user": "<<question>> <<own>>"})
    assert ours == plain.encode([row | {"own": written}], 1, first=False)[0].ids


def test_a_row_needs_what_is_tested_and_not_what_may_be_missing():
    assert columns_of(TEXTS) == {"question"}
    assert Prompt(make_agent("planner"), TEXTS).columns == {"question"}
    assert columns_of(TEXTS | {"user": "<<question>>"}) == {"question"}


@pytest.mark.parametrize(
    ("test", "text", "answer"),
    [
        (RowTest("x", "options", "", True), "2) one", False),
        (RowTest("x", "options", "", True), "  c: one", True),
        (RowTest("x", "contains", "Right OPTION", True), "the right option is", True),
        (RowTest("x", "contains", "right", False), "the right option is", False),
        (RowTest("x", "one_of", "function|functional", True), " Function ", True),
        (RowTest("x", "one_of", "function|functional", True), "stdin", False),
        (RowTest("x", "given", "", False), " ", True),
    ],
)
def test_each_test(test, text, answer):
    assert test.holds({"x": text}) is answer


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ("text", "key 'columns' holds 'text'"),
        ({"last": []}, "columns.last: holds"),
        ({"last": [{"when": []}]}, "a case is"),
        ({"last": [{"text": "x", "wen": []}]}, "unknown key 'wen'"),
        ({"last": [{"text": "x", "when": {}}, {"text": 1}]}, "a case is"),
        ({"last": [{"text": "x", "when": [{"column": "q"}]}]}, "a test of q has"),
        ({"last": [{"text": "x", "when": [{"column": "q", "search": "a"}]}]}, "a test of q has"),
        ({"last": [{"text": "x", "when": [{"column": "q", "options": "a"}]}]}, "a test of q is"),
        ({"last": [{"text": "x", "when": [{"column": "q", "contains": 1}]}]}, "a test of q is"),
        ({"last": [{"text": "<<message:critic>>"}]}, "a slot cannot depend on the row"),
    ],
)
def test_what_is_wrong_is_named(columns, why):
    texts = {"user": "<<question>> <<last>>", "columns": columns}
    with pytest.raises(DataError, match=f"here.yaml: .*{why}"):
        make_prompt(make_agent("planner"), texts, "here.yaml", [])


def test_nothing_is_there_without_them():
    assert read_row_texts({"user": "x"}) == {}
