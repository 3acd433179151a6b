"""Where agents are: whole in every process, one per device, or sharded over all processes."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from rmas_train.errors import ConfigError


def assign_devices(names: Sequence[str], main: torch.device) -> dict[str, torch.device]:
    """``per_agent``: agent -> device of this process.

    With n processes on a machine, process k has the devices k, k + n, k + 2n, ... Its agents take
    them in this order. With fewer devices than agents, the order is repeated.

    Raises:
        ConfigError: each process has one device only.
    """
    if main.type != "cuda":
        return dict.fromkeys(names, main)
    local, index = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), main.index or 0
    own = list(range(index, torch.cuda.device_count(), local))
    if len(own) < 2:
        raise ConfigError(
            f"runtime.placement=per_agent: {local} process(es) share {torch.cuda.device_count()} "
            "GPU(s), so none has two; start fewer processes, or use runtime.placement=replicate."
        )
    return {n: torch.device("cuda", own[i % len(own)]) for i, n in enumerate(names)}


def shard(layers: Sequence[nn.Module], device: torch.device, world: int) -> None:
    """``sharded``: spread each layer's weights over all processes; whole only while it runs.

    Only layers are sharded. Embeddings are used outside the forward pass of a sharded module.
    """
    mesh = init_device_mesh(device.type, (world,))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
