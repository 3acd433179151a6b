"""The generator: a seed and an index give one malformed input, always the same one."""

from __future__ import annotations

from random import Random

from hostile import (
    agents,
    cards,
    checkpoints,
    commands,
    configs,
    links,
    prompts,
    reports,
    resumes,
    rows,
)
from hostile.case import Case

KINDS = {
    "command line": commands.MAKERS,
    "saved config": configs.MAKERS,
    "JSONL": rows.MAKERS,
    "prompts": prompts.MAKERS,
    "links folder": links.MAKERS,  # with those of cards.py
    "checkpoint": checkpoints.MAKERS,  # with those of resumes.py
    "results": reports.MAKERS,
    "agent folder": agents.MAKERS,
}
assert cards.MAKERS is links.MAKERS and resumes.MAKERS is checkpoints.MAKERS
# Every kind's damages are taken in turn, so that no run of this many cases leaves one out.
ORDER = [
    "command line",
    "links folder",
    "JSONL",
    "checkpoint",
    "prompts",
    "command line",
    "links folder",
    "saved config",
    "JSONL",
    "checkpoint",
    "results",
    "agent folder",
    "agent folder",
]


def make_case(seed: int, index: int) -> Case:
    """Case number ``index`` of a seed."""
    kind = ORDER[index % len(ORDER)]
    makers = KINDS[kind].all
    before = ORDER[: index % len(ORDER)].count(kind)
    turn = index // len(ORDER) * ORDER.count(kind) + before
    label, maker = makers[turn % len(makers)]
    case = maker(Random(f"{seed}/{index}"))
    case.kind, case.index, case.name = kind, index, f"{label}: {case.name}"
    return case


def covered() -> dict[str, list[str]]:
    """Kind -> its damages."""
    return {kind: [label.replace("_", " ") for label, _ in m.all] for kind, m in KINDS.items()}
