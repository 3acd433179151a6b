"""The config of a finished run, which ``stage=eval`` and ``analyse`` go by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rmas_train.compose.files import Given, import_plugins
from rmas_train.compose.nodes import (
    REFUSALS,
    explain,
    leaves,
    merge_typed,
    to_config,
    typed_keys,
)
from rmas_train.compose.reach import asked_for, check_leaves, to_type
from rmas_train.compose.typed import groups, key_of, rename_values
from rmas_train.config import Config
from rmas_train.errors import ConfigError
from rmas_train.support.reading import check_type, parse_yaml
from rmas_train.topology import build_topology

# What a run keeps of its own where it is evaluated on a benchmark: how its agents are asked.
KEPT = ("prompts", "tasks", "role_texts", "feedback_texts", "translations", "max_length", "valid")
BENCHMARK = "data=eval/"


def compose_on(
    saved: Path,
    overrides: list[str],
    files: Sequence[Given] = (),
    benchmark: Callable[[str], dict[str, Any]] | None = None,
) -> Config:
    """A finished run's config with files and what was typed on top; ``rounds=1,2,5`` are depths.

    Args:
        saved: the run's config.
        overrides, files: what the person at the keyboard has asked for.
        benchmark: from a choice of ``data`` in ``eval/`` to its options, which take the place of
            the run's data.
    """
    plain = read_saved(saved, overrides, files)
    stage = next(o.split("=", 1)[1] for o in overrides if key_of(o) == "stage")
    chosen = [f"{group}={choice}" for one in files for group, choice in one.choices.items()]
    chosen += [o.lstrip("+") for o in overrides if key_of(o) in groups()]
    others = [c for c in chosen if not c.startswith(BENCHMARK) or benchmark is None]
    if others or len(chosen) > 1:
        raise ConfigError(
            f"{(others or chosen)[0]}: stage={stage} run=... takes its groups from the run itself; "
            f"one benchmark may be chosen, {BENCHMARK}<name>."
        )
    own = benchmark(chosen[0].removeprefix("data=")) if benchmark and chosen else {}
    plain = _on_benchmark(plain, own)
    overrides = [o for o in overrides if o.lstrip("+") not in chosen]
    if any(key_of(o) == "small" for o in overrides) or any("small" in f.options for f in files):
        raise ConfigError(
            f"small: stage={stage} run=... takes its models from the run itself; for other folders "
            "set agents.<name>.model."
        )
    run = next(o.split("=", 1)[1] for o in overrides if key_of(o) == "run")
    typed = [f"run_dir={run}", *(_depths(o.lstrip("+"), stage) for o in overrides)]
    given = [one.options for one in files]
    try:
        config, keys = to_config(merge_typed(plain, given, typed)), typed_keys(typed)
    except REFUSALS as error:
        raise ConfigError(explain(error, overrides)) from error
    _check_reach(saved, config, keys | {key for one in (own, *given) for key, _ in leaves(one)})
    return config


def _on_benchmark(plain: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A run's options with the data of a benchmark, and its other options on top."""
    if not own:
        return plain
    before = plain.get("data") or {}
    kept = {key: before[key] for key in KEPT if key in before}
    merged = {
        key: (plain.get(key) or {}) | of if isinstance(of, dict) else of
        for key, of in own.items()
        if key != "data"
    }
    return plain | merged | {"data": dict(own["data"]) | kept}


def _depths(override: str, stage: str) -> str:
    """Several rounds are the depths of an evaluation, not a sweep."""
    key, value = override.split("=", 1)
    if key != "rounds" or stage != "eval":
        return override
    depths = [d for d in value.split(",") if d.strip().isdigit()]
    if len(depths) != len(value.split(",")) or "0" in depths:
        raise ConfigError(f"rounds={value}: give depths of 1 or more, as in rounds=1,2,3.")
    return f"evaluation.rounds=[{','.join(depths)}]"


def read_saved(
    path: Path, overrides: Sequence[str] = (), files: Sequence[Given] = ()
) -> dict[str, Any]:
    """A saved config that is valid as it stands.

    The file may come from another person, so it must not read this environment or import anything;
    what else it may not ask for depends on what is typed on top (``compose_on``).

    Args:
        path: the file.
        overrides, files: what the person at the keyboard has asked for.

    Raises:
        ConfigError: it is not, or would import what was not asked for; names the file.
    """
    plain = saved_values(path)
    if isinstance(plain.get("data"), dict):  # a run from before this option was trained as it was
        plain["data"].setdefault("allow_shared_rows", True)
    asked = _asked_plugins(overrides, files)
    if not set(plain.get("plugins") or []) <= set(asked):
        _refuse(path, "plugins", plain["plugins"], "imports these Python modules")
    import_plugins(asked)
    with _naming(path):
        config = to_config(plain)
        build_topology(config.topology, config.agents)
    return plain


def saved_values(path: Path) -> dict[str, Any]:
    """A saved config as plain values, not checked any further: to be read, not to be run.

    Raises:
        ConfigError: it holds something else; names the file.
    """
    with _naming(path):
        plain = parse_yaml(path.read_text(encoding="utf-8"))
        check_type(plain, dict[str, Any], "")
        check_leaves(plain)
        check_type(plain.get("plugins") or [], list[str], "plugins")
        return rename_values(plain, "in the file")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """What is wrong with a saved config, with its file."""
    try:
        yield
    except (ConfigError, *REFUSALS) as error:
        reason = str(error) if isinstance(error, ConfigError) else explain(error, [])
        raise ConfigError(f"{path}: {reason} (mend the file, or train again)") from error


def _asked_plugins(overrides: Sequence[str], files: Sequence[Given]) -> list[str]:
    """The plugins that were typed, or else those of the last file that names any."""
    typed = [o.split("=", 1)[1] for o in overrides if key_of(o) == "plugins"]
    given = [one.options["plugins"] for one in files if "plugins" in one.options]
    try:
        asked = parse_yaml(typed[-1]) if typed else ([[], *given])[-1]
        check_type(asked, list[str], "plugins")
    except ValueError as error:
        raise ConfigError(f"{error}; give a list of modules, as in plugins=[my_module].") from error
    return list(asked)


def _check_reach(path: Path, config: Config, typed: Set[str]) -> None:
    """What the saved config asks for is allowed, or was typed.

    Raises:
        ConfigError: names the file, the option, what it does, and what to add.
    """
    for key, value, what in asked_for(config, typed):
        _refuse(path, key, value, what)


def _refuse(path: Path, key: str, value: Any, what: str) -> None:
    raise ConfigError(
        f"{path}: {key} is set there, which {what}; if you trust it, add {to_type(key, value)} to "
        "this command."
    )


def from_file(path: Path) -> Config:
    """The config that a run saved in its folder."""
    config = to_config(read_saved(path))
    _check_reach(path, config, frozenset())
    return config
