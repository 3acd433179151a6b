"""Sweeps through submitit and the script for torchrun; SLURM's programs are stand-ins on PATH."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from rmas_train.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "slurm" / "torchrun.sbatch"
LAUNCHER = [
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.partition=gpu",
    "hydra.launcher.gpus_per_node=1",
    "hydra.launcher.timeout_min=90",
]
SAVE = 'cp "$1" "$SAVED"\n'
ANSWER = 'echo "Submitted batch job 1"\n'
STATE = 'echo "JobID|State|NodeList"; echo "1_[0-1]|{}|"\n'
# Runs the array's tasks as SLURM would: the file that it was handed, with SLURM's variables.
RUN = """for task in 0 1; do
  export SLURM_JOB_ID=1$task SLURM_ARRAY_JOB_ID=1 SLURM_ARRAY_TASK_ID=$task
  bash "$SAVED" &> "$SAVED.$task" &
done
"""
SRUN = """[[ $1 == --unbuffered && $2 == --output && $4 == --error ]] || exit 1
name() { sed "s/%A/1/; s/%a/$SLURM_ARRAY_TASK_ID/; s/%t/0/" <<< "$1"; }
exec "${@:6}" > "$(name "$3")" 2> "$(name "$5")"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Puts stand-ins for SLURM's programs on PATH; the file that sbatch was handed."""
    programs, saved = tmp_path / "bin", tmp_path / "handed.sh"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SAVED", str(saved))

    def install(**bodies):
        for name, body in bodies.items():
            (programs / name).write_text(f"#!/bin/bash\n{body}")
            (programs / name).chmod(0o755)
        return saved

    return install


def sweep(argv: list[str]) -> subprocess.CompletedProcess:
    """The real command; a process of its own, so that submitit pickles as it does for users."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "rmas_train", "-m", *argv],
        capture_output=True,
        text=True,
        env=env,
        timeout=240,
    )


def sbatch_options(file: Path) -> dict[str, str]:
    lines = [li for li in file.read_text().splitlines() if li.startswith("#SBATCH --")]
    pairs = [li.removeprefix("#SBATCH --").partition("=") for li in lines]
    return {name: value for name, _, value in pairs}


def logs(root: Path, ending: str) -> list[str]:
    return [p.read_text() for p in sorted((root / ".submitit").glob(f"*/*_0_log.{ending}"))]


def test_the_job_file_of_a_sweep(cluster, overrides, workspace, monkeypatch, capsys):
    """The launcher hands sbatch a file; the jobs are cancelled at once, which is said in a line."""
    saved = cluster(sbatch=SAVE + ANSWER, srun="", sacct=STATE.format("CANCELLED"))
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 0)
    argv = [o for o in overrides if not o.startswith("rounds=")]
    more = ["hydra.launcher.setup=[module load cuda]", "hydra.launcher.mem_gb=64"]
    more += ["+hydra.launcher.additional_parameters.reservation=mine"]
    assert main(["-m", *argv, "rounds=1,2", *LAUNCHER, *more]) == 2
    error = capsys.readouterr().err.strip()
    assert "state: CANCELLED" in error and ".submitit" in error and len(error.splitlines()) == 1
    options = sbatch_options(saved)
    assert options["partition"] == "gpu" and options["gpus-per-node"] == "1"
    assert options["time"] == "90" and options["nodes"] == "1"
    assert options["ntasks-per-node"] == "1" and options["array"] == "0-1%2"
    assert options["mem"] == "64GB" and options["reservation"] == "mine"
    assert "\nmodule load cuda\n" in saved.read_text()
    assert options["output"].startswith(str(workspace / "run" / ".submitit"))
    command = shlex.split(saved.read_text().strip().splitlines()[-1])
    python = command.index(sys.executable)
    assert command[0] == "srun"
    assert command[python:][:4] == [sys.executable, "-u", "-m", "submitit.core._submit"]
    assert subprocess.run(["bash", "-n", saved]).returncode == 0
    assert not (workspace / "run" / "results.json").exists()


def test_what_sbatch_refuses_is_said_in_one_line(cluster, overrides, capsys):
    cluster(sbatch='echo "sbatch: error: invalid partition: gpu" >&2; exit 1\n', srun="")
    assert main(["-m", *overrides, *LAUNCHER]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(
        "error: hydra/launcher=submitit_slurm: sbatch: error: invalid partition"
    )


@pytest.mark.parametrize(
    ("typed", "needles"),
    [
        (LAUNCHER, ["no sbatch and srun", "submitit_local"]),
        (["hydra.launcher.partition=gpu"], ["'basic' has no options", "submitit_slurm"]),
        ([*LAUNCHER, "hydra.launcher.partitoin=gpu"], ["Did you mean 'hydra.launcher.partition'"]),
        ([*LAUNCHER, "hydra.launcher.timeout_min=long"], ["timeout_min=long", "Integer"]),
        ([*LAUNCHER, "hydra.launcher.nodes=1,2"], ["nodes=1,2", "docs/slurm.md"]),
        (["hydra/launcher=slurm"], ["hydra/launcher=slurm", "docs/slurm.md"]),
        (["hydra.sweep.dir=x"], ["hydra.sweep.dir=x", "hydra.launcher.<option>"]),
        (["hydra.launcher._target_=os.system"], ["_target_", "leave it out"]),
    ],
)
def test_bad_launchers(capsys, overrides, typed, needles, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["-m", *overrides, *typed]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and len(error.splitlines()) == 1, error
    for needle in needles:
        assert needle in error, error


def test_a_launcher_without_a_sweep(capsys, overrides):
    assert main([*overrides, "hydra/launcher=submitit_local"]) == 2
    assert "hydra/launcher=submitit_local: launchers run sweeps; add -m" in capsys.readouterr().err


def test_without_the_extra_the_pip_command_is_named(capsys, overrides, monkeypatch):
    monkeypatch.setitem(sys.modules, "hydra_plugins.hydra_submitit_launcher", None)
    assert main(["-m", *overrides, "hydra/launcher=submitit_local"]) == 2
    error = capsys.readouterr().err.strip()
    assert "pip install 'rmas_train[slurm]'" in error and len(error.splitlines()) == 1


def test_jobs_at_the_same_time_do_not_make_one_data_folder_twice(cluster, workspace, capsys):
    cluster(sbatch="exit 1\n", srun="")
    argv = ["-m", "seed=0,1", *LAUNCHER, "data.recipe_options={train: 20, test: 5}"]
    assert main([*argv, "data.folder=made"]) == 2
    assert "job seed=1: data.folder=made" in capsys.readouterr().err
    assert main([*argv, "data.folder=made_${seed}"]) == 2
    assert all((workspace / f"made_{seed}" / "train.jsonl").is_file() for seed in (0, 1))


@pytest.mark.slow
def test_a_sweep_through_joblib(overrides, workspace):
    argv = [o for o in overrides if not o.startswith("rounds=")]
    done = sweep([*argv, "rounds=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"])
    assert done.returncode == 0, done.stderr
    found = json.loads((workspace / "run" / "results.json").read_text())
    assert {(r["trained_rounds"], r["rounds"]) for r in found["rows"]} >= {(1, 1), (2, 2)}
    assert not found["sweep"]["missing"]


@pytest.mark.slow
def test_a_local_sweep_runs_in_processes_of_its_own(overrides, workspace):
    argv = [o for o in overrides if not o.startswith("rounds=")]
    done = sweep([*argv, "rounds=1,2", "hydra/launcher=submitit_local"])
    assert done.returncode == 0, done.stderr
    root = workspace / "run"
    rows = json.loads((root / "results.json").read_text())["rows"]
    assert {(r["trained_rounds"], r["rounds"]) for r in rows} == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert len(logs(root, "out")) == 2 and all("== job rounds=" in li for li in logs(root, "out"))


@pytest.mark.slow
def test_one_failing_job_of_two(overrides, workspace):
    """One line in its log and in the end; the report is on the other."""
    missing = workspace / "nothing" / "here"
    good = next(o for o in overrides if o.startswith("agents.critic.model="))
    argv = [o for o in overrides if o != good]
    done = sweep([*argv, f"{good},{missing}", "hydra/launcher=submitit_local", "stage=pipeline"])
    assert done.returncode == 2
    line = done.stderr.strip()
    assert line.startswith("error: 1 of 2 jobs failed. ") and len(line.splitlines()) == 1
    assert "no such folder" in line
    root = workspace / "run"
    (said,) = [log for log in logs(root, "err") if "error: " in log]
    assert said.startswith("error: agents.critic.model=") and len(said.splitlines()) == 1
    assert not any("Traceback" in li for li in [*logs(root, "err"), *logs(root, "out")])
    assert len(json.loads((root / "results.json").read_text())["runs"]) == 1


@pytest.mark.slow
def test_the_tasks_of_a_job_are_one_run(overrides, workspace):
    typed = ["hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2", "stage=inner"]
    done = sweep([*overrides, *typed])
    assert done.returncode == 0, done.stderr
    root = workspace / "run"
    assert "2 process(es)" in (root / "job" / "run.log").read_text()
    assert not (root / "results.json").exists(), "inner has no results to report on"


@pytest.mark.slow
def test_a_slurm_sweep_runs_from_its_job_file(cluster, overrides, workspace):
    saved = cluster(sbatch=SAVE + RUN + ANSWER, srun=SRUN, sacct=STATE.format("RUNNING"))
    argv = [o for o in overrides if not o.startswith("rounds=")]
    done = sweep([*argv, "rounds=1,2", *LAUNCHER])
    assert done.returncode == 0, done.stderr + saved.with_name("handed.sh.0").read_text()
    runs = json.loads((workspace / "run" / "results.json").read_text())["runs"]
    assert set(runs) == {"rounds=1", "rounds=2"}


def dry_run(nodes: int, *arguments: str) -> list[str]:
    """The words of the command that the script would run."""
    env = {"PATH": os.environ["PATH"], "DRY_RUN": "1", "SLURM_NNODES": str(nodes)}
    env |= {"SLURM_JOB_ID": "7", "GPUS_PER_NODE": "4", "HEAD_NODE": "node1"}
    done = subprocess.run(
        ["bash", SCRIPT, *arguments], env=env, capture_output=True, text=True, check=True
    )
    return shlex.split(done.stdout)


def test_the_torchrun_script_over_nodes():
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    pattern = "data.answer_pattern='(?P<answer>a b)'"
    words = dry_run(2, "stage=outer", pattern)
    assert words[:7] == ["srun", "--nodes", "2", "--ntasks", "2", "--ntasks-per-node", "1"]
    typed = get_args_parser().parse_args(words[words.index("torchrun") + 1 :])
    assert (typed.nnodes, typed.nproc_per_node, typed.rdzv_id) == ("2", "4", "7")
    assert (typed.rdzv_backend, typed.rdzv_endpoint) == ("c10d", "node1:20007")
    assert typed.module and typed.training_script == "rmas_train"
    assert typed.training_script_args == ["resume=auto", "stage=outer", pattern]
    options = sbatch_options(SCRIPT)
    assert options["signal"] == "TERM@120" and options["ntasks-per-node"] == "1"
    assert "requeue" in options


def test_the_torchrun_script_needs_its_variables():
    done = subprocess.run(["bash", SCRIPT], env={"PATH": "/usr/bin:/bin"}, capture_output=True)
    assert done.returncode and b"submit this file with sbatch" in done.stderr


def test_one_node_s_command_runs_as_printed(tmp_path):
    """Without srun and with a module that says its rank in place of ours."""
    words = dry_run(1, "stage=plan")
    words = words[words.index("torchrun") :]
    words[words.index("node1:20007")] = "localhost:0"
    words[words.index("--nproc-per-node") + 1] = "2"
    words[words.index("rmas_train")] = "saying"
    (tmp_path / "saying.py").write_text(
        "import os, sys\n"
        "said = [os.environ['RANK'], os.environ['WORLD_SIZE'], *sys.argv[1:]]\n"
        "os.write(1, (' '.join(said) + '\\n').encode())  # in one piece, beside the other rank\n"
    )
    words[0] = str(Path(sys.executable).with_name("torchrun"))
    env = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = {line for line in done.stdout.splitlines() if line.endswith("stage=plan")}
    assert said == {"0 2 resume=auto stage=plan", "1 2 resume=auto stage=plan"}
