"""How this process was launched, and whether this agrees with the config.

Some launchers start processes that each train alone, without a warning. These cases are refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from rmas_train.config import RuntimeConfig
from rmas_train.errors import ConfigError

TORCHRUN = "torchrun --nproc-per-node {n} -m rmas_train ..."


def settle_backend(config: RuntimeConfig, env: Mapping[str, str] = os.environ) -> str:
    """The back end that config and launcher agree on: single, ddp, zero1, zero2 or zero3.

    Raises:
        ConfigError: they contradict each other, or the launcher started too few processes.
    """
    _refuse_lost_tasks(env)
    world = int(env.get("WORLD_SIZE", "1"))
    launched = _launched(env)
    backend = config.backend
    if backend == "auto":
        backend = launched or ("ddp" if world > 1 else "single")
    elif launched and launched != backend:
        raise ConfigError(
            f"accelerate launch was told to use DeepSpeed ({launched}), but "
            f"runtime.backend={backend}; say runtime={launched}, or launch without --use_deepspeed."
        )
    if env.get("ACCELERATE_USE_FSDP") == "true" and config.placement != "sharded":
        raise ConfigError(
            "accelerate launch was told to use FSDP, but runtime.placement="
            f"{config.placement}; say runtime=fsdp, which shards the agents' layers."
        )
    if config.placement == "sharded" and backend != "ddp":
        raise ConfigError(
            f"runtime.placement=sharded shards agents over several processes, and "
            f"runtime.backend is {backend}; use runtime=fsdp with "
            f"{TORCHRUN.format(n='<GPUs>')}"
        )
    _check_number(backend, world, config.processes)
    return backend


def _launched(env: Mapping[str, str]) -> str | None:
    """Back end that ``accelerate launch --use_deepspeed`` sets in the environment."""
    if env.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return None
    return f"zero{env.get('ACCELERATE_DEEPSPEED_ZERO_STAGE', '2')}"


def _refuse_lost_tasks(env: Mapping[str, str]) -> None:
    """Refuse launchers whose processes do not know of each other."""
    if "WORLD_SIZE" in env:
        return
    for launcher, name in (
        ("srun", "SLURM_STEP_NUM_TASKS"),
        ("mpirun", "OMPI_COMM_WORLD_SIZE"),
        ("mpirun", "PMI_SIZE"),
    ):
        if int(env.get(name) or 1) > 1:
            raise ConfigError(
                f"{launcher} started {env[name]} tasks that do not know of each other; start one "
                f"task per node, and in it {TORCHRUN.format(n='<processes>')}"
            )
    if "ACCELERATE_MIXED_PRECISION" in env and "MASTER_ADDR" in env:
        raise ConfigError(
            "accelerate launch was asked for several processes but started one (it does so on "
            f"CPUs); start them with {TORCHRUN.format(n='<processes>')}"
        )


def _check_number(backend: str, world: int, wanted: int | None) -> None:
    if wanted is not None and wanted != world:
        raise ConfigError(
            f"{wanted} processes were asked for (runtime.processes), launched: {world}; start them "
            f"with {TORCHRUN.format(n=wanted)}"
        )
    if backend == "single" and world > 1:
        raise ConfigError(
            f"runtime.backend=single, but {world} processes were launched; use runtime=ddp, or "
            "start python -m rmas_train without a launcher."
        )
    if backend.startswith("zero") and world == 1:
        raise ConfigError(
            f"runtime.backend={backend} shards links over processes, and this run is alone; "
            f"start it with {TORCHRUN.format(n=2)} or leave runtime= out"
        )
    if backend == "ddp" and world == 1 and wanted != 1:
        raise ConfigError(
            f"runtime.backend={backend} is for several processes, and this run is alone; start it "
            f"with {TORCHRUN.format(n=2)} or set runtime.processes=1 to allow one process"
        )
