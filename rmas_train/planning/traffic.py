"""Bytes that pass between n devices in one optimizer step; arithmetic on shapes.

Two placements: agents replicated, where only gradients of trained links are reduced, and agents
sharded, where each decoder layer is also gathered from all devices for its forwards and backwards
(FSDP2 with a unit per layer; nothing of an agent is reduced, as agents are frozen).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rmas_train.agents.agent import decoder_layers


@dataclass(frozen=True)
class Sizes:
    """An agent's weights as a device sees them.

    Attributes:
        layers: per decoder layer and tensor: length of its first dimension, and the bytes of one
            slice of that dimension.
        rest: bytes of embeddings, final norm and head, which stay whole on every device.
    """

    layers: Sequence[Sequence[tuple[int, int]]]
    rest: int

    def shard(self, devices: int) -> int:
        """Bytes of the layers on each device."""
        return sum(padded_shard(layer, devices) for layer in self.layers)


def sizes_of(model: Any) -> Sizes:
    """Sizes of a causal LM, with or without data in it."""
    stack = decoder_layers(model)
    layers = [[_rows(p) for p in layer.parameters()] for layer in stack]
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    return Sizes(layers, total - sum(p.numel() * p.element_size() for p in stack.parameters()))


def _rows(tensor: Tensor) -> tuple[int, int]:
    length = tensor.shape[0]
    return length, tensor.numel() // length * tensor.element_size()


def padded_shard(tensors: Sequence[tuple[int, int]], devices: int) -> int:
    """Bytes of one device's part of these tensors, as FSDP2 cuts them.

    Each is cut along its first dimension into equal parts; where that does not come out even the
    parts of the last devices are padded, and the padding is kept and sent like weights.
    """
    return sum(-(-length // devices) * slice_bytes for length, slice_bytes in tensors)


def all_reduce_sent(size: int, devices: int) -> float:
    """Bytes that each device sends, and receives, to sum ``size`` bytes over all devices.

    A ring reduce-scatter and a ring all-gather, (n - 1) / n of the bytes each. ZeRO-1 and 2 do the
    same two, the second with updated weights in place of gradients.
    """
    return 2 * (devices - 1) * size / devices


@dataclass(frozen=True)
class Communication:
    """What each of n devices holds and moves in one optimizer step; bytes.

    Attributes:
        gradients_sent: for the gradients of the trained links, in either placement.
        sharded_weights: of agents, where their layers are sharded.
        sharded_gathers: all-gathers of a layer, where they are sharded.
        sharded_received: in these all-gathers; as much is sent.
    """

    gradients_sent: float
    sharded_weights: int
    sharded_gathers: int
    sharded_received: int


def communication(
    agents: Mapping[str, Sizes],
    gathers: Mapping[str, int],
    gradients: int,
    micro_batches: int,
    devices: int,
) -> Communication:
    """Volumes of a step.

    Args:
        agents: by name.
        gathers: agent -> how often each of its layers is gathered in a micro-batch.
        gradients: bytes, reduced once a step.
        micro_batches: of one device, each of which gathers anew.
        devices: n.
    """
    shards = {name: sizes.shard(devices) for name, sizes in agents.items()}
    uses = {name: micro_batches * gathers[name] for name in agents} if devices > 1 else {}
    return Communication(
        all_reduce_sent(gradients, devices),
        sum(shards[name] + sizes.rest for name, sizes in agents.items()),
        sum(times * len(agents[name].layers) for name, times in uses.items()),
        sum(times * (devices - 1) * shards[name] for name, times in uses.items()),
    )
