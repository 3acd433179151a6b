"""Forward, backward and update of one module: in one process, under DDP, or under DeepSpeed's ZeRO.

Back ends may shard tensors. Each engine returns whole tensors: gradients, parameters and the
optimizer's state by parameter name. Checkpoints are written from these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

MOMENTS = ("exp_avg", "exp_avg_sq")


class Engine:
    """One process, or several under DDP.

    Args:
        module: registers the trained links; parameters without a gradient must be frozen.
        optimizer: Adam, with a state for each parameter.
        world: number of processes.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, world: int) -> None:
        self.optimizer = optimizer
        self.plain = module
        self._world = world
        self.module: Any = self._wrap()
        for _, leaf in self._leaves():
            self._state(leaf)

    def _wrap(self) -> Any:
        if self._world == 1:
            return self.plain
        return DistributedDataParallel(self.plain)

    @contextlib.contextmanager
    def micro_batch(self, is_last: bool) -> Iterator[None]:
        """Reduce gradients over ranks only in the last micro-batch of a step."""
        with contextlib.nullcontext() if is_last or self._world == 1 else self.module.no_sync():
            yield

    def backward(self, loss: Tensor) -> None:
        """Backward of this rank's part of a sum over ranks.

        DDP averages gradients over ranks; multiplying by the number of ranks undoes this.
        """
        if self._world > 1:
            loss = loss * self._world + self._anchor(loss.device)
        loss.backward()

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def gradient(self, parameter: nn.Parameter) -> Tensor | None:
        """The whole gradient, summed over ranks; every rank must call this."""
        return parameter.grad

    def parameters(self) -> dict[str, Tensor]:
        """Every parameter and buffer, whole."""
        return {k: v.detach() for k, v in self.plain.state_dict().items()}

    def load_parameters(self, values: Mapping[str, Tensor]) -> None:
        self.plain.load_state_dict(dict(values))

    def moments(self) -> dict[str, Tensor]:
        """``<parameter>.<moment>`` -> Adam's moments, whole."""
        state = self.optimizer.state
        return {f"{n}.{m}": state[p][m] for n, p in self._trained() for m in MOMENTS}

    def load_moments(self, values: Mapping[str, Tensor]) -> None:
        for name, p in self._trained():
            for moment in MOMENTS:
                self.optimizer.state[p][moment].copy_(values[f"{name}.{moment}"])

    def steps(self) -> dict[str, int]:
        """Link -> number of its updates."""
        return {name: int(self._state(leaf)["step"].item()) for name, leaf in self._leaves()}

    def load_steps(self, steps: Mapping[str, int]) -> None:
        for name, leaf in self._leaves():
            self._state(leaf)["step"].fill_(float(steps[name]))

    def _leaves(self) -> list[tuple[str, Tensor]]:
        """Link and tensor, for every tensor that the optimizer updates in this process."""
        groups = self.optimizer.param_groups
        return [(group["name"], p) for group in groups for p in group["params"]]

    def _state(self, leaf: Tensor) -> dict[str, Tensor]:
        """Adam's state of a leaf, created here so that it can be saved before the first step."""
        state: dict[str, Tensor] = self.optimizer.state[leaf]
        if not state:
            state["step"] = torch.zeros(())
            state |= {moment: torch.zeros_like(leaf) for moment in MOMENTS}
        return state

    def close(self) -> None:
        """End the engine; the module then holds whole parameters."""

    def _anchor(self, device: torch.device) -> Tensor:
        """Zero, computed from every parameter, because DDP waits for a gradient of each.

        A link has no gradient at a depth that does not reach it, and in the inner stage on ranks
        that train other agents. It also has none if its graph is cut; then the dead-link watch
        should report it, and DDP must not wait.
        """
        return torch.stack([(p.sum() * 0).to(device) for _, p in self._trained()]).sum()

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self.plain.named_parameters() if p.requires_grad]
