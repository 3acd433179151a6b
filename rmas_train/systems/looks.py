"""How tables and pictures show a system; kept apart from the systems, so that no model is loaded.

A result file says how its systems look, so that a report needs no registry and no plugin. What a
file does not say (those of version 0.1) is looked up in ``BUILTIN``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rmas_train.support.reading import short

COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
MARKERS = tuple("os^vxD+*PXd<>.hp")


@dataclass(frozen=True)
class Look:
    """Label for people; colour (#rrggbb) and marker of a curve; place in tables and legends."""

    label: str
    colour: str = "#000000"
    marker: str = "."
    order: int = 100

    def __post_init__(self) -> None:
        if not COLOUR.fullmatch(self.colour):
            raise ValueError(f"colour is {short(self.colour)}, not #rrggbb")
        if self.marker not in MARKERS:
            raise ValueError(f"marker is {short(self.marker)}, not one of {' '.join(MARKERS)}")


# Name as in result files -> look (Okabe and Ito's colours).
BUILTIN = {
    "latent": Look("latent, trained", "#0072B2", "o", 0),
    "latent start": Look("latent, start", "#E69F00", "^", 1),
    "latent untrained": Look("latent, untrained links", "#CC79A7", "v", 2),
    "latent null": Look("latent, null slots", "#999999", "x", 3),
    "latent shuffled": Look("latent, shuffled slots", "#D55E00", "D", 4),
    "latent mean": Look("latent, mean message", "#882255", "d", 5),
    "latent noise": Look("latent, matched noise", "#AA4499", "<", 6),
    "latent rotation": Look("latent, rotated message", "#DDCC77", ">", 7),
    "latent cross_task": Look("latent, messages of another task", "#332288", "h", 8),
    "latent format": Look("latent, format alone", "#661100", "X", 9),
    "latent stop_agreement": Look("latent, stops at agreement", "#44BB99", "*", 10),
    "latent stop_entropy": Look("latent, stops at low entropy", "#BB9944", "*", 11),
    "latent stop_trained": Look("latent, stops by a trained rule", "#AAAA00", "*", 12),
    "text": Look("text recursion", "#009E73", "s", 20),
    "text_capped": Look("text recursion, capped", "#44AA99", "p", 21),
    "decoder_alone": Look("decoder alone", "#56B4E9", "+", 22),
    "thinking": Look("decoder alone, thinking", "#117733", "P", 23),
    "latentmas": Look("LatentMAS", "#225588", "v", 28),
    "lora": Look("single agent, LoRA", "#997700", "*", 30),
    "sft": Look("single agent, fine-tuned", "#994455", "*", 31),
    "moa": Look("mixture of agents", "#AA4466", "s", 27),
}


def system_name(row: Mapping[str, Any]) -> str:
    """``latent``, ``latent shuffled``, ``text``, ... of a row of a result file."""
    return " ".join(filter(None, (row["system"], row["control"])))


def looks_of(rows: list[dict[str, Any]], said: Mapping[str, Mapping[str, Any]]) -> dict[str, Look]:
    """System -> look, in the order of tables and legends.

    Args:
        rows: of result files.
        said: ``systems`` of result files.
    """
    found = {}
    for name in sorted({system_name(row) for row in rows}):
        own = Look(**said[name]) if name in said else None
        found[name] = own or BUILTIN.get(name) or Look(name)
    return dict(sorted(found.items(), key=lambda pair: pair[1].order))
