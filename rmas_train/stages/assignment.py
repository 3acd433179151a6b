"""The inner stage over ranks: agents are independent, so ranks share them out."""

from __future__ import annotations

from collections.abc import Mapping


def assign_agents(
    costs: Mapping[str, float], world: int, rank: int
) -> tuple[list[str], tuple[int, int]]:
    """Which agents a rank trains, and which share of their rows.

    With fewer ranks than agents a rank has several, so that the largest sum of costs is small (the
    costliest goes first, to the rank with least to do). With more, an agent has several ranks, in
    proportion to its cost, which share its rows.

    Args:
        costs: agent -> cost of a row, in any unit.
        world: number of ranks.
        rank: whose share is asked for.

    Returns:
        agents in the order of ``costs``, and (parts, part) of each step's rows.
    """
    if world <= len(costs):
        chosen = _pack(costs, world)[rank]
        return [n for n in costs if n in chosen], (1, 0)
    ranks = _allot(costs, world)
    first = 0
    for name, count in ranks.items():
        if rank < first + count:
            return [name], (count, rank - first)
        first += count
    raise AssertionError(f"rank {rank} of {world}")


def _pack(costs: Mapping[str, float], world: int) -> list[set[str]]:
    loads, chosen = [0.0] * world, [set[str]() for _ in range(world)]
    for name in sorted(costs, key=lambda n: -costs[n]):
        least = loads.index(min(loads))
        chosen[least].add(name)
        loads[least] += costs[name]
    return chosen


def _allot(costs: Mapping[str, float], world: int) -> dict[str, int]:
    ranks = dict.fromkeys(costs, 1)
    for _ in range(world - len(costs)):
        busiest = max(ranks, key=lambda n: costs[n] / ranks[n])
        ranks[busiest] += 1
    return ranks
