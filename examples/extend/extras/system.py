"""An answering system: the trained one with Gaussian noise on every message."""

from __future__ import annotations

import torch

from rmas_train.engine.inputs import Message
from rmas_train.registry import SYSTEMS
from rmas_train.systems.base import Built, Ingredients, SystemEntry
from rmas_train.systems.latent import latent_system
from rmas_train.systems.looks import Look
from rmas_train.topology import Edge

LEVEL = 0.1  # of a message's own standard deviation


def noise(message: Message, edge: Edge, round_: int) -> Message:
    """An intervention: the same noise for the same edge and round."""
    seed = sum(map(ord, edge.key)) + round_
    generator = torch.Generator().manual_seed(seed)
    noisy = []
    for x in message.tensors():
        drawn = torch.randn(x.shape, generator=generator).to(x)
        noisy.append(x + LEVEL * x.std() * drawn if x.numel() else x)
    return message.with_tensors(noisy)


def build(ingredients: Ingredients) -> Built:
    return latent_system(ingredients, interventions=[noise])


LOOK = Look("latent, noisy messages", "#F0E442", "P", 10)
SYSTEMS.register("noisy", SystemEntry("latent", "noisy", build, LOOK))
