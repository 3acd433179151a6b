"""Faults: signals, dead ranks, NaN, full disks, no memory, two runs in one folder."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import environment, run, torchrun

from rmas_train.__main__ import main
from rmas_train.support.files import locked
from rmas_train.training.checkpoint import list_checkpoints, verify
from rmas_train.training.loop import StopSignals, explained_memory

# Patches that make a real fault at a chosen step, then the real entry point.
SCRIPT = """
import os, resource, signal, sys, time
import torch
from rmas_train.__main__ import main
from rmas_train.training.callbacks import LinkWatch
plain = LinkWatch.__call__
def call(self, step):
    plain(self, step)
    if "outer" in next(iter(step.gradient_norms)) and step.step == 2:
        {fault}
LinkWatch.__call__ = call
sys.exit(main(sys.argv[1:]))
"""
LONG = ["training.outer.steps=2000", "training.outer.save_every=2", "training.inner.steps=2"]


@pytest.fixture
def typed(overrides):
    return [*overrides, *LONG, "training.outer.log_every=1"]


def broken(workspace: Path, fault: str) -> str:
    script = workspace / "broken.py"
    script.write_text(SCRIPT.format(fault=fault))
    return str(script)


def tracebacks(text: str) -> list[str]:
    """Ours; torchrun ends with one of its own, which names the rank."""
    every = text.split("Traceback (most recent call last)")[1:]
    return [t for t in every if "rmas_train/stages/pipeline.py" in t]


def checkpoints(workspace: Path) -> list[str]:
    return [p.name for p in list_checkpoints(workspace / "run" / "outer" / "checkpoints")]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_to_one_rank_stops_all_with_one_line(typed, workspace, number):
    """Rank 1 is told; rank 0 saves and says how to go on."""
    fault = f"signal.raise_signal({int(number)}) if os.environ['RANK'] == '1' else None"
    done = run([*torchrun(2)[:-1], broken(workspace, fault)], typed)
    line = f"stopped by {number.name} before step 3; checkpoint: "
    assert done.stderr.count(line) == 1
    assert not tracebacks(done.stderr)
    assert checkpoints(workspace) == ["step_00000003", "step_00000002"]


def test_a_second_signal_stops_at_once(monkeypatch):
    """It goes to whoever had the signal before, by default the end of the process."""
    monkeypatch.setattr("rmas_train.training.loop.ONE_PRESS", 0.0)
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGTERM)
            assert signals.received == signal.SIGTERM and not seen
            time.sleep(0.01)
            signal.raise_signal(signal.SIGTERM)
            assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_launcher_that_passes_the_signal_on_does_not_count_as_a_second_one():
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert signals.received == signal.SIGINT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "needle"),
    [
        ("1 / 0 if os.environ['RANK'] == '1' else None", "rank 1 of 2 failed first:"),
        pytest.param(
            "os.kill(os.getpid(), 9) if os.environ['RANK'] == '1' else None",
            "Signal 9",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["exception", "killed"],
)
def test_a_rank_that_dies_stops_the_others_within_40_seconds(typed, workspace, fault, needle):
    began = time.monotonic()
    done = run([*torchrun(2)[:-1], broken(workspace, fault)], typed)
    assert time.monotonic() - began < 40 + 20  # with the time to start
    assert done.returncode == 1
    assert needle in done.stderr
    if "1 / 0" in fault:
        (told,) = tracebacks(done.stderr)
        assert "ZeroDivisionError" in told
    for path in list_checkpoints(workspace / "run" / "outer" / "checkpoints"):
        verify(path)


@pytest.mark.slow
def test_ranks_stop_when_their_launcher_is_killed(typed, workspace):
    """They save at the end of their step, as after a signal of their own."""
    command = [*torchrun(2), "rmas_train", *typed]
    launcher = subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: len(checkpoints(workspace)) > 1)
        ranks = children(launcher.pid)
        assert len(ranks) == 2
    finally:
        launcher.kill()
        launcher.wait()
    wait_until(lambda: not any(map(is_alive, ranks)))
    assert "the launcher (process" in (workspace / "run" / "run.log").read_text()
    step = int(checkpoints(workspace)[0].removeprefix("step_"))
    written = (workspace / "run" / "outer" / "metrics.jsonl").read_text().splitlines()
    assert len(written) == step  # the checkpoint is of the step at which they stopped
    with locked(workspace / "run"):
        pass


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_loss_that_is_not_finite_dumps_the_step_and_keeps_the_checkpoint(
    typed, workspace, capsys
):
    fault = "[p.data.fill_(float('nan')) for p in LINKS]"
    script = Path(broken(workspace, fault))
    spy = (
        "from rmas_train.objectives.outer import OuterObjective\n"
        "LINKS, init = [], OuterObjective.__init__\n"
        "def spied(self, *a, **k):\n"
        "    init(self, *a, **k); LINKS.extend(p for p in self.parameters() if p.requires_grad)\n"
        "OuterObjective.__init__ = spied\n"
    )
    script.write_text(script.read_text().replace("plain =", spy + "plain ="))
    done = run([sys.executable, str(script)], typed)
    assert done.returncode == 2
    assert "error: step 3: loss nan" in done.stderr
    dump = json.loads((workspace / "run" / "outer" / "nonfinite.json").read_text())
    assert dump["step"] == 3 and len(dump["rows"]) == 4
    assert all("train.jsonl, line " in row for row in dump["rows"])
    assert dump["last_checkpoint"].endswith("step_00000002")
    assert set(dump["gradient_norms"]) >= {"outer.planner-critic", "outer.critic-solver"}
    verify(workspace / "run" / "outer" / "checkpoints" / "step_00000002")


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_it_valid(typed, workspace):
    """The system refuses to let any file grow beyond a limit, from step 3 on."""
    fault = "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))"
    done = run([sys.executable, broken(workspace, fault)], typed)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "step_00000004 could not be written" in done.stderr
    assert "step_00000002 is still valid" in done.stderr and "resume=auto" in done.stderr
    assert checkpoints(workspace) == ["step_00000002"]
    folder = workspace / "run" / "outer" / "checkpoints"
    assert [p.name for p in folder.iterdir()] == ["step_00000002"]
    verify(folder / "step_00000002")


@pytest.mark.slow
def test_out_of_memory_names_the_knobs(typed, workspace):
    """The next step really asks for more than any process may have."""
    fault = (
        "from rmas_train.objectives.outer import OuterObjective as O; "
        "O.forward = lambda self, rows, rounds: torch.empty(2**46)"
    )
    done = run([sys.executable, broken(workspace, fault)], typed)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "error: out of memory (" in done.stderr
    for knob in ("micro_batch_size", "recompute=agent", "placement", "stage=plan"):
        assert knob in done.stderr


def test_other_runtime_errors_are_not_called_out_of_memory():
    with pytest.raises(RuntimeError, match="shapes"), explained_memory():
        raise RuntimeError("shapes do not match")


@pytest.mark.slow
def test_two_runs_in_one_folder_are_refused(typed, workspace, capsys):
    (workspace / "run").mkdir()
    with locked(workspace / "run"):
        code = subprocess.run(
            [sys.executable, "-m", "rmas_train", *typed],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=100,
        )
    assert code.returncode == 2
    assert "is in use by another run" in code.stderr


def test_leftovers_of_killed_saves_are_removed(typed, workspace):
    folder = workspace / "run" / "outer" / "checkpoints"
    half = folder / ".step_00000002.tmp99"
    half.mkdir(parents=True)
    (half / "links.safetensors").write_bytes(b"half")
    small = [o for o in typed if "outer.steps" not in o]
    assert main([*small, "training.outer.steps=2", "resume=auto"]) == 0
    assert not half.exists()
    assert [p.name for p in folder.iterdir()] == ["step_00000002"]
