"""The page's parts on analyses, from files that may hold anything."""

import json

import pytest

from rmas_train.reporting.insight import KINDS, insight_section

PLACE = {"round": 1, "edge": "a-b"}
MEASURES = ("gradient", "times_input", "patching", "zero", "mean", "shuffled", "leave_one_out")
GOOD = {
    "health": {
        "places": [
            PLACE
            | dict.fromkeys(("loudness", "variation", "variation_before", "cosine"), 0.5)
            | {"neighbours_kept": None, "effective_rank": 3.0}
        ],
        "content": {"a-b": {"mean": 1.0, "ci95": [0.5, 1.5]}},
        "warnings": [{"edge": "a-b", "name": "loud", "why": "<b>very</b>"}],
    },
    "attribution": {
        "target": "answer",
        "rows": 3,
        "places": [PLACE | dict.fromkeys(MEASURES, 0.5) | {"positions": [0.5]}],
        "agreement": {
            "gradient": {
                "zero": {"within_rows": None, "pooled": 0.1, "over_places": 0.2, "first": 1.0}
            }
        },
    },
    "text_attribution": [PLACE | {"gradient": 0.1, "times_input": 0.2, "first": 1.0}],
    "depth": {
        "rounds": [{"rounds": 1, "accuracy": 0.5, "ci95": [0.4, 0.6], "entropy": 0.1}],
        "stopping": {"fixed": [{"threshold": 1.0, "rounds": 1.0, "accuracy": 0.5}]},
        "fitted_on": "3 rows",
    },
    "lens": {
        "distance": [PLACE | {"to_answer": 0.5, "to_other_answer": 0.1}],
        "examples": [
            {
                "question": "<script>q",
                "answer": "a",
                "messages": [PLACE | {"nearest": [[["x", 0.9]]], "own_logits": [[["y", 0.1]]]}],
            }
        ],
    },
    "probes": {
        "column": "answer",
        "classes": 3,
        "most_frequent": 0.4,
        "places": [PLACE | {"accuracy": 0.9, "by_chance": 0.3}],
    },
    "confidence": {"bins": [{"least": 0.0, "below": None, "vectors": 2, "link": 0.1}]},
    "messages": [PLACE | {"norm": 1.0, "cosine": 0.5}],
}
BAD = [
    None,
    1,
    "x",
    [],
    {},
    [1],
    [{}],
    {"places": 1},
    {"places": [{}]},
    {"rounds": [{"rounds": "x"}]},
]


def write(run, kind, result):
    folder = run / "analyse"
    folder.mkdir(exist_ok=True)
    (folder / f"{kind}.json").write_text(json.dumps({"result": result}))


def test_every_kind_has_a_part(tmp_path):
    assert set(GOOD) == {kind for kind, _, _ in KINDS}
    for kind, result in GOOD.items():
        write(tmp_path, kind, result)
    page = insight_section(tmp_path, "my run")
    assert "cannot be shown" not in page and "Insight: my run" in page
    for _, title, _ in KINDS:
        assert f"<h3>{title}</h3>" in page
    assert "<b>very</b>" not in page and "<script>q" not in page


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("result", BAD)
def test_a_file_of_something_else_is_named(tmp_path, kind, result):
    write(tmp_path, kind, result)
    page = insight_section(tmp_path, "")
    is_list = isinstance(GOOD[kind], list)  # an empty one has nothing to show, and is no fault
    is_empty = is_list and result in ([], {})
    assert (f"{kind}.json: cannot be shown" in page) != is_empty


@pytest.mark.parametrize("line", ["x", "1", "{}", '{"rounds": 1}', '{"rounds": 1, "edges": [{}]}'])
def test_a_profile_of_something_else_is_named(tmp_path, line):
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "profile.jsonl").write_text(f"{line}\n")
    assert "profile.jsonl: cannot be shown" in insight_section(tmp_path, "")


def test_nothing_is_said_where_nothing_was_measured(tmp_path):
    assert insight_section(tmp_path, "") == ""
