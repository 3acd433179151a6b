"""Controls: the latent system with its messages removed or mixed up on purpose, or other links."""

from __future__ import annotations

from collections.abc import Callable

from rmas_train.data.sampling import permutation
from rmas_train.engine.inputs import Message
from rmas_train.recursion import Intervention
from rmas_train.systems.base import AnsweringSystem, Ingredients, SystemEntry
from rmas_train.systems.latent import latent_system
from rmas_train.systems.looks import BUILTIN
from rmas_train.topology import Edge


def derangement(count: int, seed: int) -> list[int]:
    """A permutation without a fixed point: a seeded cyclic order, each row to the next one's place.

    With a single row there is none, and the row keeps its own message.
    """
    order = permutation(count, seed, "shuffled")
    result = [0] * count
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        result[here] = there
    return result


def shuffled(count: int, seed: int) -> Intervention:
    """Each row gets another row's message, over the whole test set, in every slot and round."""
    index = derangement(count, seed)

    def shuffle(message: Message, edge: Edge, round_: int) -> Message:  # noqa: ARG001
        return message.rows(index)

    return shuffle


def _shuffled(ingredients: Ingredients) -> AnsweringSystem | None:
    count = len(ingredients.rows)
    change = shuffled(count, ingredients.config.seed)
    return latent_system(ingredients, interventions=[change]) if count > 1 else None


def _entry(control: str, build: Callable[[Ingredients], AnsweringSystem | None]) -> SystemEntry:
    return SystemEntry("latent", control, build, BUILTIN[f"latent {control}"])


START = _entry("start", lambda given: latent_system(given, "start"))
UNTRAINED = _entry("untrained", lambda given: latent_system(given, "untrained"))
NULL = _entry("null", lambda given: latent_system(given, latent_length=0))
SHUFFLED = _entry("shuffled", _shuffled)
