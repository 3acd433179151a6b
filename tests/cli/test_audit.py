"""An audit: a links folder of anybody, every control, one page."""

import json
import shutil

import benchmark_sets as sets
import pytest
from released import write_released

from rmas_train.__main__ import main
from rmas_train.errors import UnknownWeightsWarning
from rmas_train.support.output import stop_log

FEW = ["training.inner.steps=1", "training.outer.steps=1", "evaluation.systems=[]"]


@pytest.fixture(autouse=True)
def logs():
    yield
    stop_log()


@pytest.fixture
def trained(overrides, workspace):
    assert main([*overrides, *FEW]) == 0
    return workspace / "run"


def data_of(workspace):
    return [
        *("data.name=tiny", f"data.folder={workspace / 'data'}", "data.test=test.jsonl"),
        "data.answer_pattern='(?P<answer>\\w+)'",
    ]


def test_a_bare_links_folder_is_asked_by_what_it_says_of_itself(trained, workspace, capsys):
    bare = shutil.copytree(trained / "outer" / "links", workspace / "bare")
    shutil.move(trained, workspace / "moved")
    shutil.move(workspace / "prompts", workspace / "other_prompts")
    assert main(["audit", f"links={bare}", *data_of(workspace)]) == 0
    out = workspace / "outputs" / "audit" / "bare"
    results = json.loads((out / "results.json").read_text())
    names = {(row["system"], row["control"]) for row in results["rows"]}
    assert {("latent", "noise"), ("text", None), ("thinking", None)} <= names
    assert ("latent", "start") not in names and results["verdicts"]
    why = {(one["system"], one["control"]): one["why"] for one in results["not_applicable"]}
    assert "start" in why["latent", "start"]
    page = (out / "report" / "index.html").read_text()
    assert "<h1>Audit: bare</h1>" in page and "6 links; " in page
    for title in ("Verdicts", "Links at a glance", "Not applicable", "Links", "Answers"):
        assert f"<h2>{title}</h2>" in page
    assert page.count("inner.planner") == 1 and "outer.planner-critic" in page
    links = json.loads((out / "links_report.json").read_text())["links"]
    assert links["inner.planner"]["statistics"]["branch_over_residual"] is None, "its residual is 0"
    assert "one page: outputs/audit/bare/report/index.html" in capsys.readouterr().out


def test_the_answers_are_those_of_an_evaluation_of_the_run(trained, workspace):
    bare = shutil.copytree(trained / "outer" / "links", workspace / "bare")
    assert main(["audit", f"links={bare}", *data_of(workspace)]) == 0
    assert main(["audit", f"links={trained}", "evaluation.systems=[null]"]) == 0
    both = []
    for name in ("bare", "run"):
        path = workspace / "outputs" / "audit" / name / "eval" / "answers.jsonl"
        records = map(json.loads, path.read_text().splitlines())
        both.append(
            {
                (r["rounds"], r["index"]): r["text"]
                for r in records
                if (r["system"], r["control"]) == ("latent", None)
            }
        )
    assert both[0] == both[1] and len(both[0]) == 12
    assert not (trained / "links_report.json").exists(), "the run folder stays as it was"


@pytest.mark.slow
def test_an_imported_set_at_its_cell(overrides, workspace):
    """Links in the release's layout: both columns, the second try, every control, one page."""
    theirs, out = write_released(workspace / "theirs"), workspace / "run"
    options = [o for o in overrides if not o.startswith("training.")]
    assert main(["links", "import", str(theirs), *options]) == 0
    source = sets.make(workspace, "math500")
    typed = ["data=eval/released/sequential_light/math500", "evaluation.max_new_tokens=2"]
    typed += [f"data.recipe_options.source={source}", "data.test_rows=8", "latent_length=2"]
    page = workspace / "audit"
    with pytest.warns(UnknownWeightsWarning):
        assert main(["audit", f"links={out}", *typed, f"run_dir={page}"]) == 0
    found = json.loads((page / "results.json").read_text())
    latent = next(r for r in found["rows"] if (r["system"], r["control"]) == ("latent", None))
    assert latent["rounds"] == 3 and latent["retried"] == 8
    assert latent["accuracy_lenient"] >= latent["accuracy"] and found["verdicts"]
    text = (page / "report" / "index.html").read_text()
    assert "; lenient " in text and "outer.planner-critic" in text


@pytest.mark.parametrize(
    ("typed", "needles"),
    [
        (["data.test=x"], ["audit: 0 times links="]),
        (["links=a/b", "links=c"], ["2 times links="]),
        (["links=nowhere"], ["links=nowhere", "no such folder"]),
        (["links="], ["links="]),
        (["links=data"], ["data", "links.json"]),
    ],
)
def test_what_cannot_be_audited(typed, needles, workspace, capsys):
    assert main(["audit", *typed]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and all(needle in said for needle in needles)
    assert not (workspace / "outputs").exists()


def test_a_damaged_link_report_is_told(trained, capsys):
    fact = {"widths": [1, 1], "dtype": "float32", "statistics": {}, "looks_untouched": False}
    cut = fact | {"why": None, "fresh": {"largest": [1.0]}}
    for links in ({"a": 3}, {"a": cut}):
        (trained / "links_report.json").write_text(json.dumps({"links": links}))
        assert main(["stage=report", f"run_dir={trained}"]) == 2
        assert "links_report.json: cannot be read" in capsys.readouterr().err


def test_its_help(capsys):
    assert main(["audit", "--help"]) == 0
    assert "audit links=FOLDER|HUB_ID" in capsys.readouterr().out
