"""What differs between two nested descriptions, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST = 3  # differences that are shown


def why_other(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between the identity in a file and this run's, on one line."""
    if "version" not in there:
        return "an older version, which did not write down all that it depends on"
    return told(differences(there, now))


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """``key: value there, value now`` for every inner key whose values differ."""
    a, b = _flat(there), _flat(now)
    keys = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
    return [f"{k}: {_short(a.get(k))} there, {_short(b.get(k))} now" for k in keys]


def told(found: list[str]) -> str:
    """The first of them on one line."""
    more = f"; and {len(found) - MOST} more" if len(found) > MOST else ""
    return "; ".join(found[:MOST]) + more


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {k: v for key, of in value.items() for k, v in _flat(of, f"{prefix}.{key}").items()}
    return {prefix.removeprefix("."): value}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
