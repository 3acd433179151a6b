"""One training loop for both stages.

A stage hands in an objective; the loop knows steps, micro-batches, ranks, clipping and schedules.
Losses are sums of terms; each term is divided once by its global count, known before the first
backward of the step, so that the result depends neither on micro-batches nor on ranks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import get_cosine_schedule_with_warmup

from rmas_train.config import TrainingConfig
from rmas_train.data.sampling import Sampler, share
from rmas_train.errors import ConfigError, DeadLinkError, NonFiniteError
from rmas_train.runtime.runtime import Runtime
from rmas_train.training.gradients import clip_gradients, gradient_norms


class Objective(Protocol):
    """What a stage optimises. ``K`` terms: one for outer, one per agent for inner.

    It is an ``nn.Module`` that registers the links and nothing else.
    """

    def count(self, rows: Sequence[int]) -> Tensor:
        """Valid tokens of each term over these rows, (K,), without running a model."""
        ...

    def __call__(self, rows: Sequence[int], rounds: int) -> Tensor:
        """Sum of losses over valid tokens of each term, (K,), with a graph."""
        ...

    def groups(self) -> dict[str, nn.Module]:
        """Trainable links by name: units of clipping and of gradient norms."""
        ...


@dataclass(frozen=True)
class Step:
    """What one optimizer step leaves behind.

    Attributes:
        loss: sum of the terms' means.
        gradient_norms: per link, before clipping; 0 where no gradient arrived.
    """

    step: int
    rounds: int
    loss: float
    lr: float
    gradient_norms: dict[str, float]
    seconds: float


Callback = Callable[[Step], None]


def train(
    objective: Objective,
    sampler: Sampler,
    config: TrainingConfig,
    runtime: Runtime,
    callbacks: Sequence[Callback],
) -> None:
    """Run all optimizer steps.

    Raises:
        NonFiniteError: a loss or gradient is NaN or infinite; raised before the update.
        DeadLinkError: no link at all reaches the loss (the watch finds single dead links).
    """
    assert isinstance(objective, nn.Module)
    groups = objective.groups()
    parameters = [p for link in groups.values() for p in link.parameters()]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, config.warmup_steps, config.steps)
    module, wrapped_optimizer = runtime.wrap(objective, optimizer)
    for step in range(config.steps):
        began = time.perf_counter()
        micro = micro_batches(sampler.rows(step), config, runtime)
        rounds, lr = sampler.depths[step], schedule.get_last_lr()[0]
        loss = _accumulate(objective, module, micro, rounds, runtime)
        norms = gradient_norms(groups)
        _check_finite(step, loss, norms)
        clip_gradients(groups, norms, config.clip_norm, config.clip_scope)
        wrapped_optimizer.step()
        wrapped_optimizer.zero_grad()
        schedule.step()
        record = Step(step, rounds, loss, lr, norms, time.perf_counter() - began)
        for callback in callbacks:
            callback(record)


def _accumulate(
    objective: Objective,
    module: nn.Module,
    micro: list[list[int]],
    rounds: int,
    runtime: Runtime,
) -> float:
    """Forward and backward of every micro-batch; the loss over all ranks."""
    counts_K = runtime.sum(torch.stack([objective.count(rows) for rows in micro]).sum(0))
    total_K = torch.zeros_like(counts_K, dtype=torch.float32)
    for i, rows in enumerate(micro):
        with runtime.micro_batch(module, is_last=i + 1 == len(micro)):
            sums_K = module(rows, rounds)
            if not sums_K.requires_grad:
                raise DeadLinkError(
                    f"no trainable link reaches the loss at rounds={rounds} (trainable: "
                    f"{', '.join(objective.groups())}); the graph is cut before all of them."
                )
            # DDP averages over ranks; the factor turns its mean back into the sum.
            runtime.backward((sums_K / counts_K.clamp_min(1)).sum() * runtime.world)
        total_K += sums_K.detach()
    return (runtime.sum(total_K) / counts_K.clamp_min(1)).sum().item()


def micro_batches(rows: list[int], config: TrainingConfig, runtime: Runtime) -> list[list[int]]:
    """This rank's rows of a step, cut into micro-batches; equally many on every rank."""
    if len(rows) < runtime.world:
        raise ConfigError(
            f"training.<stage>.batch_size={len(rows)} is less than one row per process "
            f"({runtime.world}); raise it or start fewer processes."
        )
    mine = share(rows, runtime.world, runtime.rank)
    largest = -(-len(rows) // runtime.world)
    parts = -(-largest // (config.micro_batch_size or largest))
    if parts > len(mine):
        raise ConfigError(
            f"training.<stage>.batch_size={len(rows)} over {runtime.world} processes leaves a "
            f"process with fewer rows than {parts} micro-batches; make batch_size a multiple of "
            "the number of processes."
        )
    return [share(mine, parts, part) for part in range(parts)]


def _check_finite(step: int, loss: float, norms: dict[str, float]) -> None:
    bad = {k: v for k, v in norms.items() if not v < float("inf")}
    if bad or not abs(loss) < float("inf"):
        raise NonFiniteError(
            f"step {step}: loss {loss}, gradient norms {bad or norms}; nothing was updated with "
            "them. Lower training.<stage>.lr, or check the agents' dtype."
        )
