"""One malformed input as plain data: how a good workspace is damaged, and what is run on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

Edit = tuple[str, str, Any]  # (what, path in the workspace, with what); see workspace.EDITS
Maker = Callable[[Random], "Case"]


@dataclass
class Case:
    """A damaged workspace and a call.

    Attributes:
        name: what is wrong.
        argv: typed after the workspace's own options.
        edits: in order.
        call: ``main`` or ``load`` (and answer one question).
        same: a run that succeeds has to leave the good run's links, byte by byte.
        refused: a run must not succeed.
    """

    name: str
    argv: list[str]
    edits: list[Edit] = field(default_factory=list)
    call: str = "main"
    same: bool = False
    refused: bool = False
    kind: str = ""
    index: int = -1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Makers:
    """The damages of one kind, in the order in which they are defined."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Maker]] = []

    def __call__(self, maker: Maker) -> Maker:
        self.all.append((maker.__name__, maker))
        return maker


def names(text: str) -> list[str]:
    """Words of a text."""
    return text.split()


def paths(text: str) -> list[list[Any]]:
    """Words of a text as paths of keys, ``agents/planner`` or ``rows/0``."""
    return [[int(k) if k.isdigit() else k for k in word.split("/")] for word in names(text)]


# Texts that no option, name or column expects.
ODD_TEXTS = [
    "",
    " ",
    "\x00",
    "\x1b[31mred\x1b[0m",
    "a\nb: c",
    "\u202eevil",
    "\ud800",
    "ünïcödé",
    "日本語",
    "🙂" * 40,
    "x" * 20_000,
    "../../../etc/passwd",
    "${oc.env:HOME}",
    "${rounds}",
    "{{ 7 * 7 }}",
    "{% for x in y %}",
    "<<message:solver>>",
    "<|e|>",
    "!!python/object/apply:os.system [ls]",
    "&a [*a]",
    "*nobody",
    "%s%n",
    "'; rm -rf /; '",
    "null",
]
# Values of a wrong type, or of none.
ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    float("nan"),
    float("inf"),
    -1e308,
    "",
    "text",
    "\ud800",
    [],
    [[]],
    [1, "a", None],
    {},
    {"a": {"b": []}},
    "x" * 5000,
]
