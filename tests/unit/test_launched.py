"""What a launcher left in the environment: read right, or one line."""

import pytest
import torch

from rmas_train.__main__ import main
from rmas_train.config import RuntimeConfig
from rmas_train.errors import ConfigError
from rmas_train.runtime.runtime import Runtime, settle_backend
from rmas_train.support.output import rank
from rmas_train.support.reading import RANGES, check_launched

WHERE = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
TWO = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"} | WHERE


@pytest.mark.parametrize(
    "env",
    [
        {},
        TWO,
        {"WORLD_SIZE": "1"},
        {"RANK": "0", "LOCAL_RANK": "-1"},
        TWO | {"LOCAL_WORLD_SIZE": "8", "WORLD_SIZE": "16", "RANK": "9"},
        {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"} | WHERE,
    ],
)
def test_what_launchers_say_is_taken(env):
    check_launched(env)
    assert rank(env) == int(env.get("RANK", 0))


@pytest.mark.parametrize(
    ("env", "needle"),
    [
        ({"RANK": "abc"}, "RANK='abc': not a whole number from 0"),
        ({"RANK": ""}, "RANK='': not a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0': not a whole number from 1"),
        ({"WORLD_SIZE": "2.0"}, "WORLD_SIZE='2.0'"),
        (TWO | {"LOCAL_RANK": "gpu0"}, "LOCAL_RANK='gpu0'"),
        (TWO | {"MASTER_PORT": "99999"}, "MASTER_PORT='99999': .* to 65535"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "but no MASTER_ADDR; start several"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but no RANK, no LOCAL_RANK, no MASTER_ADDR"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0, but no RANK, no WORLD_SIZE, no MASTER_ADDR"),
        ({"RANK": "2"}, "RANK=2, but WORLD_SIZE=nothing"),
        (TWO | {"RANK": "2"}, "RANK=2, but WORLD_SIZE=2"),
        (TWO | {"LOCAL_RANK": "2"}, "LOCAL_RANK=2, but LOCAL_WORLD_SIZE=2"),
    ],
)
def test_odd_variables_are_named(env, needle):
    with pytest.raises(ConfigError, match=needle) as caught:
        check_launched(env)
    assert "torchrun" in str(caught.value) and "unset" in str(caught.value)


def test_the_command_and_the_package_tell_it_in_one_line(monkeypatch, capsys):
    for name in (*RANGES, "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("RANK", "abc"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
        assert main(["stage=eval"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and f"{name}=" in line
        with pytest.raises(ConfigError, match=f"{name}="):
            Runtime(RuntimeConfig())
        monkeypatch.delenv(name)


def test_an_odd_number_of_tasks_is_no_crash():
    assert settle_backend(RuntimeConfig(), {"SLURM_STEP_NUM_TASKS": "2(x3)"}) == "single"


def test_a_gpu_that_is_required_and_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="runtime.device=cuda: PyTorch sees no GPU here.*auto"):
        Runtime(RuntimeConfig(device="cuda"))
