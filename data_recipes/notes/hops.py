"""Notes in hops: three agents with notes of their own; a question needs all of them in turn.

The planner's notes say where persons live, the critic's which animal a city has, the solver's whom
an animal belongs to. So one round leads from a person to a person, in three look-ups, and R rounds
in 3R: the relay in words. Every round leads on, so a row is answered at one depth only.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from closed_sets import HELD_OUT_NAMES, KINDS, NAMES

Row = dict[str, str | int | list[str]]
ANIMALS, CITIES = (next(k for k in KINDS if k.name == name) for name in ("animal", "city"))
TIMES = {1: "once", 2: "twice", 3: "three times", 4: "four times", 5: "five times"}


@dataclass(frozen=True)
class Hops:
    """Persons in a circle, each with the city and the animal that lead to the next one.

    Attributes:
        persons, cities, animals: person i lives in city i, which has animal i, which belongs to
            person i + 1; the last one's to the first.
        start: the person that the question begins with.
        rounds: how often the circle's next person is asked for.
        orders: of the sentences in each agent's notes.
    """

    persons: tuple[str, ...]
    cities: tuple[str, ...]
    animals: tuple[str, ...]
    start: int
    rounds: int
    orders: tuple[tuple[int, ...], ...]

    @property
    def key(self) -> tuple[frozenset[tuple[str, str, str]], str, int]:
        """Equal for rows with the same facts, in any order, and the same question."""
        facts = frozenset(zip(self.persons, self.cities, self.animals, strict=True))
        return facts, self.persons[self.start], self.rounds

    def next(self, person: int, rounds: int = 1) -> int:
        return (person + rounds) % len(self.persons)

    def row(self, round_: int, choices: Sequence[str]) -> Row:
        """Columns; the role texts are those of round ``round_``, from 1 to ``rounds``."""
        here = self.next(self.start, round_ - 1)
        owners = [self.persons[self.next(i)] for i in range(len(self.persons))]
        lives = [f"{p} lives in {c}." for p, c in zip(self.persons, self.cities, strict=True)]
        has = [f"{c} has a {a}." for c, a in zip(self.cities, self.animals, strict=True)]
        owned = [f"The {a} belongs to {o}." for a, o in zip(self.animals, owners, strict=True)]
        planner, critic, solver = (
            " ".join(lines[i] for i in order)
            for lines, order in zip((lives, has, owned), self.orders, strict=True)
        )
        start = self.persons[self.start]
        return {
            "question": f"Go round {TIMES[self.rounds]}, from {start}: whom does it lead to?",
            "start": start,
            "planner_notes": planner,
            "critic_notes": critic,
            "solver_notes": solver,
            "answer": f" {self.persons[self.next(self.start, self.rounds)]}",
            "city": f" {self.cities[here]}",
            "animal": f" {self.animals[here]}",
            "person": f" {owners[here]}",
            "feedback": f" {self.persons[here]}" if round_ > 1 else "",
            "choices": list(choices),
            "rounds_needed": self.rounds,
            "rounds_most": self.rounds,
        }


def draw(rng: random.Random, facts: int, most: int, names: Sequence[str]) -> Hops:
    """One problem, of 1 to ``most`` rounds."""
    every = range(facts)
    return Hops(
        tuple(rng.sample(names, facts)),
        tuple(rng.sample(CITIES.known, facts)),
        tuple(rng.sample(ANIMALS.known, facts)),
        rng.randrange(facts),
        rng.randint(1, most),
        tuple(tuple(rng.sample(every, facts)) for _ in range(3)),
    )


def draw_all(seed: int, sizes: dict[str, int], facts: int, most: int) -> dict[str, list[Row]]:
    """File -> rows; test_names has persons that no training row has. Only training rows repeat."""
    files, taken = {}, set()
    for name in ("test", "valid", "test_names", "train"):
        rng = random.Random(f"{seed}/hops/{name}")
        names = HELD_OUT_NAMES if name == "test_names" else NAMES
        rows: list[Row] = []
        while len(rows) < sizes[name]:
            problem = draw(rng, facts, most, names)
            if problem.key in taken:
                continue
            if name != "train":
                taken.add(problem.key)
            rows.append(problem.row(rng.randint(1, problem.rounds), sorted(names)))
        files[name] = rows
    return files


def references(facts: int, most: int) -> dict[str, dict[str, float]]:
    """By rounds, within reach: a person of the notes who is not the start; and any of the names."""
    lines = {
        "ceiling": 1.0,
        "guess_shown": 1 / (facts - 1),
        "guess_any": 1 / len(NAMES),
    }
    return {str(rounds): lines for rounds in range(1, most + 1)}
