"""How to type a value that Hydra's grammar does not take as it stands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from rmas_train.errors import did_you_mean

NAME = re.compile(r"[A-Za-z_][\w]*([./@:][\w-]+)*", re.ASCII)


def quoted(value: str) -> str:
    """The value as one text in Hydra's double quotes."""
    inner = re.sub(r'(\\*)"', lambda found: found[1] * 2 + r"\"", value)
    return '"' + re.sub(r"(\\+)$", lambda found: found[1] * 2, inner) + '"'


def how_to_type(override: str, at: str, known: list[str], choices: Mapping[str, list[str]]) -> str:
    """One line for an override that cannot be parsed: what, where, and the form that can.

    Args:
        override: as typed.
        at: where the parser stopped; empty: unknown.
        known: options that exist.
        choices: group -> its choices.
    """
    key, _, value = override.partition("=")
    if key in choices:
        return f"{key}={value}: no such choice. {did_you_mean(value, choices[key])}"
    if not NAME.fullmatch(key):
        return f"Unknown option '{key}'. {did_you_mean(key, known)}"
    where = f" at {at}" if at and at != value else ""
    if value[:1] in ("[", "{"):
        form = '["text", "text"]' if value[0] == "[" else '{name: "text"}'
        return (
            f"{override}: the value cannot be read{where}; close every bracket and quote, and put "
            f"texts in quotes, in a shell: '{key}={form}'"
        )
    typed = shlex.quote(f"{key}={quoted(value)}")
    return f"{override}: the value cannot be read{where}; put it in quotes, in a shell: {typed}"
