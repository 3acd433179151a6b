"""DeepSpeed's ZeRO for the links: shards optimizer state (1), gradients (2), parameters (3).

DeepSpeed's own checkpoints are pickles. Ours are written from tensors that ``deepspeed.utils``
gathers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rmas_train.errors import ConfigError
from rmas_train.runtime.engines import MOMENTS, Engine


def zero_options(stage: int) -> dict[str, Any]:
    """DeepSpeed's configuration. The training loop does precision, clipping and accumulation."""
    return {
        "train_micro_batch_size_per_gpu": 1,  # not used: the loop passes rows itself
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
        "steps_per_print": 2**31,
    }


def require_deepspeed() -> None:
    """Check that DeepSpeed can be imported; reduce its log, and use the CPU without a GPU.

    Raises:
        ConfigError: it is not installed.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        from deepspeed.utils import logger
    except ImportError as error:
        raise ConfigError(
            "runtime.backend=zero1, zero2 and zero3 need DeepSpeed, which is not installed; "
            "pip install 'rmas_train[deepspeed]', or use runtime=ddp."
        ) from error
    logger.setLevel("WARNING")


class ZeroEngine(Engine):
    """The engine under ZeRO.

    Args:
        module, optimizer, world: see ``Engine``.
        prepare: Accelerate's function that makes DeepSpeed's engine.
        stage: 1, 2 or 3.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        world: int,
        prepare: Any,
        stage: int,
    ) -> None:
        self._prepare, self._stage = prepare, stage
        self._held: dict[nn.Parameter, Tensor] = {}
        self._is_last = True
        self._touched: set[nn.Parameter] = set()
        super().__init__(module, optimizer, world)
        self._link_moments()
        for _, p in self._trained():
            p.register_hook(lambda _, p=p: self._touched.add(p))

    def _wrap(self) -> Any:
        self._engine, _ = self._prepare(self.plain, self.optimizer)
        self._zero = self._engine.optimizer
        return self._engine if self._stage == 3 else self.plain

    @contextlib.contextmanager
    def micro_batch(self, is_last: bool) -> Iterator[None]:
        if not is_last and self._stage == 3:
            raise ConfigError(
                "runtime.backend=zero3 takes a step's rows in one micro-batch; set "
                "training.<stage>.micro_batch_size=null, or use runtime=zero2."
            )
        self._is_last = is_last
        yield

    def backward(self, loss: Tensor) -> None:
        """ZeRO-1 and 2: gradients are kept here and passed on with the last micro-batch.

        ZeRO-2 reduces each gradient when it is computed. In the inner stage ranks train different
        agents, so this order differs between ranks, and DeepSpeed would add gradients of different
        links.
        """
        loss = loss * self._world
        if self._stage < 3:
            self._hold(loss)
            if not self._is_last:
                return
            loss = torch.stack([(p * grad).sum() for p, grad in self._held.items()]).sum()
            self._held = {}
        self._engine.backward(loss, scale_wrt_gas=False)

    def _hold(self, loss: Tensor) -> None:
        parameters = [p for _, p in self._trained()]
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, grad in zip(parameters, found, strict=True):
            if grad is not None:
                before = self._held.get(parameter)
                self._held[parameter] = grad if before is None else before + grad

    def step(self) -> None:
        self._engine.step()
        self._touched = set()

    def gradient(self, parameter: nn.Parameter) -> Tensor | None:
        from deepspeed.utils import safe_get_full_grad

        if parameter not in self._touched:  # ZeRO-3 would return the gradient of an earlier step
            return None
        grad: Tensor | None = safe_get_full_grad(parameter)
        return grad

    def parameters(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        values = super().parameters()
        for name, p in self._trained():
            values[name] = safe_get_full_fp32_param(p).detach().clone()
        return values

    def load_parameters(self, values: Mapping[str, Tensor]) -> None:
        from deepspeed import zero
        from deepspeed.utils import safe_set_full_fp32_param

        for name, p in self._trained():
            value = values[name].to(p.device)
            safe_set_full_fp32_param(p, value)
            with zero.GatheredParameters([p], modifier_rank=0, enabled=self._stage == 3):
                p.data.copy_(value)
        frozen = {k: v for k, v in values.items() if k not in dict(self._trained())}
        self.plain.load_state_dict(frozen, strict=False)

    def moments(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_optimizer_state as get

        return {f"{n}.{m}": get(p, m).clone() for n, p in self._trained() for m in MOMENTS}

    def load_moments(self, values: Mapping[str, Tensor]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state as put

        for name, p in self._trained():
            for moment in MOMENTS:
                put(p, values[f"{name}.{moment}"].to(p.device), moment)

    def close(self) -> None:
        values = self.parameters()
        self._engine.destroy()
        if self._stage == 3:
            for name, p in self._trained():
                p.data = values[name].to(p.device)

    def _leaves(self) -> list[tuple[str, Tensor]]:
        names = [group["name"] for group in self.optimizer.param_groups]
        if self._stage < 3:
            return list(zip(names, self._zero.single_partition_of_fp32_groups, strict=True))
        flat, of = self._zero.fp32_partitioned_groups_flat, self._zero.sub_group_to_group_id
        return [(names[of[i]], part) for i, part in enumerate(flat)]

    def _link_moments(self) -> None:
        """Register the moments now: ZeRO-1 and 2 would do it only after their first step."""
        if self._stage < 3:
            from deepspeed.utils import lazy_init_hp_params_optimizer_state as link

            parts = self._zero.single_partition_of_fp32_groups
            for params, part in zip(self._zero.bit16_groups, parts, strict=True):
                link(params, part, self.optimizer.state)
