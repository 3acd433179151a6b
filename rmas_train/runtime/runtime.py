"""The processes and devices of a run, and the communication between ranks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DeepSpeedPlugin,
    InitProcessGroupKwargs,
    broadcast_object_list,
    gather_object,
)
from torch import Tensor, nn
from transformers.integrations import unset_hf_deepspeed_config

from rmas_train.config import RuntimeConfig
from rmas_train.errors import ConfigError
from rmas_train.runtime.engines import Engine
from rmas_train.runtime.parent import follow_launcher
from rmas_train.runtime.placement import assign_devices, shard
from rmas_train.runtime.zero import ZeroEngine, require_deepspeed, zero_options
from rmas_train.support.reading import check_launched

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
        tasks = env.get(name, "").strip()
        if tasks.isdigit() and int(tasks) > 1:
            raise ConfigError(
                f"{launcher} started {tasks} tasks that do not know of each other; start one "
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


class Runtime:
    """One process's view of all processes.

    Args:
        config: back end, placement, device, expected number of processes, threads.

    Raises:
        ConfigError: the running processes differ from the config.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        check_launched()
        self.backend = settle_backend(config)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            follow_launcher()
        self.placement = config.placement
        self._accelerator = _accelerator(config, self.backend)
        self._check()

    @property
    def rank(self) -> int:
        return self._accelerator.process_index

    @property
    def world(self) -> int:
        return self._accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self._accelerator.is_main_process

    @property
    def device(self) -> torch.device:
        return self._accelerator.device

    def describe(self) -> str:
        """What runs where, on one line; every rank must call this."""
        where = self.gather([f"rank {self.rank}: {os.uname().nodename} {self.device}"])
        threads = f"{torch.get_num_threads()} CPU thread(s) each"
        return (
            f"{self.world} process(es), backend {self.backend}, placement {self.placement}, "
            f"{threads}; {', '.join(where)}"
        )

    @property
    def in_step(self) -> bool:
        """Whether all ranks must run the same number of forward passes (each one communicates)."""
        return self.placement == "sharded" or self.backend == "zero3"

    def wrap(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> Engine:
        """Module and optimizer, wrapped for the back end.

        Args:
            module: registers the trained links.
            optimizer: AdamW, one parameter group per link.
        """
        if self.backend.startswith("zero"):
            stage = int(self.backend[-1])
            prepare = self._accelerator.prepare
            engine: Engine = ZeroEngine(module, optimizer, self.world, prepare, stage)
        else:
            engine = Engine(module, optimizer, self.world)
        wrong = [n for n, p in module.named_parameters() if p.dtype == torch.bfloat16]
        assert not wrong, f"the back end has cast links to bfloat16: {wrong[:3]}"
        return engine

    def sum(self, value: Tensor) -> Tensor:
        """Sum over ranks; the same on all of them."""
        return self._accelerator.reduce(value.to(self.device), reduction="sum")

    def gather(self, items: list[Any]) -> list[Any]:
        """All ranks' items in one list, in the order of the ranks."""
        return gather_object(items) if self.world > 1 else items

    def gather_dict(self, items: Mapping[str, Any]) -> dict[str, Any]:
        """All ranks' items in one dictionary."""
        return dict(self.gather(list(items.items())))

    def broadcast(self, item: Any) -> Any:
        """Rank 0's item on every rank."""
        return broadcast_object_list([item])[0] if self.world > 1 else item

    def agree(self, yes: bool) -> bool:
        """Whether all ranks say yes; ranks that are not ``in_step`` decide alone."""
        if not self.in_step or self.world == 1:
            return yes
        return bool(self.sum(torch.tensor(float(not yes))).item() == 0)

    def agent_devices(self, names: Sequence[str]) -> dict[str, torch.device]:
        """Device of each agent in this process, by ``placement``."""
        if self.placement == "per_agent":
            return assign_devices(names, self.device)
        return dict.fromkeys(names, self.device)

    def shard(self, layers: Sequence[nn.Module]) -> None:
        """Shard layers over all processes."""
        shard(layers, self.device, self.world)

    def barrier(self) -> None:
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        self._accelerator.end_training()

    def _check(self) -> None:
        """Refuse processes that would each train alone, as some launchers start them."""
        kinds = {"single": ("NO",), "ddp": ("MULTI_CPU", "MULTI_GPU")}
        kind, launched = self._accelerator.distributed_type.value, os.environ.get("WORLD_SIZE", "1")
        wanted = kinds.get(self.backend, ("DEEPSPEED",)) if int(launched) > 1 else (kind,)
        if self.world != int(launched) or kind not in wanted:
            raise ConfigError(
                f"runtime.backend={self.backend} with {launched} process(es) became {kind} with "
                f"{self.world}; start them with torchrun --nproc-per-node {launched} "
                "-m rmas_train ... and without an accelerate configuration of your own."
            )


def _accelerator(config: RuntimeConfig, backend: str) -> Accelerator:
    """Accelerate with every setting given here; its environment variables have no effect.

    Raises:
        ConfigError: a GPU was asked for and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        built = f"it was built for {torch.version.cuda}" if torch.version.cuda else "CPU build"
        raise ConfigError(
            f"runtime.device=cuda: PyTorch sees no GPU here ({built}); check nvidia-smi, "
            "CUDA_VISIBLE_DEVICES and the installed torch, or set runtime.device=auto or cpu."
        )
    has_gpu = config.device != "cpu" and torch.cuda.is_available()
    group: dict[str, Any] = {"timeout": timedelta(minutes=config.timeout_minutes)}
    if not backend.startswith("zero"):
        return Accelerator(
            cpu=not has_gpu,
            mixed_precision="no",
            kwargs_handlers=[InitProcessGroupKwargs(**group)],
        )
    require_deepspeed()
    if not has_gpu:
        if torch.cuda.is_available():
            raise ConfigError(
                f"runtime.device=cpu with runtime.backend={backend}: DeepSpeed takes the GPUs of "
                "this machine; hide them with CUDA_VISIBLE_DEVICES=''."
            )
        # With cpu=True Accelerate would use plain DDP without a warning.
        group["backend"] = "gloo"
    accelerator = Accelerator(
        mixed_precision="no",
        deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=zero_options(int(backend[-1]))),
        kwargs_handlers=[InitProcessGroupKwargs(**group)],
    )
    unset_hf_deepspeed_config()  # else ZeRO-3 would shard the agents while they are loaded
    return accelerator
