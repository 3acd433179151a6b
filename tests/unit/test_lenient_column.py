"""``evaluation.lenient``: the same texts as the grader counts them, and as the release does."""

import pytest

from rmas_train.config import Config, DataConfig, EvaluationConfig
from rmas_train.errors import ConfigError
from rmas_train.evaluation.lenient import lenient_grader
from rmas_train.evaluation.score import result_row
from rmas_train.reporting.tables import table_rows

WHO = ("t", "latent", None, 1, 2)
ROWS = [{"answer": "1/2"}, {"answer": "2x+1"}, {"answer": "3"}]
TEXTS = [r"\boxed{3/4}", r"\boxed{2x+9}", r"\boxed{4}"]
COSTS = {"tokens": 1, "latent_steps": 0, "seconds": 0.1}


def config(grader="math", **options):
    return Config(data=DataConfig(grader=grader), evaluation=EvaluationConfig(**options))


def row(lenient):
    records = [
        {"index": i, "right": False, "readable": True, "read": text, "text": text} | COSTS
        for i, text in enumerate(TEXTS)
    ]
    return result_row(WHO, records, ROWS, lenient)


def test_both_stand_beside_each_other():
    found = row(lenient_grader(config(lenient=True)))
    assert found["accuracy"] == 0 and found["n_lenient"] == 3
    assert found["accuracy_lenient"] == pytest.approx(2 / 3)
    low, high = found["ci95_lenient"]
    assert low < 2 / 3 < high
    cells = table_rows([found | {"run": ".", "trained_rounds": 1}], {})
    assert any(cell.endswith("; lenient 66.7") for cell in cells[0])


def test_nothing_is_added_unless_it_is_asked_for():
    assert lenient_grader(config()) is None
    plain = row(None)
    assert not [key for key in plain if "lenient" in key]
    assert not any(
        "lenient" in c for c in table_rows([plain | {"run": ".", "trained_rounds": 1}], {})[0]
    )


def test_a_grader_without_a_lenient_form_is_named():
    with pytest.raises(ConfigError, match="lenient=true with data.grader=code"):
        lenient_grader(config("code", lenient=True))
