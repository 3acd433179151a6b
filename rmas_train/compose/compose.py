"""From the command line to one ``Config``. The only file that knows Hydra and OmegaConf.

YAML is data: there is no ``_target_``, nothing in a config is ever called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast
from unicodedata import category

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rmas_train.compose.pins import apply_pins
from rmas_train.config import Config, describe
from rmas_train.errors import ConfigError, UserError, did_you_mean
from rmas_train.support.reading import check_type, parse_yaml
from rmas_train.support.redact import check_values
from rmas_train.support.resources import resource_root
from rmas_train.topology import build_topology

MOST_DIGITS = 100
# Hydra's, OmegaConf's, and what a hostile text makes their parsers stop with.
REFUSALS = (HydraException, OmegaConfBaseException, RecursionError, ValueError)


def config_dir() -> Path:
    return resource_root() / "conf"


def compose(overrides: list[str]) -> Config:
    """The config of one run.

    Args:
        overrides: ``key=value`` and ``group=choice`` as typed.

    Raises:
        ConfigError: unknown key or group, or a value that cannot work; one line.
    """
    overrides = normalise(overrides)
    saved = _saved_run(overrides)
    if saved is not None:
        return _compose_on(saved, overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
            config = to_config(hydra_compose("config", overrides=overrides))
    except REFUSALS as error:
        raise ConfigError(_explain(error, overrides)) from error
    _check_agents(config, overrides)
    return apply_pins(config)


def _check_agents(config: Config, overrides: list[str]) -> None:
    """A typed agent that no topology uses is a misspelt one."""
    for override in overrides:
        key = override.lstrip("+").split("=", 1)[0]
        name = key.split(".")[1] if key.startswith("agents.") else None
        if name is not None and name not in config.topology.order:
            raise ConfigError(
                f"{key}: topology '{config.topology.name}' has no agent '{name}'. "
                f"{did_you_mean(name, config.topology.order)}"
            )


def normalise(overrides: list[str]) -> list[str]:
    """Overrides as Hydra wants them: an option that no YAML file mentions may be set all the same.

    Whether it exists is checked later, against the dataclasses.
    """
    normal = []
    for override in overrides:
        if any(category(c) in ("Cc", "Cs") and c not in "\n\t" for c in override):
            raise ConfigError(
                f"{override}: control characters, or bytes that are not UTF-8; remove them."
            )
        if override.startswith("-"):
            raise ConfigError(f"Unknown flag {override}; options are key=value. See --help.")
        if "=" not in override:
            raise ConfigError(f"'{override}' is not key=value; write {override}=<value>.")
        key, value = override.split("=", 1)
        if value.strip("+- ").isdigit() and len(value) > MOST_DIGITS:
            raise ConfigError(f"{key}: a number of {len(value)} digits; give a smaller one.")
        if "_target_" in override:
            raise ConfigError(f"'{override}': configs here are data; `_target_` is not allowed.")
        if is_hydra(override):
            raise ConfigError(f"{override}: launchers run sweeps; add -m, or leave it out.")
        override = override.lstrip("+")
        is_group = override.split("=", 1)[0] in groups() or "/" in override.split("=", 1)[0]
        normal.append(override if is_group else f"++{override}")
    return normal


def is_hydra(override: str) -> bool:
    """Whether it speaks of Hydra itself (its launcher), not of a run."""
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))


def _saved_run(overrides: list[str]) -> Path | None:
    """With ``stage=eval run=<folder>``: the config that this run was trained with, if any."""
    typed = dict(o.lstrip("+").split("=", 1) for o in overrides)
    if typed.get("stage") != "eval" or not typed.get("run"):
        return None
    folder = Path(typed["run"])
    if not folder.is_dir():
        raise ConfigError(f"run={folder}: no such folder; give a run folder, outputs/<name>.")
    found = [p for p in (folder / "outer" / "config.yaml", folder / "config.yaml") if p.is_file()]
    return found[0] if found else None


def _compose_on(saved: Path, overrides: list[str]) -> Config:
    """A finished run's config with what was typed on top; ``rounds=1,2,5`` are depths."""
    config = _read_saved(saved, overrides)
    plain = [o.lstrip("+") for o in overrides]
    run = next(o.split("=", 1)[1] for o in plain if o.startswith("run="))
    typed = [f"run_dir={run}", *plain]
    for i, override in enumerate(typed):
        key, value = override.split("=", 1)
        if key in groups():
            raise ConfigError(
                f"{override}: stage=eval run=... takes its groups from the run itself."
            )
        if key == "rounds":
            depths = [d for d in value.split(",") if d.strip().isdigit()]
            if len(depths) != len(value.split(",")) or "0" in depths:
                raise ConfigError(f"rounds={value}: give depths of 1 or more, as in rounds=1,2,3.")
            typed[i] = f"evaluation.rounds=[{','.join(depths)}]"
    try:
        structured = OmegaConf.merge(OmegaConf.structured(Config), config)
        return to_config(OmegaConf.merge(structured, OmegaConf.from_dotlist(typed)))
    except (*REFUSALS, yaml.YAMLError) as error:
        raise ConfigError(_explain(error, overrides)) from error


def _read_saved(path: Path, overrides: list[str]) -> Any:
    """A saved config that is valid as it stands.

    It may be somebody else's: it names nothing of this environment and runs no code.

    Raises:
        ConfigError: it is not, or would, unless what it runs was typed here; names the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if "${" in text:
            raise ConfigError("holds '${', but a run writes resolved values; remove it")
        plain = parse_yaml(text)
        check_type(plain, dict[str, Any], "")
        node = OmegaConf.create(plain)
        config = to_config(node)
        build_topology(config.topology, config.agents)
    except (ConfigError, *REFUSALS) as error:
        reason = str(error) if isinstance(error, ConfigError) else _explain(error, [])
        raise ConfigError(f"{path}: {reason} (mend the file, or train again)") from error
    for key, value, what in _asks(config):
        if not any(o.lstrip("+").startswith(f"{key}=") for o in overrides):
            raise ConfigError(
                f"{path}: {key} is on there, which {what}; if you trust it, add {key}={value} to "
                "this command."
            )
    return node


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


def to_config(node: Any) -> Config:
    """A composed node as checked dataclasses."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), node)
        plain = OmegaConf.to_container(merged, resolve=True)
        check_values(cast(dict[str, Any], plain))
        config = cast(Config, OmegaConf.to_object(merged))
        check_type(plain, Config, "")
    except REFUSALS as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, UserError):
            raise cause from error
        raise ConfigError(_explain(error, [])) from error
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """Plain data, ready for YAML and JSON."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config)))


def from_file(path: Path) -> Config:
    """The config that a run saved in its folder."""
    return to_config(_read_saved(path, []))


def to_yaml(config: Config) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def groups() -> dict[str, list[str]]:
    """Config groups and their choices."""
    folders = sorted(p for p in config_dir().iterdir() if p.is_dir())
    return {p.name: sorted(f.stem for f in p.glob("*.yaml")) for p in folders}


def _explain(error: Exception, overrides: list[str]) -> str:
    """One line out of Hydra's and OmegaConf's several, with the nearest name."""
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
