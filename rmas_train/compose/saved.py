"""The config of a finished run, which ``stage=eval run=<folder>`` goes by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rmas_train.compose.explain import explain
from rmas_train.compose.files import Given
from rmas_train.compose.folders import groups
from rmas_train.compose.nodes import REFUSALS, merge_typed, to_config
from rmas_train.compose.renamed import key_of, rename_values
from rmas_train.config import Config
from rmas_train.errors import ConfigError
from rmas_train.support.reading import check_type, parse_yaml
from rmas_train.topology import build_topology


def saved_run(overrides: list[str]) -> Path | None:
    """With ``stage=eval run=<folder>``: the config that this run was trained with, if any."""
    typed = dict(o.lstrip("+").split("=", 1) for o in overrides)
    if typed.get("stage") != "eval" or not typed.get("run"):
        return None
    folder = Path(typed["run"])
    if not folder.is_dir():
        raise ConfigError(f"run={folder}: no such folder; give a run folder, outputs/<name>.")
    found = [p for p in (folder / "outer" / "config.yaml", folder / "config.yaml") if p.is_file()]
    return found[0] if found else None


def compose_on(saved: Path, overrides: list[str], files: Sequence[Given] = ()) -> Config:
    """A finished run's config with files and what was typed on top; ``rounds=1,2,5`` are depths."""
    allowed = [*overrides, *(f"{k}={v}" for one in files for k, v in _leaves(one.options))]
    plain = read_saved(saved, allowed)
    chosen = [f"{group}={choice}" for one in files for group, choice in one.choices.items()]
    chosen += [o.lstrip("+") for o in overrides if key_of(o) in groups()]
    if chosen:
        raise ConfigError(f"{chosen[0]}: stage=eval run=... takes its groups from the run itself.")
    run = next(o.split("=", 1)[1] for o in overrides if key_of(o) == "run")
    typed = [f"run_dir={run}", *(_depths(o.lstrip("+")) for o in overrides)]
    try:
        return to_config(merge_typed(plain, [one.options for one in files], typed))
    except REFUSALS as error:
        raise ConfigError(explain(error, overrides)) from error


def _depths(override: str) -> str:
    """Several rounds are the depths of an evaluation, not a sweep."""
    key, value = override.split("=", 1)
    if key != "rounds":
        return override
    depths = [d for d in value.split(",") if d.strip().isdigit()]
    if len(depths) != len(value.split(",")) or "0" in depths:
        raise ConfigError(f"rounds={value}: give depths of 1 or more, as in rounds=1,2,3.")
    return f"evaluation.rounds=[{','.join(depths)}]"


def read_saved(path: Path, allowed: Iterable[str] = ()) -> dict[str, Any]:
    """A saved config that is valid as it stands.

    It may be somebody else's: it names nothing of this environment and runs no code.

    Args:
        path: the file.
        allowed: ``key=value`` of what the person at the keyboard has asked for.

    Raises:
        ConfigError: it is not, or would, unless what it runs is allowed; names the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if "${" in text:
            raise ConfigError("holds '${', but a run writes resolved values; remove it")
        plain = parse_yaml(text)
        check_type(plain, dict[str, Any], "")
        plain = rename_values(plain, "in the file")
        config = to_config(plain)
        build_topology(config.topology, config.agents)
    except (ConfigError, *REFUSALS) as error:
        reason = str(error) if isinstance(error, ConfigError) else explain(error, [])
        raise ConfigError(f"{path}: {reason} (mend the file, or train again)") from error
    keys = {key_of(override) for override in allowed}
    for key, value, what in _asks(config):
        if key not in keys:
            raise ConfigError(
                f"{path}: {key} is on there, which {what}; if you trust it, add {key}={value} to "
                "this command."
            )
    return plain


def _asks(config: Config) -> list[tuple[str, str, str]]:
    """What a config asks for that the person at the keyboard alone may allow: key, value, why."""
    found = [
        (f"agents.{name}.trust_remote_code", "true", "runs Python that comes with the model")
        for name, agent in config.agents.items()
        if agent.trust_remote_code
    ]
    if config.allow_code_execution:
        found.append(("allow_code_execution", "true", "runs Python that the decoder writes"))
    if config.tools.search_url is not None:
        url, key = config.tools.search_url, config.tools.search_key_variable
        found.append(("tools.search_url", url, f"sends searches and the value of {key} there"))
    return found


def from_file(path: Path) -> Config:
    """The config that a run saved in its folder."""
    return to_config(read_saved(path))


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Full key -> value of nested options."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
