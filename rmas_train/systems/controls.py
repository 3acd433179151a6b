"""Controls: the latent system with its messages removed or mixed up on purpose, or other links."""

from __future__ import annotations

from collections.abc import Callable

from rmas_train.data.sampling import permutation
from rmas_train.engine.inputs import Message
from rmas_train.recursion import Intervention
from rmas_train.systems.base import Built, Ingredients, NotApplicable, SystemEntry
from rmas_train.systems.latent import latent_system
from rmas_train.systems.looks import BUILTIN
from rmas_train.topology import Edge

GROUP = 100  # rows among which messages are mixed


def derangement(count: int, seed: int, first: int = 0) -> list[int]:
    """A permutation without a fixed point, within each group of ``GROUP`` rows.

    In a group: a seeded cyclic order, each row to the next one's place. A single row at the end
    joins the group before it; where there is one row in all, it keeps its own message. More rows
    after these leave the groups before the last as they are.

    Args:
        count: rows.
        seed: of the orders.
        first: index of the first row, a multiple of ``GROUP``.
    """
    result = [0] * count
    for begin, end in stretches(count, GROUP):
        group = (first + begin) // GROUP
        stream = f"shuffled {group}" if group else "shuffled"
        order = [begin + i for i in permutation(end - begin, seed, stream)]
        for here, there in zip(order, order[1:] + order[:1], strict=True):
            result[here] = there
    return result


def stretches(count: int, size: int) -> list[tuple[int, int]]:
    """(begin, end) of runs of ``size`` rows; a single row at the end joins the run before it."""
    begins = list(range(0, count, size))
    if len(begins) > 1 and count - begins[-1] == 1:
        begins.pop()
    return list(zip(begins, [*begins[1:], count], strict=True)) if count else []


def shuffled(count: int, seed: int, first: int = 0) -> Intervention:
    """Each row gets another row's message, in every slot and round; see ``derangement``."""
    index = derangement(count, seed, first)

    def shuffle(message: Message, edge: Edge, round_: int) -> Message:  # noqa: ARG001
        return message.rows(index)

    return shuffle


ONE_ROW = NotApplicable("a single row has nobody to get messages from")


def _shuffled(ingredients: Ingredients, links: str = "trained") -> Built:
    count = len(ingredients.rows)
    change = shuffled(count, ingredients.config.seed, ingredients.first)
    if count < 2:
        return ONE_ROW
    return latent_system(ingredients, links, interventions=[change], mixes_rows=True)


def _entry(control: str, build: Callable[[Ingredients], Built]) -> SystemEntry:
    return SystemEntry("latent", control, build, BUILTIN[f"latent {control}"])


START = _entry("start", lambda given: latent_system(given, "start"))
UNTRAINED = _entry("untrained", lambda given: latent_system(given, "untrained"))
NULL = _entry("null", lambda given: latent_system(given, latent_length=0))
SHUFFLED = _entry("shuffled", _shuffled)
# Their start may carry content, which training with other rows' messages need not remove.
FORMAT = _entry("format", lambda given: _shuffled(given, "format"))
