"""What the records of an evaluation show: every system against the latent one, and a verdict.

A channel brings content if the system with its own messages is better than with messages that hold
nothing of the question: none, another row's, noise. The verdict is over the best of these controls,
whichever it is, so its p value is the largest one: every control has to be beaten.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rmas_train.evaluation.paired import ALPHA, compare, holm
from rmas_train.evaluation.records import Record
from rmas_train.evaluation.samples import by_question, share_right
from rmas_train.evaluation.score import by_system
from rmas_train.systems.looks import system_name

# Systems in which nothing of a question crosses an edge.
EMPTY = (
    *("latent null", "latent shuffled", "latent mean", "latent noise", "latent rotation"),
    *("latent format", "latent cross_task", "decoder_alone", "thinking"),
)
Source = Callable[[Record], Hashable]


def comparisons(records: Sequence[Record], source: Source, seed: int = 0) -> list[dict[str, Any]]:
    """The latent system against every other one, by task and depth, on the same questions.

    Args:
        records: of an evaluation.
        source: of a record's question: questions that share one are no independent ones.
        seed: of the bootstrap.

    Returns:
        the fields of ``paired.Comparison`` with task, rounds, a, b, and ``p_holm``: p adjusted for
        the number of comparisons in the list.
    """
    found = []
    for (task, depth), systems in _by_question_set(records).items():
        latent = systems.get("latent")
        for name, own in systems.items():
            if latent is None or name == "latent":
                continue
            asked = by_question(latent)
            a, b = ([share_right(one) for one in of] for of in (asked, by_question(own)))
            result = compare(a, b, [source(one[0]) for one in asked], seed)
            who: dict[str, Any] = {"task": task, "rounds": depth, "a": "latent", "b": name}
            found.append(who | asdict(result))
    adjusted = holm([one["p"] for one in found])
    return [one | {"p_holm": p} for one, p in zip(found, adjusted, strict=True)]


def verdicts(compared: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One for each task and depth with a control: over the best control, in numbers and words."""
    found = []
    for task, depth in dict.fromkeys((one["task"], one["rounds"]) for one in compared):
        of = [c for c in compared if (c["task"], c["rounds"]) == (task, depth) and c["b"] in EMPTY]
        if not of:
            continue
        best = min(of, key=lambda one: one["difference"])
        p = max(one["p"] for one in of)
        brings = all(one["ci95"][0] > 0 for one in of) and p < ALPHA
        keys = ("difference", "ci95", "detectable", "n")
        about = {"task": task, "rounds": depth, "over": best["b"], "p": p, "content": brings}
        about |= {key: best[key] for key in keys}
        found.append(about | {"line": in_words(about)})
    return found


def in_words(verdict: Mapping[str, Any]) -> str:
    """``the channel brings +12.0 points [8.1, 15.9] over the best control (latent null), ...``"""
    low, high = (100 * end for end in verdict["ci95"])
    points = f"{100 * verdict['difference']:+.1f} points [{low:.1f}, {high:.1f}]"
    p = "p < 0.001" if verdict["p"] < 0.001 else f"p = {verdict['p']:.3f}"
    over = f"over the best control ({verdict['over']}), {p}"
    if verdict["content"]:
        return f"the channel brings {points} {over}"
    least = 100 * verdict["detectable"]
    return f"no content shown: {points} {over}; {verdict['n']} questions show {least:.1f} points"


def _by_question_set(
    records: Sequence[Record],
) -> dict[tuple[str, int], dict[str, list[Record]]]:
    """(task, depth) -> system -> its records, in the order of the rows."""
    found: dict[tuple[str, int], dict[str, list[Record]]] = {}
    for own in by_system(records).values():
        first = own[0]
        found.setdefault((first["task"], first["rounds"]), {})[system_name(first)] = own
    return found
