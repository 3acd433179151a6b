"""The example project adds everything from outside the package, in few lines."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXTEND = ROOT / "examples" / "extend"
SMALL = [
    *("training.inner.steps=2", "training.outer.steps=2", "training.inner.batch_size=8"),
    *("training.outer.batch_size=8", "evaluation.max_rows=8", "runtime.threads=1"),
    *("data.recipe_options.train=200", "data.recipe_options.test=20"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy, so that nothing is written into the repository."""
    folder = tmp_path_factory.mktemp("extend") / "project"
    shutil.copytree(EXTEND, folder, ignore=shutil.ignore_patterns("outputs", "__pycache__"))
    return folder


def run(project, *typed):
    command = [sys.executable, "-m", "rmas_train", *typed]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)


def test_every_addition_is_short_and_registers_once():
    files = [*sorted((EXTEND / "extras").glob("*.py")), *EXTEND.glob("conf/*/*.yaml")]
    assert len(files) == 8
    for path in files:
        assert len(path.read_text().splitlines()) <= 40, path.name
    kinds = [
        "LINK_VARIANTS",
        "OBJECTIVES",
        "CALLBACKS",
        "BENCHMARKS",
        "GRADERS",
        "SYSTEMS",
        "ANALYSES",
    ]
    text = "".join(path.read_text() for path in files)
    assert all(text.count(f"{kind}.register(") == 1 for kind in (*kinds, "ANALYSES"))


CONFIG = ["--config-dir", "conf", "--config", "config.yaml"]


@pytest.fixture(scope="module")
def out(project):
    """The run folder of the whole example."""
    done = run(project, *CONFIG, *SMALL)
    assert done.returncode == 0, done.stderr
    return project / "outputs" / "extend"


@pytest.mark.slow
def test_a_run_uses_all_of_them(project, out):
    rows = json.loads((out / "results.json").read_text())["rows"]
    seen = {(r["task"], r["system"], r["control"]) for r in rows}
    systems = [("latent", None), ("latent", "noisy"), ("latent", "null")]
    assert seen == {(task, *system) for task in ("relay", "one_round") for system in systems}
    card = json.loads((out / "outer" / "links" / "links.json").read_text())
    assert card["links"]["variant"] == "low_rank" and card["topology"]["name"] == "pair"
    line = json.loads((out / "outer" / "gradient_shares.jsonl").read_text().splitlines()[0])
    assert line["outer.planner-solver"] is not None
    assert "latent, noisy messages" in json.dumps(json.loads((out / "results.json").read_text()))
    analysed = run(project, *CONFIG, *SMALL, "stage=analyse")
    assert analysed.returncode == 0, analysed.stderr
    found = json.loads((out / "analyse" / "effective_rank.json").read_text())["result"]
    assert {line["edge"] for line in found} == {"planner-solver", "solver-planner"}
    assert all(line["effective_rank"] >= 1 for line in found)


@pytest.mark.slow
def test_nothing_foreign_is_imported_unasked(project, out):
    """Neither by an evaluation of a finished run, nor by loading its links."""
    refused = run(project, "stage=eval", "run=outputs/extend", "evaluation.max_rows=4")
    assert refused.returncode == 2 and "plugins" in refused.stderr
    code = "import rmas_train; rmas_train.load('outputs/extend')"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=env, capture_output=True, text=True
    )
    assert "no such link variant" in loaded.stderr and "'low_rank'" not in loaded.stdout
