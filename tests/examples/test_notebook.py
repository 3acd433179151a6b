"""The notebook runs from top to bottom, in about two minutes."""

import json
import time
from pathlib import Path

import matplotlib
import pytest

from rmas_train.support.output import stop_log

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "relay.ipynb"


def cells() -> list[str]:
    found = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_outputs():
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    space, began = {}, time.monotonic()
    for source in cells():
        exec(compile(source, str(NOTEBOOK), "exec"), space)
    stop_log()
    assert time.monotonic() - began < 300
    shown = capsys.readouterr().out
    assert shown.rstrip().endswith("True"), "the loaded system answers as the trained one"
    accuracy = {(r["control"], r["rounds"]): r["accuracy"] for r in space["rows"]}
    assert accuracy[None, 1] > accuracy["null", 1], "the channel brings something"
    assert len(space["steps"]) == 60
