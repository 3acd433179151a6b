"""A trained run that is evaluated on benchmarks: from the command line to the results file."""

import json

import benchmark_sets as sets
import pytest

from rmas_train.__main__ import main
from rmas_train.compose import compose
from rmas_train.errors import ConfigError
from rmas_train.support.output import stop_log

pytestmark = pytest.mark.filterwarnings("ignore::rmas_train.errors.SandboxWarning")
FEW = ["training.inner.steps=1", "training.outer.steps=1", "rounds=1", "evaluation.systems=[]"]


@pytest.fixture(autouse=True)
def logs():
    yield
    stop_log()


@pytest.fixture
def run(overrides, workspace):
    assert main([*overrides, *FEW]) == 0
    stop_log()
    return workspace / "run"


def results(folder):
    return json.loads((folder / "eval" / "results.json").read_text())


def test_a_run_is_asked_benchmarks_of_its_own_and_of_the_hub(run, workspace, capsys):
    source = sets.make(workspace, "aime25")
    typed = ["stage=eval", f"run={run}", "data=eval/aime25", "evaluation.max_new_tokens=2"]
    typed += [f"data.recipe_options.source={source}", "run_dir=asked"]
    assert main(typed) == 2  # eight rows are not the set
    assert "8 rows, but data.test_rows=30; get the whole set" in capsys.readouterr().err
    stop_log()
    assert main([*typed, "data.test_rows=8"]) == 0
    stop_log()
    found = results(workspace / "asked")
    assert [(r["task"], r["n"]) for r in found["rows"]] == [("aime25", 8)]
    data = found["config"]["data"]
    assert data["grader"] == "math" and data["prompts"] == str(workspace / "prompts")
    assert results(run)["rows"][0]["task"] == "tiny"  # the run's own evaluation stays
    # Further sets beside it, with questions of the same kind.
    sets.write(workspace / "mine.csv", [{"question": "one two", "answer": "3"}])
    more = [f"data.more_tests={{own: {workspace / 'mine.csv'}}}", "data.test_rows=8"]
    assert main([*typed, *more, "run_dir=both"]) == 0, capsys.readouterr().err
    found = [(r["task"], r["n"]) for r in results(workspace / "both")["rows"]]
    assert found == [("aime25", 8), ("aime25_own", 1)]


def test_a_cell_of_the_release_is_asked_of_a_run(run, workspace, capsys):
    source = sets.make(workspace, "math500")
    typed = ["stage=eval", f"run={run}", "data=eval/released/sequential_light/math500"]
    typed += [f"data.recipe_options.source={source}", "data.test_rows=8", "run_dir=cell"]
    typed += ["evaluation.max_new_tokens=2", "evaluation.systems=[]", "latent_length=3"]
    assert main(typed) == 0, capsys.readouterr().err
    found = results(workspace / "cell")
    (row,) = found["rows"]  # one depth
    assert (row["rounds"], row["latent_length"], row["n"]) == (
        3,
        3,
        8,
    )  # what is typed stands above
    assert row["retried"] == 8 and row["accuracy_lenient"] is not None
    stop_log()
    assert main([*typed[:-1], "run_dir=own"]) == 0, capsys.readouterr().err
    assert results(workspace / "own")["rows"][0]["latent_length"] == 32  # the cell's own


def test_a_file_with_other_columns_is_asked(run, workspace, capsys):
    rows = [{"prompt": f"one {i}", "response": i} for i in range(3)]
    sets.write(workspace / "data" / "mine.parquet", rows)
    typed = ["stage=eval", f"run={run}", "data.name=mine", "data.train=null", "run_dir=mine"]
    typed += ["data.test=mine.parquet", "data.grader=lenient_math"]
    assert main(typed) == 2
    assert "line 1: no question" in capsys.readouterr().err
    stop_log()
    assert main([*typed, "data.columns={question: prompt, answer: response}"]) == 0
    assert results(workspace / "mine")["rows"][0]["n"] == 3


REFUSED = [
        (["data=eval/gqpa"], "data=eval/gqpa: no such choice. Did you mean 'eval/gpqa'"),
        (["data=relay"], "data=relay: stage=eval run=... takes its groups from the run"),
        (["data=eval/gpqa", "links=default"], "links=default: stage=eval run=... takes its groups"),
        (["data=eval/math500", "data.test_rows=x"], "data.test_rows"),
        (["data=eval/livecodebench"], "data.grader=code runs programs that the decoder writes"),
        (["data=eval/medqa"], "neither hub nor source is given"),
        (["data=eval/math500", "data.recipe_options.source=no.csv"], "no.csv: no such file"),
        (["data=eval/math500", "data.recipe_options.source=test.jsonl"], "no column 'problem'"),
        (["data=eval/bamboogle", "data.recipe_options.source=b.parquet"], "not Parquet"),
        (["data.grader=llm"], "data.grader=llm with evaluation.judge=null"),
        (["data.columns={question: prompt}"], "no column 'prompt', which data.columns names"),
        (["data.columns=[question]"], "data.columns"),
        (["data.train=null", "data.test_rows=0"], "data.test_rows=0 is too small"),
        (["data.test_seconds=0"], "data.test_seconds=0"),
        (["evaluation.judge=[1]"], "evaluation.judge"),
]  # fmt: skip


def test_what_cannot_be_asked_is_one_line(run, workspace, capsys):
    (workspace / "b.parquet").write_bytes(b"nothing")
    sets.write(workspace / "test.jsonl", [{"question": "q", "answer": "a"}])
    for typed, message in REFUSED:
        assert main(["stage=eval", f"run={run}", "run_dir=asked", *typed]) == 2
        stop_log()
        lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
        assert len(lines) == 1 and message in lines[0], typed
        assert not (workspace / "asked" / "eval").exists()


def test_a_benchmark_takes_the_place_of_the_runs_data_and_not_of_its_prompts(run, workspace):
    config = compose(["stage=eval", f"run={run}", "data=eval/gpqa"])
    assert (config.data.name, config.data.task, config.data.answer_pattern[:4]) == (
        *("gpqa", "choice"),
        "(?s)",
    )
    assert config.data.prompts == str(workspace / "prompts")
    assert config.evaluation.max_new_tokens == 4000 and config.rounds == 1
    with pytest.raises(ConfigError, match="one benchmark may be chosen"):
        compose(["stage=eval", f"run={run}", "data=eval/gpqa", "data=eval/math500"])
