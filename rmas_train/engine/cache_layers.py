"""One layer's part of a KV cache: keys and values in blocks, or the states of a recurrent layer.

Recurrent states are replaced and never written into, since backward needs the old ones and rows of
other calls share the prefix's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

from rmas_train.engine.attention import Blocks
from rmas_train.engine.visibility import Visibility

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
