"""Whether trackers can start, before agents load."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from netrc import NetrcParseError, netrc
from pathlib import Path
from urllib.parse import urlsplit

from rmas_train.errors import ConfigError

OFFLINE = ("offline", "dryrun", "disabled")  # values of WANDB_MODE that need no login
TRACKERS = {
    "wandb": ("wandb",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
}


def check_trackers(names: Sequence[str], env: Mapping[str, str] = os.environ) -> None:
    """Trackers are installed, and wandb is logged in or offline; told before agents load.

    Raises:
        ConfigError: one cannot start; says how it can.
    """
    for name in names:
        if not any(importlib.util.find_spec(module) for module in TRACKERS[name]):
            raise ConfigError(
                f"tracking={name}: not installed; pip install 'rmas_train[track]' (in a clone: "
                "pip install -e '.[track]'), or leave tracking out."
            )
    if "wandb" in names and not _is_logged_in(env):
        raise ConfigError(
            "tracking=wandb: not logged in; run `wandb login` or set WANDB_API_KEY, or set "
            "WANDB_MODE=offline and send the run later with `wandb sync`."
        )


def _is_logged_in(env: Mapping[str, str]) -> bool:
    """wandb has a key for its server, or needs none; nothing is asked over the network."""
    if env.get("WANDB_MODE", "").lower() in OFFLINE or env.get("WANDB_API_KEY"):
        return True
    if env.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(env.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    home = Path(env.get("HOME", "~")).expanduser()
    files = [Path(env["NETRC"])] if env.get("NETRC") else [home / ".netrc", home / "_netrc"]
    for path in (file for file in files if file.is_file()):
        try:
            if netrc(path).authenticators(host):
                return True
        except (NetrcParseError, OSError):
            return True  # wandb reads it in its own way; let it say what is wrong
    return False
