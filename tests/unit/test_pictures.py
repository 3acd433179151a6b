"""Pictures and tables of a report: nothing is cut off, nothing hides another."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from rmas_train.evaluation.statistics import wilson
from rmas_train.reporting import pictures
from rmas_train.reporting.collect import check_references
from rmas_train.reporting.tables import percent, table_rows
from rmas_train.runs.session import environment
from rmas_train.systems.looks import looks_of

DEMO = json.loads(
    (Path(__file__).resolve().parents[2] / "docs" / "results" / "demo.json").read_text()
)
RELAY = [row for row in DEMO["rows"] if row["task"] == "relay"]


@pytest.fixture
def drawn(monkeypatch):
    """What was to be saved, with its renderer."""
    kept = []

    def save(figure, path):
        figure.draw_without_rendering()
        kept.append(figure)

    monkeypatch.setattr(pictures, "save", save)
    yield kept
    for figure in kept:
        pictures.plt.close(figure)


def accuracy(rows, references=DEMO["references"]):
    pictures.accuracy_picture(Path("x.png"), rows, references, looks_of(rows, {}))


def test_one_depth_has_a_bar_for_each_system(drawn):
    accuracy([row for row in RELAY if row["rounds"] == 2])
    (panel,) = drawn[0].axes
    labels = [text.get_text() for text in panel.get_yticklabels()]
    assert labels[0] == "latent, trained" and len(labels) == 7 == len(panel.patches)
    latent = next(
        r for r in RELAY if (r["rounds"], r["system"], r["control"]) == (2, "latent", None)
    )
    assert panel.patches[0].get_width() == pytest.approx(100 * latent["accuracy"])
    assert panel.get_title() == "relay, 2 rounds"
    assert len(panel.lines) >= 3, "the exact lines"


def test_each_task_has_bars_or_curves_of_its_own(drawn):
    accuracy([row for row in DEMO["rows"] if row["task"] == "relay" or row["rounds"] == 1])
    kinds = [len(panel.patches) for panel in drawn[0].axes]
    assert kinds == [0, 7, 7]


@pytest.mark.parametrize("rounds", [{1, 2, 3}, {2}])
def test_a_recipe_may_know_some_of_the_lines(drawn, rounds):
    lines = {"1": {"guess_any": 0.1}, "2": {"guess_any": 0.1, "guess_shown": 0.25}, "3": {}}
    check_references({"relay": lines})
    accuracy([row for row in RELAY if row["rounds"] in rounds], {"relay": lines})
    labels = [text.get_text() for legend in drawn[0].legends for text in legend.get_texts()]
    assert sum("a guess among" in label for label in labels) == 2
    assert not any("ceiling" in label for label in labels)


@pytest.mark.parametrize("rounds", [{1, 2, 3}, {2}])
def test_long_names_are_not_cut_off(drawn, rounds):
    rows = [row for row in RELAY if row["rounds"] in rounds]
    text = [row for row in rows if row["system"] == "text"]
    rows += [
        row | {"system": f"a system with a very long name {i}" * 2}
        for i in range(9)
        for row in text
    ]
    accuracy(rows)
    figure = drawn[0]
    saved = figure.get_tightbbox()
    entries = [text for legend in figure.legends for text in legend.get_texts()]
    ticks = [text for p in figure.axes if p.patches for text in p.get_yticklabels()]
    assert len({text.get_text() for text in (*entries, *ticks)}) >= 16
    for text in (*entries, *ticks):
        box = text.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        assert saved.x0 <= box.x0 and box.x1 <= saved.x1, text
        assert saved.y0 <= box.y0 and box.y1 <= saved.y1, text
    panel = figure.axes[0].get_window_extent()
    assert all(not panel.overlaps(text.get_window_extent()) for text in entries)
    assert panel.width > 0.4 * figure.bbox.width


def test_many_links_are_named_beside_their_panel(drawn):
    norms = {f"outer.agent_{i}-planner": 0.1 for i in range(12)}
    lines = [{"step": i, "loss": 1.0, "gradient_norms": norms} for i in range(3)]
    pictures.training_picture(Path("x.png"), {"run": {"outer": lines}})
    panel = drawn[0].axes[1]
    legend = panel.get_legend().get_window_extent()
    assert not panel.get_window_extent().overlaps(legend)
    assert len({(line.get_color(), line.get_linestyle()) for line in panel.lines}) == 12


def test_no_interval_begins_below_nothing():
    for total in range(1, 300):
        low, high = wilson(0, total)
        assert low == 0 and 0 < high <= 1
        low, high = wilson(total, total)
        assert high == 1 and 0 <= low < 1
    assert percent(-1e-18) == percent(-0.0) == "0.0"
    row = RELAY[0] | {"accuracy": 0.0, "ci95": [-1e-17, 0.088]}
    assert "0.0 (0.0 to 8.8)" in table_rows([row], {})[0]


def test_the_command_of_a_result_can_be_pasted(monkeypatch):
    typed = ["stage=eval", 'name="a b"', "data.answer_pattern='(?P<answer>\\w+)$'", "rounds=1"]
    monkeypatch.setattr(sys, "argv", ["/x/rmas_train/__main__.py", *typed])
    assert shlex.split(environment()["command"]) == ["python", "-m", "rmas_train", *typed]
