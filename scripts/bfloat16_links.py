"""What float32 links bring: a callback that keeps links as bfloat16 stores them.

After each optimizer step, every parameter is rounded to bfloat16. An update below half the distance
between two neighbouring numbers is lost, as it is where links are bfloat16 themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from rmas_train.config import Config
from rmas_train.registry import CALLBACKS
from rmas_train.training.callbacks import Callback, Step, Update


@CALLBACKS.register("bfloat16_links")
class BFloat16Links(Callback):
    def __init__(self, config: Config, folder: Path) -> None:  # noqa: ARG002
        self._links: Mapping[str, nn.Module] = {}

    def before_update(self, update: Update) -> None:
        self._links = update.links

    @torch.no_grad()
    def __call__(self, step: Step) -> None:  # noqa: ARG002
        for link in self._links.values():
            for parameter in link.parameters():
                parameter.copy_(parameter.bfloat16())
