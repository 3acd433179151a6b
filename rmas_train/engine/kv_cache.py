"""What an agent has read so far: its KV cache, on top of a frozen prefix or empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, LinearAttentionLayer

from rmas_train.agents.agent import Agent
from rmas_train.engine.attention import Blocks, Span, Visibility, blocks_for
from rmas_train.engine.inputs import Batch
from rmas_train.errors import AgentError

State = tuple[Tensor, Tensor]  # keys and values, or convolution and recurrent state


class BlockLayer(DynamicLayer):
    """Keys and values of one attention layer: prefix, rest of the prompt, everything later."""

    def __init__(self, visibility: Visibility) -> None:
        super().__init__()
        self._visibility = visibility
        self._pairs: list[State] = []

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        keys, values = key_states, value_states
        if len(self._pairs) < len(self._visibility.spans):
            self._pairs.append((keys, values))
        else:
            old_keys, old_values = self._pairs[-1]
            self._pairs[-1] = (
                torch.cat([old_keys, keys], dim=-2),
                torch.cat([old_values, values], dim=-2),
            )
        blocks = Blocks(list(self._pairs), self._visibility)
        return blocks, blocks

    def set_state(self, state: State) -> None:
        self._pairs = [state]

    def state(self) -> State:
        (pair,) = self._pairs
        return pair

    def keep(self, index: Tensor) -> None:
        self._pairs = [(k[index], v[index]) for k, v in self._pairs]

    def cut(self) -> None:
        keys, values = self._pairs[-1]
        self._pairs[-1] = (keys.detach(), values.detach())


class BufferLayer(BlockLayer):
    """The same in one buffer that is written in place."""

    def __init__(self, visibility: Visibility, room: int) -> None:
        super().__init__(visibility)
        self._room = room
        self._buffers: State | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        past = self._pairs[0][0].shape[-2] if self._pairs else 0
        used = past + key_states.shape[-2]
        if self._buffers is None:
            self._buffers = self._new(key_states, used), self._new(value_states, used)
            if past:
                for buffer, old in zip(self._buffers, self._pairs[0], strict=True):
                    buffer[:, :, :past] = old
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, past:used] = new
        keys, values = self._buffers
        self._pairs = [(keys[:, :, :used], values[:, :, :used])]
        blocks = Blocks(self._pairs, self._visibility)
        return blocks, blocks

    def keep(self, index: Tensor) -> None:
        assert self._buffers is not None
        used = self._pairs[0][0].shape[-2]
        keys, values = self._buffers[0][index], self._buffers[1][index]
        self._buffers = keys, values
        self._pairs = [(keys[:, :, :used], values[:, :, :used])]

    def _new(self, like: Tensor, used: int) -> Tensor:
        rows, heads, _, width = like.shape
        return like.new_empty(rows, heads, used + self._room, width)


class RecurrentLayer(LinearAttentionLayer):
    """States of one linear-attention layer, replaced instead of overwritten.

    ``record_past`` makes the model take the branch that hands us its convolution inputs; the other
    one writes into the state in place. The library then keeps all of them, we the last few.
    """

    def __init__(self) -> None:
        super().__init__()
        self.record_past = True

    def update_conv_state(
        self,
        conv_states: Tensor,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
        **_: Any,
    ) -> Tensor:
        assert conv_kernel_size is not None
        old = self.conv_states[state_idx] if self.has_previous_state[state_idx] else None
        if old is None:
            shape = (*conv_states.shape[:-1], conv_kernel_size)
            old = conv_states.new_zeros(shape)
        full = torch.cat([old, conv_states], dim=-1)
        self.conv_states[state_idx] = full[..., -conv_kernel_size:]
        self.has_previous_state[state_idx] = True
        return full

    def update_recurrent_state(
        self, recurrent_states: Tensor, state_idx: int = 0, **_: Any
    ) -> Tensor:
        self.recurrent_states[state_idx] = recurrent_states
        return recurrent_states

    def set_state(self, state: State) -> None:
        self.conv_states[0], self.recurrent_states[0] = state
        self.has_previous_state[0] = True

    def state(self) -> State:
        conv, recurrent = self.conv_states[0], self.recurrent_states[0]
        assert conv is not None and recurrent is not None
        return conv, recurrent

    def keep(self, index: Tensor) -> None:
        conv, recurrent = self.state()
        self.conv_states[0], self.recurrent_states[0] = conv[index], recurrent[index]

    def cut(self) -> None:
        """Nothing to cut: the state holds the prompt too."""


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
