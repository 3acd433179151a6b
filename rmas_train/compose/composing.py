"""What Hydra makes of group choices, YAML files and overrides: plain data, not yet checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from rmas_train.compose.folders import config_dir

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
        node = compose("config", overrides=[*overrides, *own], return_hydra_config=True)
    choices = dict(node.hydra.runtime.choices)
    plain = cast(dict[str, Any], OmegaConf.to_container(node))
    del plain["hydra"]
    ours = {k: str(v) for k, v in choices.items() if "/" not in k and not k.startswith(GROUP)}
    return Composed(plain, ours)
