"""Resuming whole runs through the entry point: stages, pipelines, sweeps, other layouts."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT, assert_same_curves, environment, launch, lines
from safetensors.torch import load_file

from rmas_train.__main__ import main
from rmas_train.support.output import stop_log
from rmas_train.training.callbacks import MetricsFile

FAST = [
    "training.inner.steps=6",
    "training.outer.steps=6",
    "training.inner.log_every=1",
    "training.outer.log_every=1",
    "training.outer.lr=1e-3",
    "evaluation.systems=[shuffled]",
]


@pytest.fixture
def typed(overrides):
    return [o for o in overrides if not o.startswith("run_dir=")] + FAST


@pytest.fixture
def stop(monkeypatch):
    """Send this process a real SIGTERM after a step of a stage."""
    plain = MetricsFile.__call__

    def after(stage, last):
        def call(self, step):
            plain(self, step)
            if self._path.parent.name == stage and step.step == last:
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(MetricsFile, "__call__", call)

    yield after
    stop_log()


def same_run(a: Path, b: Path) -> None:
    for stage in ("inner", "outer"):
        one, two = (
            [
                {k: v for k, v in x.items() if k != "seconds"}
                for x in lines(r / stage / "metrics.jsonl")
            ]
            for r in (a, b)
        )
        assert one == two
        x, y = (load_file(r / stage / "links" / "links.safetensors") for r in (a, b))
        assert all(x[k].equal(y[k]) for k in x)
    x, y = (json.loads((r / "results.json").read_text())["rows"] for r in (a, b))
    assert [r["accuracy"] for r in x] == [r["accuracy"] for r in y]


@pytest.mark.parametrize(
    ("stage", "last"),
    [
        ("inner", 2),
        pytest.param("inner", 5, marks=pytest.mark.slow),
        ("outer", 0),
        pytest.param("outer", 5, marks=pytest.mark.slow),
    ],
)
def test_a_pipeline_goes_on_in_either_stage_and_across_their_switch(
    typed, workspace, stop, capsys, stage, last
):
    whole, cut = workspace / "a" / "run", workspace / "b" / "run"
    assert main([*typed, f"run_dir={whole}"]) == 0
    stop(stage, last)
    assert main([*typed, f"run_dir={cut}"]) == 128 + signal.SIGTERM
    message = capsys.readouterr().err
    assert f"stopped by SIGTERM before step {last + 1}" in message and "resume=auto" in message
    stop(None, None)
    assert main([*typed, f"run_dir={cut}", "resume=auto"]) == 0
    same_run(whole, cut)


def test_a_finished_run_has_nothing_left_to_do(typed, workspace, capsys):
    typed = [*typed, f"run_dir={workspace}/run"]
    assert main(typed) == 0
    links = workspace / "run" / "outer" / "links" / "links.safetensors"
    before = links.stat().st_mtime_ns
    assert main([*typed, "resume=auto"]) == 0
    assert "is finished; there is nothing to do" in capsys.readouterr().out
    assert links.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        ("training.outer.lr=2e-3", "training.lr: 0.001 there, 0.002 now"),
        ("training.outer.steps=7", "training.steps: 6 there, 7 now"),
        ("seed=1", "seed: 0 there, 1 now"),
        ("rounds=3", "rounds: 2 there, 3 now"),
    ],
)
def test_a_checkpoint_of_other_options_is_refused(typed, workspace, stop, capsys, change, needle):
    typed = [*typed, f"run_dir={workspace}/run"]
    stop("outer", 2)
    assert main(typed) == 143
    stop(None, None)
    inner = f"inner={workspace}/run/inner/links"
    key = change.split("=")[0]
    again = [o for o in typed if not o.startswith(f"{key}=")]
    assert main([*again, change, "stage=outer", inner, "resume=auto"]) == 2
    assert needle in capsys.readouterr().err


@pytest.mark.slow
def test_a_checkpoint_may_be_named(typed, workspace, stop):
    whole, cut = workspace / "a" / "run", workspace / "b" / "run"
    assert main([*typed, f"run_dir={whole}"]) == 0
    stop("outer", 3)
    save = "training.outer.save_every=2"
    assert main([*typed, f"run_dir={cut}", save]) == 143
    stop(None, None)
    named = f"resume={cut}/outer/checkpoints/step_00000002"
    assert main([*typed, f"run_dir={cut}", save, named]) == 0
    same_run(whole, cut)


@pytest.mark.slow
def test_a_half_done_sweep_goes_on(typed, workspace):
    """One job is finished, one is in its outer stage, one has not begun."""
    sweep = ["-m", "latent_length=1,2,3", *typed, f"run_dir={workspace}/sweep"]
    whole = ["-m", "latent_length=1,2,3", *typed, f"run_dir={workspace}/whole"]
    code = (
        "import signal, sys; from rmas_train.training.callbacks import MetricsFile\n"
        "plain = MetricsFile.__call__\n"
        "def call(self, step):\n"
        "    plain(self, step)\n"
        "    if 'latent_length=2/outer' in str(self._path) and step.step == 3:\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "MetricsFile.__call__ = call\n"
        "from rmas_train.__main__ import main; sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *sweep], env=environment(), timeout=200)
    assert done.returncode == 143
    assert not (workspace / "sweep" / "latent_length=3").exists()
    launch(whole, 1)
    out = launch([*sweep, "resume=auto"], 1)
    assert out.count("is finished; there is nothing to do") == 1
    for name in ("latent_length=1", "latent_length=2", "latent_length=3"):
        same_results(workspace / "whole" / name, workspace / "sweep" / name)


def same_results(a: Path, b: Path) -> None:
    x, y = (load_file(r / "outer" / "links" / "links.safetensors") for r in (a, b))
    assert all(x[k].equal(y[k]) for k in x)
    one, two = (json.loads((r / "eval" / "results.json").read_text())["rows"] for r in (a, b))
    assert [r["accuracy"] for r in one] == [r["accuracy"] for r in two]


@pytest.mark.slow
def test_one_process_goes_on_with_two(typed, workspace, stop):
    """Same rows per step, the curve to rounding."""
    whole, cut = workspace / "a" / "run", workspace / "b" / "run"
    assert main([*typed, f"run_dir={whole}"]) == 0
    stop("outer", 2)
    assert main([*typed, f"run_dir={cut}"]) == 143
    out = launch([*typed, f"run_dir={cut}", "resume=auto"], 2)
    assert "resumed by (2, 'ddp'): same rows per step" in out
    assert_same_curves(whole, cut)


@pytest.mark.slow
def test_killed_runs_end_as_if_nobody_had_killed_them(typed, workspace):
    """The short form of the fault harness: real processes, real signals."""
    record = workspace / "faults.json"
    arguments = ["--kills", "3", "--per-chain", "3", "--processes", "1", "--json", str(record)]
    script = str(ROOT / "scripts" / "fault_run.py")
    own = [o for o in typed if o not in FAST and not o.startswith("training.")]
    subprocess.run(
        [sys.executable, script, *arguments, "--", *own, "data.role_texts.solver=solution"],
        env=environment(),
        check=True,
        timeout=200,
    )
    found = json.loads(record.read_text())
    assert found["kills"] == found["resumed_equal"] == 3
    assert found["lost_steps"] == found["doubled_steps"] == 0
