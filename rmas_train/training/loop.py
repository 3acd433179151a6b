"""One training loop for both stages.

A stage hands in an objective; the loop knows steps, micro-batches, ranks, clipping and schedules.
Losses are sums of terms; each term is divided once by its global count, known before the first
backward of the step, so that the result depends neither on micro-batches nor on ranks.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor
from transformers import get_cosine_schedule_with_warmup

from rmas_train.config import TrainingConfig
from rmas_train.data.sampling import Sampler, share
from rmas_train.errors import (
    ConfigError,
    DeadLinkError,
    NonFiniteError,
    OutOfMemoryError,
    StoppedError,
)
from rmas_train.objectives.base import Objective
from rmas_train.runtime.engines import Engine
from rmas_train.runtime.runtime import Runtime
from rmas_train.training.callbacks import AfterStep, Callback, Step, Update
from rmas_train.training.optimizer import LinkAdamW, clip_factors, gradient_norms
from rmas_train.training.saver import Saver

SIGNS = ("can't allocate memory", "bad_alloc")  # plain RuntimeErrors of the CPU's allocators
KNOBS = (
    "lower training.<stage>.micro_batch_size (same result), set training.outer.recompute=agent "
    "(same result, slower), lower training.outer.prefix_cache_gib, latent_length or rounds, load "
    "agents with dtype=bfloat16, or spread them with runtime.placement=per_agent or sharded; "
    "stage=plan says what fits"
)


@contextmanager
def explained_memory() -> Iterator[None]:
    """What the allocators raise becomes one line that names the options to change.

    Raises:
        OutOfMemoryError: in place of theirs.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).strip()
        is_ours = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not is_ours and not any(sign in text for sign in SIGNS):
            raise
        reason = text.splitlines()[0].rstrip(".")[:160] if text else "MemoryError"
        raise OutOfMemoryError(f"out of memory ({reason}); {KNOBS}.") from error


SIGNALS = (signal.SIGTERM, signal.SIGINT)
ONE_PRESS = 2.0  # seconds: a launcher passes on the signal that the terminal sent already


class StopSignals(AbstractContextManager["StopSignals"]):
    """Catches the signals while a loop runs.

    Args:
        catch: False: leave the signal handlers as they are.

    Attributes:
        received: the first signal's number; 0: none.
    """

    def __init__(self, catch: bool = True) -> None:
        self._catches = catch and threading.current_thread() is threading.main_thread()
        self.received = 0
        self._when = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if self._catches:
            self._before = {number: signal.signal(number, self._catch) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _catch(self, number: int, _: FrameType | None) -> None:
        if not self.received:
            self.received, self._when = number, time.monotonic()
        elif time.monotonic() - self._when > ONE_PRESS:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def train(
    objective: Objective,
    sampler: Sampler,
    config: TrainingConfig,
    runtime: Runtime,
    callbacks: Sequence[Callback | Callable[[Step], None]],
    saver: Saver | None = None,
    share_of: tuple[int, int] | None = None,
) -> None:
    """Run all optimizer steps that are left.

    Args:
        objective, sampler, config, runtime: what, which rows, how, where.
        callbacks: told of each step, before and after its update; a plain function after it.
        saver: writes checkpoints, and says where to begin; None: nothing is saved.
        share_of: (parts, part) of each step's rows for this rank; None: by the number of ranks.

    Raises:
        NonFiniteError: a loss or gradient is NaN or infinite; raised before the update.
        DeadLinkError: no link at all reaches the loss (the watch finds single dead links).
        OutOfMemoryError: a step does not fit.
        StoppedError: by a signal, at a step's boundary, after saving.
    """
    groups = objective.groups()
    if not groups:
        raise DeadLinkError(
            "no link can be reached by a gradient from the decoder's answer; check "
            "topology.decoder, topology.edges and rounds."
        )
    told = [c if isinstance(c, Callback) else AfterStep(c) for c in callbacks]
    optimizer = LinkAdamW(groups, config)
    schedule = get_cosine_schedule_with_warmup(optimizer, config.warmup_steps, config.steps)
    share_of = share_of or (runtime.world, runtime.rank)
    engine = runtime.wrap(objective, optimizer)
    begin = saver.restore(engine, schedule, told) if saver else 0
    with StopSignals(catch=saver is not None) as signals:
        for step in range(begin, config.steps):
            if saver:
                _save_or_stop(step, signals, saver, runtime, (engine, schedule, told))
            began = time.perf_counter()
            objective.step = step
            rows, rounds = sampler.rows(step), sampler.depths[step]
            with explained_memory():
                micro = micro_batches(rows, config, runtime.world, share_of)
                loss, tokens = _accumulate(objective, engine, micro, rounds, runtime)
            norms = gradient_norms(groups, engine.gradient)
            lr = schedule.get_last_lr()[0]
            _check_finite(Step(step, rounds, loss, lr, norms, 0.0), rows)
            update = Update(step, rounds, loss, lr, norms, groups, engine.gradient)
            for callback in told:
                callback.before_update(update)
            optimizer.set_factors(clip_factors(norms, config.clip_norm, config.clip_scope))
            engine.step()
            schedule.step()
            record = Step(step, rounds, loss, lr, norms, time.perf_counter() - began, tokens)
            for callback in told:
                callback(record)
        if saver:
            _save_or_stop(config.steps, signals, saver, runtime, (engine, schedule, told))
    engine.close()


def _save_or_stop(
    step: int, signals: StopSignals, saver: Saver, runtime: Runtime, state: tuple[Any, ...]
) -> None:
    """Before ``step``: if one rank got a signal, all ranks save and stop."""
    due = runtime.is_main and saver.is_due(step)
    told = [float(signals.received == number) for number in SIGNALS]
    due_, *stops = runtime.sum(torch.tensor([float(due), *told])).tolist()
    if due_ or any(stops):
        saver.save(step, *state)
    for number, count in zip(SIGNALS, stops, strict=True):
        if count:
            raise StoppedError(
                f"stopped by {number.name} before step {step}; checkpoint: {saver.where()}. "
                "Go on with the same command and resume=auto.",
                number,
            )


def _accumulate(
    objective: Objective,
    engine: Engine,
    micro: list[list[int]],
    rounds: int,
    runtime: Runtime,
) -> tuple[float, int]:
    """Forward and backward of every micro-batch; the loss and its tokens, over all ranks."""
    counts_K = runtime.sum(torch.stack([objective.count(rows) for rows in micro]).sum(0))
    total_K = torch.zeros_like(counts_K, dtype=torch.float32)
    for i, rows in enumerate(micro):
        with engine.micro_batch(is_last=i + 1 == len(micro)):
            sums_K = engine.module(rows, rounds)
            _check_terms(objective, sums_K, counts_K)
            if not sums_K.requires_grad:
                raise DeadLinkError(
                    f"no trainable link reaches the loss at rounds={rounds} (trainable: "
                    f"{', '.join(objective.groups())}); the graph is cut before all of them."
                )
            engine.backward((sums_K / counts_K.clamp_min(1)).sum())
        total_K += sums_K.detach()
    loss = (runtime.sum(total_K) / counts_K.clamp_min(1)).sum().item()
    return loss, int(counts_K.sum().item())


def _check_terms(objective: Objective, sums_K: Any, counts_K: Tensor) -> None:
    """``forward`` and ``count`` speak of the same terms.

    Raises:
        ConfigError: they do not; names the objective.
    """
    shape = tuple(sums_K.shape) if isinstance(sums_K, Tensor) else type(sums_K).__name__
    if shape != tuple(counts_K.shape) or counts_K.ndim != 1:
        raise ConfigError(
            f"objective {type(objective).__name__}: forward gives {shape}, count "
            f"{tuple(counts_K.shape)}; both have to give one number per term, (K,)."
        )


def micro_batches(
    rows: list[int], config: TrainingConfig, world: int, share_of: tuple[int, int]
) -> list[list[int]]:
    """This rank's rows of a step, cut into micro-batches; equally many on every rank."""
    parts, part = share_of
    if len(rows) < parts:
        raise ConfigError(
            f"training.<stage>.batch_size={len(rows)} is less than one row per process "
            f"({parts}); raise it or start fewer processes."
        )
    mine = share(rows, parts, part)
    # Of the inner stage's ranks, one may have all rows, another a share: as many as any can need.
    largest = len(rows) if parts != world else -(-len(rows) // parts)
    count = -(-largest // (config.micro_batch_size or largest))
    if parts == world and count > len(mine):
        raise ConfigError(
            f"training.<stage>.batch_size={len(rows)} over {world} processes leaves a "
            f"process with fewer rows than {count} micro-batches; make batch_size a multiple of "
            "the number of processes."
        )
    return [share(mine, count, i) for i in range(count)]


def _check_finite(step: Step, rows: list[int]) -> None:
    bad = {k: v for k, v in step.gradient_norms.items() if not v < float("inf")}
    if bad or not abs(step.loss) < float("inf"):
        raise NonFiniteError(
            f"step {step.step}: loss {step.loss}, gradient norms {bad or step.gradient_norms}; "
            "nothing was updated with them. Lower training.<stage>.lr, or check the agents' dtype.",
            asdict(step) | {"rows": rows},
        )
