"""What an agent has read so far: its KV cache, on top of a frozen prefix or empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from rmas_train.agents.agent import Agent
from rmas_train.engine.attention import blocks_for
from rmas_train.engine.cache_layers import BlockLayer, BufferLayer, RecurrentLayer, State
from rmas_train.engine.sequences import Batch
from rmas_train.engine.visibility import Span, Visibility
from rmas_train.errors import AgentError


@dataclass(frozen=True)
class Prefix:
    """Per layer the state after a prompt's beginning; depends on no link, carries no graph."""

    span: Span
    states: list[State]

    @property
    def bytes(self) -> int:
        return sum(x.numel() * x.element_size() for state in self.states for x in state)

    def rows(self, index: Tensor) -> Prefix:
        """These rows only."""
        states = [(first[index], second[index]) for first, second in self.states]
        return Prefix(self.span.rows(index), states)


class KVCache:
    """A KV cache that grows by ``read``.

    Args:
        agent: who reads.
        prefix: what it has read already.
        room: without a graph only: keys and values stand in one buffer with room for so many
            positions after the first ``read``; faster, equal to the blocks to rounding.
    """

    def __init__(self, agent: Agent, prefix: Prefix | None = None, room: int | None = None) -> None:
        assert room is None or not torch.is_grad_enabled(), "a buffer is written in place"
        self._agent = agent
        blocks = 2 if prefix is None else 3
        self._visibility = Visibility(
            prefix.span if prefix else None, blocks if room is None else 1
        )
        self._layers: list[BlockLayer | RecurrentLayer] = [
            RecurrentLayer() if kind == "linear_attention" else _block_layer(self._visibility, room)
            for kind in layer_kinds(agent)
        ]
        if prefix is not None:
            for layer, state in zip(self._layers, prefix.states, strict=True):
                layer.set_state(state)
        self._cache = Cache(layers=list(self._layers))

    def read(self, batch: Batch) -> Tensor:
        """Hidden states of these positions after the final norm, (B, L, D)."""
        self._visibility.append(Span(batch.positions, batch.real, batch.full))
        real = None if batch.full else batch.real  # else recurrent layers ask the device each time
        with blocks_for(self._agent.model):
            return self._agent.hidden(batch.embeds, batch.positions, real, self._cache)

    def state(self) -> Prefix:
        """What was read, as a prefix for other calls; after one ``read`` only."""
        (span,) = self._visibility.spans
        return Prefix(span, [layer.state() for layer in self._layers])

    def keep(self, index: Tensor) -> None:
        """Go on with these rows only."""
        self._visibility.spans = [span.rows(index) for span in self._visibility.spans]
        for layer in self._layers:
            layer.keep(index)

    def cut(self) -> None:
        """No gradient into the latent steps read so far; the prompt's keys keep theirs."""
        if self._visibility.is_filled:
            for layer in self._layers:
                layer.cut()


class LibraryCache:
    """The library's own cache; for agents that cannot attend to blocks. Starts empty."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._cache: Any = DynamicCache(config=agent.model.config)
        for i, kind in enumerate(layer_kinds(agent)):
            if kind == "linear_attention":
                self._cache.layers[i] = RecurrentLayer()
        self._real: Tensor | None = None

    def read(self, batch: Batch) -> Tensor:
        seen = self._real
        self._real = batch.real if seen is None else torch.cat([seen, batch.real], dim=1)
        return self._agent.hidden(batch.embeds, batch.positions, self._real, self._cache)

    def keep(self, index: Tensor) -> None:
        assert self._real is not None
        self._real = self._real[index]
        for layer in self._cache.layers:
            if isinstance(layer, RecurrentLayer):
                layer.keep(index)
            else:
                layer.batch_select_indices(index)

    def cut(self) -> None:
        raise AgentError(
            f"agent {self._agent.name} cannot cut its cache into windows (its family does not "
            "attend to blocks); use training.outer.gradient=full or parallel."
        )


def new_cache(
    agent: Agent, prefix: Prefix | None = None, room: int | None = None
) -> KVCache | LibraryCache:
    return KVCache(agent, prefix, room) if agent.attends_to_blocks else LibraryCache(agent)


def _block_layer(visibility: Visibility, room: int | None) -> BlockLayer:
    return BlockLayer(visibility) if room is None else BufferLayer(visibility, room)


def layer_kinds(agent: Agent) -> Sequence[str]:
    config = agent.model.config
    kinds: Sequence[str] | None = getattr(config, "layer_types", None)
    return kinds or ["full_attention"] * config.num_hidden_layers


def is_recurrent(agent: Agent) -> bool:
    """Padding may stand before everything else only: between tokens it would change the states."""
    return "linear_attention" in layer_kinds(agent)
