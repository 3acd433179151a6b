"""The world that a run lives in: its processes, its device, and what crosses between ranks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, gather_object
from torch import Tensor, nn

from rmas_train.config import RuntimeConfig
from rmas_train.errors import ConfigError


class Runtime:
    """One process's view of all processes.

    Args:
        config: device, expected number of processes, threads.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        use_cpu = config.device == "cpu" or not torch.cuda.is_available()
        # Depth varies from step to step, so a link may get no gradient in one of them.
        ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
        self._accelerator = Accelerator(cpu=use_cpu, kwargs_handlers=[ddp])
        self._check_world(config)

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
        kind = self._accelerator.distributed_type.value if self.world > 1 else "no launcher"
        return f"{self.world} process(es), {kind}, {self.device}"

    def wrap(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """Module and optimizer as the back end wants them."""
        return self._accelerator.prepare(module, optimizer)

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    @contextlib.contextmanager
    def micro_batch(self, module: nn.Module, is_last: bool) -> Iterator[None]:
        """Gradients are reduced over ranks in the last micro-batch of a step only."""
        with contextlib.nullcontext() if is_last else self._accelerator.no_sync(module):
            yield

    def sum(self, value: Tensor) -> Tensor:
        """Sum over ranks; the same on all of them."""
        return self._accelerator.reduce(value.to(self.device), reduction="sum")

    def gather(self, items: list[Any]) -> list[Any]:
        """All ranks' items in one list, in the order of the ranks."""
        return gather_object(items) if self.world > 1 else items

    def broadcast(self, item: Any) -> Any:
        """Rank 0's item on every rank."""
        return broadcast_object_list([item])[0] if self.world > 1 else item

    def barrier(self) -> None:
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        self._accelerator.end_training()

    def _check_world(self, config: RuntimeConfig) -> None:
        """Some launchers start two processes that train as two; platform notes in docs."""
        wanted = config.processes or int(os.environ.get("WORLD_SIZE", "1"))
        if wanted != self.world:
            raise ConfigError(
                f"{wanted} processes were asked for, but this run has {self.world}; start it with "
                f"torchrun --nproc-per-node {wanted} -m rmas_train ..."
            )
