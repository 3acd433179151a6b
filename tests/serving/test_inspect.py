"""inspect-ai with its own command, on a small data set."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from launching import environment
from tiny import make_rows

import rmas_train
from rmas_train.api import train
from rmas_train.errors import DataError

pytestmark = pytest.mark.slow

TASK = '''
import json
from pathlib import Path
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import match
from inspect_ai.solver import generate, solver, system_message

@solver
def with_columns():
    """Columns of a row besides the question travel with the request."""

    async def solve(state, generate):
        return await generate(state, extra_body={"columns": state.metadata})

    return solve

def samples():
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    rest = ("plan", "feedback")
    return MemoryDataset([
        Sample(input=r["question"], target=r["answer"], metadata={c: r[c] for c in rest})
        for r in rows
    ])

@task
def plain():
    return Task(dataset=samples(), solver=generate(), scorer=match(location="exact"))

@task
def columns():
    return Task(dataset=samples(), solver=with_columns(), scorer=match(location="exact"))

@task
def system():
    solvers = [system_message("Be brief."), generate()]
    return Task(dataset=samples(), solver=solvers, scorer=match(location="exact"))
'''


def evaluate(folder: Path, rows: list[dict], task: str, *typed: str) -> dict:
    """The log of one evaluation."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tasks.py").write_text(TASK)
    command = [str(Path(sys.executable).with_name("inspect")), "eval", f"tasks.py@{task}", *typed]
    command += ["--log-dir", f"logs_{task}", "--log-format", "json", "--display", "none"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment(), timeout=600
    )
    logs = sorted(folder.glob(f"logs_{task}/*.json"))
    assert logs, done.stdout + done.stderr
    return json.loads(logs[-1].read_text())


@pytest.fixture(scope="module")
def rows(relay_run):
    (path,) = relay_run.parent.glob("data/*/test.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_task_is_answered_by_the_system(tmp_path, relay_run, rows):
    log = evaluate(tmp_path, rows, "plain", "--model", f"rmas/{relay_run}", "--max-tokens", "6")
    assert log["status"] == "success", log.get("error")
    answers = rmas_train.load(relay_run).answer([row["question"] for row in rows])
    outputs = [sample["output"] for sample in sorted(log["samples"], key=lambda s: s["id"])]
    assert [o["completion"] for o in outputs] == [a.text for a in answers]
    assert [o["usage"]["output_tokens"] for o in outputs] == [a.tokens for a in answers]
    assert {o["metadata"]["latent_steps"] for o in outputs} == {4}
    right = [a.text.strip() == row["answer"] for a, row in zip(answers, rows, strict=True)]
    (score,) = log["results"]["scores"]
    assert score["metrics"]["accuracy"]["value"] == pytest.approx(sum(right) / len(rows)) and any(
        right
    )


def test_epochs_are_samples_of_a_question(tmp_path, relay_run, rows):
    warm = ["--temperature", "3", "--epochs", "4", "--max-tokens", "6"]
    log = evaluate(tmp_path, rows[:2], "plain", "--model", f"rmas/{relay_run}", *warm)
    assert log["status"] == "success", log.get("error")
    texts = [sample["output"]["completion"] for sample in log["samples"]]
    assert len(texts) == 8 and len(set(texts)) > 2


def test_what_cannot_be_answered_is_told(tmp_path, relay_run, rows):
    model = ["--model", f"rmas/{relay_run}"]
    log = evaluate(tmp_path, rows[:1], "system", *model)
    assert log["status"] == "error" and "has role 'system'" in log["error"]["message"]


@pytest.mark.parametrize(
    ("settings", "needle"),
    [
        ({"temperature": -0.5}, "temperature=-0.5: give a number from 0"),
        ({"temperature": 1, "top_k": 0}, "top_k=0: give 1 or more"),
        ({"num_choices": 2}, "num_choices=2 is not offered"),
    ],
)
def test_settings_that_are_refused(settings, needle):
    from inspect_ai.model import GenerateConfig

    from rmas_train.serving.inspect_model import decoding_of

    given = {"max_tokens": 3, "seed": 1, "num_choices": 1}
    assert decoding_of(GenerateConfig(temperature=0, **given)).temperature == 0
    warm = decoding_of(GenerateConfig(temperature=0.5, top_k=3, **given))
    assert (warm.temperature, warm.top_k, warm.seed) == (0.5, 3, 1)
    with pytest.raises(DataError, match=needle):
        decoding_of(GenerateConfig(**settings))


def test_columns_of_a_sample(overrides, workspace):
    solver = workspace / "prompts" / "solver.yaml"
    solver.write_text('user: "<<question>> note <<plan>> <<message:critic>> go"')
    short = ["training.inner.steps=1", "training.outer.steps=1"]
    train([*overrides, *short], rows=make_rows(8))
    rows = make_rows(2, first=30)
    model = ["--model", "rmas/mine", "-M", f"links={workspace / 'run' / 'outer' / 'links'}"]
    log = evaluate(workspace, rows, "columns", *model, "-M", "latent_length=1")
    assert log["status"] == "success", log.get("error")
    expected = rmas_train.load(workspace / "run").answer(rows, latent_length=1)
    outputs = [sample["output"] for sample in sorted(log["samples"], key=lambda s: s["id"])]
    assert [o["completion"] for o in outputs] == [a.text for a in expected]
