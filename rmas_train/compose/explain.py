"""One line out of the several that Hydra and OmegaConf write."""

from __future__ import annotations

from typing import cast

from rmas_train.compose.folders import groups
from rmas_train.config import Config, describe
from rmas_train.errors import UserError, did_you_mean


def explain(error: Exception, overrides: list[str]) -> str:
    """What an error means for whoever typed ``overrides``, with the nearest name."""
    causes, cause = [error], error.__cause__
    while cause is not None:
        causes.append(cast(Exception, cause))
        cause = cause.__cause__
    for found in causes:
        if isinstance(found, UserError):
            return str(found)
    lines = [line.strip() for e in causes for line in str(e).splitlines() if line.strip()]
    known = [key for key, _, _ in describe(Config)] + list(groups())
    keys = [o.lstrip("+~").split("=")[0] for o in overrides]
    group = next((k for k in keys if k in groups()), None)
    for key in keys:
        if any("Could not override" in li and key in li for li in lines):
            return f"Unknown option '{key}'. {did_you_mean(key, known)}"
    if any("Ambiguous value" in li for li in lines):
        sweeps = [o.lstrip("+") for o in overrides if "," in o and o.lstrip("+~") in lines[0]]
        value = sweeps[0] if sweeps else lines[0]
        return (
            f"{value}: several values are a sweep; add -m. (In a list write [a,b]; stage=eval "
            "run=<folder> takes rounds=1,2,3.)"
        )
    full = next((li.split(":", 1)[1].strip() for li in lines if li.startswith("full_key")), "")
    if any("not in" in li for li in lines) and full:
        return f"Unknown option '{full}'. {did_you_mean(full, known)}"
    refusals = ("Could not find", "Config group override")
    if group and any(r in li for li in lines for r in refusals):
        value = next(o.split("=", 1)[1] for o in overrides if o.startswith(f"{group}="))
        return f"{group}={value}: no such choice. {did_you_mean(value, groups()[group])}"
    if isinstance(error, RecursionError):
        return "an option is nested too deeply. See --help."
    what = (lines or [type(error).__name__])[0].rstrip(".")
    return f"{full}: {what}. See --help." if full else f"{what}. See --help."
