"""From the command line, YAML files and dicts to one ``Config``.

YAML is data: there is no ``_target_``, nothing in a config is ever called.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from rmas_train.compose.files import Given, apply_pins, choices_of, given, import_plugins, read_file
from rmas_train.compose.nodes import (
    REFUSALS,
    empty,
    explain,
    leaves,
    to_config,
    to_dict,
    with_defaults,
)
from rmas_train.compose.saved import BENCHMARK, compose_on, saved_values
from rmas_train.compose.typed import (
    Typed,
    config_dir,
    groups,
    key_of,
    normalise,
    read_typed,
    rename_values,
    saved_run,
)
from rmas_train.config import AgentConfig, Config, shown
from rmas_train.errors import ConfigError, DeprecatedOptionWarning, did_you_mean

GROUP = "given_files"  # where Hydra finds the options of --config


class OwnFolders(SearchPathPlugin):
    """Folders of ``--config-dir``, which Hydra searches before its own and the shipped one."""

    folders: ClassVar[tuple[Path, ...]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in reversed(self.folders):
            search_path.prepend("own", f"file://{folder}")


@contextmanager
def searching(folders: Sequence[Path]) -> Iterator[None]:
    """Hydra looks into these folders first."""
    Plugins.instance().register(OwnFolders)
    OwnFolders.folders = tuple(folders)
    try:
        yield
    finally:
        OwnFolders.folders = ()


@dataclass(frozen=True)
class Composed:
    """Options as one nested dict, and group -> the choice that was taken."""

    options: dict[str, Any]
    choices: dict[str, str]


def composed(
    overrides: Sequence[str],
    folders: Sequence[Path] = (),
    files: Sequence[Mapping[str, Any]] = (),
) -> Composed:
    """Groups first, then the experiment, then each file's options, then ``key=value``.

    Raises:
        HydraException, OmegaConfBaseException, ValueError: what cannot be composed.
    """
    names = [f"file{i}" for i in range(len(files))]
    for name, options in zip(names, files, strict=True):
        ConfigStore.instance().store(group=GROUP, name=name, node=dict(options))
    own = [f"+{GROUP}@_global_=[{','.join(names)}]"] if files else []
    GlobalHydra.instance().clear()
    with (
        searching(folders),
        initialize_config_dir(version_base="1.3", config_dir=str(config_dir())),
    ):
        node = hydra_compose("config", overrides=[*overrides, *own], return_hydra_config=True)
    choices = dict(node.hydra.runtime.choices)
    empty(node, overrides)
    plain = cast(dict[str, Any], OmegaConf.to_container(node))
    del plain["hydra"]
    ours = {k: str(v) for k, v in choices.items() if "/" not in k and not k.startswith(GROUP)}
    return Composed(plain, ours)


def compose(typed: Sequence[str]) -> Config:
    """The config of one run.

    Args:
        typed: ``key=value``, ``group=choice``, ``--config FILE``, ``--config-dir DIR``, as on the
            command line.

    Raises:
        ConfigError: unknown key or group, or a value that cannot work; one line.
    """
    asked = read_typed(typed)
    return _compose(asked, [read_file(path, asked.folders) for path in asked.files])


def config_from(
    source: Config | Mapping[str, Any] | Sequence[str] | str | os.PathLike[str],
) -> Config:
    """The config that a Python caller means.

    Args:
        source: a ``Config`` (taken as it is); the path of a YAML file, or a dict, of options as
            nested keys; or a list of what would be typed. A file or dict may name group choices
            (``experiment: mixture``, ``links: released``). Without an experiment it stands on
            ``none``, and its ``agents``, ``topology`` and ``data`` are then all there is of them.

    Raises:
        ConfigError: an unknown key, or a value that cannot work; names the file.
    """
    if isinstance(source, Config):
        import_plugins(source.plugins)
        return source
    if isinstance(source, Mapping):
        return _compose(Typed([]), [given(source, "config")])
    if isinstance(source, str | os.PathLike):
        return compose([f"--config={os.fspath(source)}"])
    if not isinstance(source, Sequence) or not all(isinstance(typed, str) for typed in source):
        raise ConfigError(
            f"config={source!r}: give a YAML file, a dict, a list of key=value, or a Config."
        )
    return compose(source)


def compose_groups(asked: Typed) -> tuple[Composed, Composed]:
    """The experiment alone, and with the group choices of a command; neither is checked."""
    overrides = normalise(asked.overrides, asked.folders)
    files = [read_file(path, asked.folders) for path in asked.files]
    known = groups(asked.folders)
    chosen = [*choices_of(overrides, files), *(o for o in overrides if key_of(o) in known)]
    first = [o for o in chosen if key_of(o) == "experiment"]
    alone = composed(first, asked.folders)
    return alone, alone if chosen == first else composed(chosen, asked.folders)


def _compose(asked: Typed, files: list[Given]) -> Config:
    overrides = normalise(asked.overrides, asked.folders)
    saved = saved_run(overrides)
    if saved is not None:
        return compose_on(saved, overrides, files, lambda choice: _benchmark(choice, asked.folders))
    every = [*choices_of(overrides, files), *overrides]
    try:
        own = _with_benchmark(every, asked.folders)
        found = composed(every, asked.folders, [*own, *(one.options for one in files)])
    except (*REFUSALS, OSError) as error:  # OSError: a YAML file that holds a number alone
        raise ConfigError(explain(error, every, groups(asked.folders))) from error
    typed = [key_of(override) for override in overrides]
    options = rename_values(found.options, "a config file", typed)
    import_plugins(options.get("plugins", []))
    config = to_config(options)
    _check_agents(config, typed, files)
    _check_small(config)
    return apply_pins(config)


def _benchmark(choice: str, folders: Sequence[Path]) -> dict[str, Any]:
    """The options of a benchmark, ``data=eval/<name>``, alone.

    Raises:
        ConfigError: there is no such one.
    """
    typed = ["experiment=none", f"data={choice}"]
    try:
        found = composed(typed, folders).options
    except (*REFUSALS, OSError) as error:
        raise ConfigError(explain(error, typed, groups(folders))) from error
    keys = ("data", "latent_length", "evaluation", "tools")
    return {key: found[key] for key in keys if key in found}


def _with_benchmark(overrides: Sequence[str], folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What a chosen benchmark says beside its data; it stands above the experiment's."""
    chosen = [o.lstrip("+") for o in overrides if o.lstrip("+").startswith(BENCHMARK)]
    if not chosen:
        return []
    found = _benchmark(chosen[-1].removeprefix("data="), folders)
    return [{key: of for key, of in found.items() if key != "data"}]


def _check_agents(config: Config, typed: Iterable[str], files: Iterable[Given]) -> None:
    """An agent that was given, and that no topology uses, is a misspelt one."""
    named = [(key, key.split(".")[1]) for key in typed if key.startswith("agents.")]
    for one in files:
        named += [(f"{one.where}: agents.{n}", n) for n in one.options.get("agents", {})]
    for key, name in named:
        if name not in config.topology.order:
            raise ConfigError(
                f"{key}: topology '{config.topology.name}' has no agent '{name}'. "
                f"{did_you_mean(name, config.topology.order)}"
            )


def _check_small(config: Config) -> None:
    """A folder that was given is one that agents come from."""
    used = (Path(agent.model).parent for agent in config.agents.values())
    if config.small is not None and Path(config.small) not in used:
        raise ConfigError(
            f"small={config.small}: no agent's model comes from there; choose agents=small or one "
            "of its variants, or set agents.<name>.model."
        )


ABSENT = object()


def changes(asked: Typed, config: Config) -> list[str]:
    """Lines on what differs from the experiment, or from the run that is evaluated."""
    with warnings.catch_warnings():  # former names were told of when the config was composed
        warnings.simplefilter("ignore", DeprecatedOptionWarning)
        return _changes(asked, config)


def _changes(asked: Typed, config: Config) -> list[str]:
    overrides = normalise(asked.overrides, asked.folders)
    saved = saved_run(overrides)
    if saved is not None:
        before = with_defaults(saved_values(saved))
        return [f"config: {saved}", *_differences(before, to_dict(config), str(saved.parent))]
    alone, chosen = compose_groups(asked)
    experiment = chosen.choices["experiment"]
    groups = [
        f"changed: {group}={choice} (experiment: {alone.choices.get(group, 'none')})"
        for group, choice in chosen.choices.items()
        if alone.choices.get(group) != choice
    ]
    try:
        before = with_defaults(rename_values(chosen.options, "a config file"))
    except (ConfigError, *REFUSALS):  # the experiment works only with what was typed on top
        return [f"experiment: {experiment}", *groups]
    options = _differences(before, to_dict(config), "experiment")
    return [f"experiment: {experiment}", *groups, *options]


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], whose: str) -> Iterator[str]:
    """A line for each option; of an agent that is new, those that are not at their defaults."""
    old = dict(leaves(before))
    new_agent = asdict(AgentConfig())
    for key, value in leaves(after):
        was = old.get(key, ABSENT)
        name = key.rsplit(".", 1)[-1]
        if was is ABSENT and key.startswith("agents.") and value == new_agent.get(name, ABSENT):
            continue
        if was != value:
            before_it = "not set" if was is ABSENT else shown(was)
            yield f"changed: {key}={shown(value)} ({whose}: {before_it})"
