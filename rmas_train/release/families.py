"""The release's systems by name: which edges they have, and how their files call them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rmas_train.errors import LinksError

TASK = re.compile(r"[a-z0-9_]{1,32}")


@dataclass(frozen=True)
class Family:
    """One of the release's systems: legacy key of every edge, and whether files are per task."""

    name: str
    keys: Mapping[str, str]
    has_tasks: bool


FAMILIES = (
    Family(
        "sequential",
        {
            "planner-critic": "outer_12",
            "critic-solver": "outer_23",
            "solver-planner": "outer_31",
        },
        True,
    ),
    Family(
        "mixture",
        {
            "math-summarizer": "outer_1s",
            "code-summarizer": "outer_2s",
            "science-summarizer": "outer_3s",
            "summarizer-math": "outer_s1",
            "summarizer-code": "outer_s2",
            "summarizer-science": "outer_s3",
        },
        False,
    ),
    Family("distillation", {"expert-learner": "outer_el", "learner-expert": "outer_le"}, True),
    Family(
        "deliberation",
        {"reflector-toolcaller": "outer_rt", "toolcaller-reflector": "outer_tr"},
        False,
    ),
)


def family_of(edges: Iterable[str], where: str) -> Family:
    """The family with exactly these edges.

    Raises:
        LinksError: the release has none; names the first edge that it does not know.
    """
    edges = set(edges)
    for family in FAMILIES:
        if set(family.keys) == edges:
            return family
    known = {edge for family in FAMILIES for edge in family.keys}
    odd = sorted(edges - known)
    what = f"edge {odd[0]} has no name" if odd else f"no system has just the edges {sorted(edges)}"
    raise LinksError(
        f"{where}: {what} in the release ({', '.join(f.name for f in FAMILIES)}); use "
        "topology=<one of these>."
    )


def task_of(family: Family, task: str | None) -> str | None:
    """The task whose files are read; ``math`` is the release's own default.

    Raises:
        LinksError: a name that no file can have.
    """
    if not family.has_tasks:
        return None
    if task is not None and not TASK.fullmatch(task):
        raise LinksError(f"--task={task!r}: the release has math and code; give one of them.")
    return task or "math"
