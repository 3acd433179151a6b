"""``training.outer.recompute: auto``: recompute agent calls where a step would not fit without."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from rmas_train.config import Config
from rmas_train.planning.plan import make_plan
from rmas_train.planning.rates import memory_of
from rmas_train.planning.token_counts import find_tokens
from rmas_train.support.output import say

GIB = 2**30
SAFE = 0.7  # share of a device's memory that a plan may fill: allocators keep some


def settle_recompute(config: Config, device: torch.device, world: int) -> Config:
    """The config with ``none`` or ``agent`` in place of ``auto``."""
    stage = config.training.outer
    if stage.recompute != "auto":
        return config
    planned = replace(config, agents={n: a.on(device.type) for n, a in config.agents.items()})
    rows = min(stage.micro_batch_size or stage.batch_size, -(-stage.batch_size // world))
    plan = make_plan(planned, find_tokens(planned), rows)
    limit = SAFE * memory_of(device)
    choice = "none" if plan.total <= limit else "agent"
    needs, has = plan.total / GIB, limit / GIB
    say(f"recompute=auto: {choice} (without: {needs:.3g} GiB planned, {has:.3g} GiB allowed)")
    settled = copy.deepcopy(config)
    settled.training.outer.recompute = choice
    return settled
