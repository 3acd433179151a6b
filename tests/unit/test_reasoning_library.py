"""Rows and scorers of the real library reasoning-gym; test_reasoning.py has what can go wrong."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from rmas_train.config import Config, DataConfig
from rmas_train.data.rows import read_table
from rmas_train.evaluation.graders import make_grader

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "data_recipes" / "reasoning_gym" / "build.py"


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["chain_sum", "gsm_symbolic", "basic_arithmetic"])
def test_its_own_answers_are_right_and_those_of_other_rows_are_not(dataset, tmp_path):
    typed = ["--out", str(tmp_path / "rows"), "--dataset", dataset, "--rows", "60"]
    subprocess.run([sys.executable, str(BUILD), *typed], check=True)
    rows = read_table(tmp_path / "rows" / "train.jsonl").rows
    grader = make_grader(Config(data=DataConfig(grader="reasoning_gym")))
    assert len(rows) > 30
    for row, other in pairwise(rows):
        assert grader.grade(row, row["answer"]).right
        if other["answer"] != row["answer"]:
            assert not grader.grade(row, other["answer"]).right
        assert not grader.grade(row, " I do not know.").right
        assert json.loads(row["entry"])["metadata"]["source_dataset"] == dataset
