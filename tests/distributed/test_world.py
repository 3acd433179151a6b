"""What was launched is what was asked for: the ways in which processes silently train alone."""

import pytest
from launching import run, torchrun

from rmas_train.config import RuntimeConfig
from rmas_train.errors import ConfigError
from rmas_train.runtime.runtime import settle_backend

TWO = {"WORLD_SIZE": "2", "RANK": "0"}
DEEPSPEED = TWO | {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}


@pytest.mark.parametrize(
    ("options", "env", "backend"),
    [
        ({}, {}, "single"),
        ({}, TWO, "ddp"),
        ({}, DEEPSPEED, "zero1"),
        ({"backend": "zero3"}, TWO, "zero3"),
        ({"backend": "ddp", "placement": "sharded"}, TWO, "ddp"),
        ({"backend": "ddp", "processes": 1}, {}, "ddp"),
        ({}, {"SLURM_STEP_NUM_TASKS": "2"} | TWO, "ddp"),
        ({}, {"SLURM_NTASKS": "8"}, "single"),  # an interactive allocation, not a step
    ],
)
def test_config_and_launcher_agree(options, env, backend):
    assert settle_backend(RuntimeConfig(**options), env) == backend


@pytest.mark.parametrize(
    ("options", "env", "needle"),
    [
        ({"backend": "ddp"}, {}, "this run is alone"),
        ({"backend": "zero2"}, {}, "this run is alone"),
        ({"backend": "zero2", "processes": 1}, {}, "this run is alone"),
        ({"backend": "single"}, TWO, "2 processes were launched"),
        ({"processes": 4}, TWO, "4 processes were asked for .* launched: 2"),
        ({"backend": "ddp"}, DEEPSPEED, "use DeepSpeed .zero1."),
        ({}, TWO | {"ACCELERATE_USE_FSDP": "true"}, "say runtime=fsdp"),
        ({"placement": "sharded"}, {}, "runtime.backend is single"),
        ({}, {"SLURM_STEP_NUM_TASKS": "4"}, "srun started 4 tasks"),
        ({}, {"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun started 2 tasks"),
        (
            {},
            {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1"},
            "accelerate launch was asked for several processes but started one",
        ),
    ],
)
def test_contradictions_are_refused(options, env, needle):
    with pytest.raises(ConfigError, match=needle):
        settle_backend(RuntimeConfig(**options), env)


@pytest.mark.parametrize("placement", ["per_agent", "sharded"])
def test_zero_has_the_links_of_one_device(placement):
    with pytest.raises(ConfigError, match="use runtime.backend=ddp"):
        RuntimeConfig(backend="zero1", placement=placement)


ACCELERATE = ["-m", "accelerate.commands.launch"]


@pytest.mark.slow
def test_the_real_accelerate_launcher_that_starts_one_process_is_refused(overrides):
    """``--cpu --num_processes 2`` starts one process and says nothing."""
    launcher = [*torchrun(1)[:1], *ACCELERATE, "--cpu", "--num_processes", "2", "-m", "rmas_train"]
    done = run(launcher, overrides)
    assert done.returncode != 0
    assert "accelerate launch was asked for several processes but started one" in done.stderr


@pytest.mark.slow
def test_torchrun_with_a_wrong_number_is_refused_once(overrides):
    done = run([*torchrun(2), "rmas_train"], [*overrides, "runtime.processes=4"])
    assert done.returncode != 0
    assert done.stderr.count("error: 4 processes were asked for") == 1
