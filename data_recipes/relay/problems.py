"""The relay's problems: ten states, six fixed permutations, lists of one to nine operations.

A problem reads ``start C 0 x 1 u 2 stop``: from state C apply x, then u. A *hint* is a pair of a
position and a state, ``1 F`` meaning that after one operation the state is F. This file is used by
the recipe (``build.py``) and by ``scripts/build_relay_agents.py``; the library knows nothing of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

STATES = tuple("ABCDEFGHIJ")
DIALECT = ("ba", "be", "bi", "bo", "bu", "da", "de", "di", "do", "du")
OPERATIONS = tuple("uvwxyz")
MAX_OPERATIONS = 9
# One row per operation: state i goes to state PERMUTATIONS[op][i]. Drawn once (random.Random(20)),
# none keeps a state in place, and fixed for good: the shipped agents have learnt them.
PERMUTATIONS = {
    "u": (5, 0, 9, 4, 3, 2, 7, 8, 1, 6),
    "v": (6, 4, 1, 7, 0, 9, 2, 8, 5, 3),
    "w": (4, 2, 8, 6, 5, 7, 1, 0, 9, 3),
    "x": (1, 6, 3, 7, 5, 0, 8, 2, 9, 4),
    "y": (8, 5, 0, 7, 3, 4, 9, 2, 1, 6),
    "z": (2, 7, 8, 1, 9, 4, 3, 6, 5, 0),
}
# In the mixture each expert knows two of the six operations.
EXPERTS = {"math": ("u", "v"), "code": ("w", "x"), "science": ("y", "z")}


@dataclass(frozen=True)
class Problem:
    """A start state (0 to 9) and one to nine operations."""

    start: int
    operations: tuple[str, ...]

    @property
    def question(self) -> str:
        steps = " ".join(f"{i} {op}" for i, op in enumerate(self.operations))
        return f"start {STATES[self.start]} {steps} {len(self.operations)} stop"

    def state_after(self, position: int) -> int:
        """The state after the first ``position`` operations (all of them past the end)."""
        state = self.start
        for op in self.operations[:position]:
            state = PERMUTATIONS[op][state]
        return state

    def hint(self, position: int, names: tuple[str, ...] = STATES) -> str:
        """The pair that an agent writes once ``position`` operations are done."""
        position = min(position, len(self.operations))
        return f"{position} {names[self.state_after(position)]}"


def draw(rng: random.Random, length: int | None = None) -> Problem:
    """One problem; the number of operations is uniform unless given."""
    length = length or rng.randint(1, MAX_OPERATIONS)
    return Problem(rng.randrange(10), tuple(rng.choices(OPERATIONS, k=length)))


def stream(seed: str) -> Iterator[Problem]:
    """An endless sequence of problems that depends on the seed alone."""
    rng = random.Random(seed)
    while True:
        yield draw(rng)


def transition_matrix(operations_left: int) -> list[list[float]]:
    """P(final state j | state i now) with that many uniformly drawn operations to come."""
    size = len(STATES)
    one = [[0.0] * size for _ in range(size)]
    for images in PERMUTATIONS.values():
        for i, j in enumerate(images):
            one[i][j] += 1 / len(PERMUTATIONS)
    result = [[float(i == j) for j in range(size)] for i in range(size)]
    for _ in range(operations_left):
        result = [
            [sum(row[k] * one[k][j] for k in range(size)) for j in range(size)] for row in result
        ]
    return result


def exact_lines(rounds: int, agents: int = 3) -> dict[str, float | None]:
    """What two blind systems score when they hold the state after ``agents * rounds`` operations.

    Returns:
        ``stops``: accuracy of one that answers the state it holds; ``best_guess``: of one that
        answers the likeliest final state given it; each over all lengths and beyond reach only.
        ``ceiling``: the share of problems within reach.
    """
    reach = agents * rounds
    stops, guess = [], []
    for length in range(1, MAX_OPERATIONS + 1):
        matrix = transition_matrix(max(0, length - reach))
        stops.append(sum(matrix[i][i] for i in range(10)) / 10)
        guess.append(sum(max(row) for row in matrix) / 10)
    beyond = slice(min(reach, MAX_OPERATIONS), None)

    def mean(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None

    return {
        "ceiling": min(reach, MAX_OPERATIONS) / MAX_OPERATIONS,
        "stops": mean(stops),
        "best_guess": mean(guess),
        "stops_beyond_reach": mean(stops[beyond]),
        "best_guess_beyond_reach": mean(guess[beyond]),
    }
