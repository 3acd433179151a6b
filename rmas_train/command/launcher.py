"""The launcher of a sweep, checked before anything runs."""

from __future__ import annotations

import importlib.util
import shutil

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from rmas_train.compose import config_dir
from rmas_train.errors import ConfigError, did_you_mean

# Beginning of a launcher's name, its plugin, the extra with it.
PLUGINS = (("submitit_", "submitit", "slurm"), ("joblib", "joblib", "joblib"))


def check_launcher(typed: list[str]) -> str:
    """The launcher's name; every option of it is one that it has, and it can work here.

    Args:
        typed: the ``hydra/launcher=...`` and ``hydra.launcher.<option>=...`` of the command.
    """
    ordered = sorted(typed, key=lambda o: not o.startswith("hydra/"))
    node = _compose_hydra([])
    for i, override in enumerate(ordered):
        _check_allowed(override)
        try:
            node = _compose_hydra(ordered[: i + 1])
        except HydraException as error:
            raise ConfigError(_refusal(override, error, node)) from error
    launcher = str(node.hydra.runtime.choices["hydra/launcher"])
    if launcher == "submitit_slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise ConfigError(
            f"hydra/launcher={launcher}: no sbatch and srun on this machine's PATH; start the "
            "sweep on a SLURM login node, or use hydra/launcher=submitit_local."
        )
    return launcher


def _compose_hydra(typed: list[str]) -> DictConfig:
    """The config with Hydra's own part, which says how jobs are launched."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        return hydra.compose("config", overrides=typed, return_hydra_config=True)


def _check_allowed(override: str) -> None:
    """Only launcher options may be set; this module sets where jobs write and are listed."""
    key, _, value = override.lstrip("+~").partition("=")
    if "_target_" in override or not (
        key == "hydra/launcher" or key.startswith(("hydra.launcher.", "hydra.job."))
    ):
        raise ConfigError(
            f"{override}: of Hydra's own options a sweep takes hydra/launcher=<name>, "
            "hydra.launcher.<option>=<value> and hydra.job.<option>=<value>; leave it out."
        )
    for begin, name, extra in PLUGINS:
        plugin = f"hydra_plugins.hydra_{name}_launcher"
        if value.startswith(begin) and not _is_installed(plugin):
            raise ConfigError(
                f"{override} needs hydra-{name}-launcher, which is not installed; "
                f"pip install 'rmas_train[{extra}]' (in a clone: pip install -e '.[{extra}]')."
            )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent
        return False


def _refusal(override: str, error: HydraException, before: DictConfig) -> str:
    """One line on why Hydra refuses an override that stands on the config ``before``."""
    key = override.lstrip("+~").partition("=")[0]
    known = [f"hydra.launcher.{k}" for k in before.hydra.launcher if k != "_target_"]
    if key.startswith("hydra.launcher.") and not known:
        return f"{override}: launcher 'basic' has no options; add hydra/launcher=submitit_slurm."
    if key.startswith("hydra.launcher.") and ".".join(key.split(".")[:3]) not in known:
        return f"Unknown option '{key}'. {did_you_mean(key, known)}"
    what = str(error.__cause__ or error).splitlines()[0].rstrip(".")
    return f"{override}: {what}; docs/slurm.md has launchers and values that work."
