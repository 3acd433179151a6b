"""Where an agent comes from: the hub commit that is loaded, and what is refused."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from transformers.utils import cached_file

from rmas_train.config import AgentConfig
from rmas_train.errors import AgentError, RemoteCodeWarning, UnpinnedWarning

COMMIT = re.compile(r"/snapshots/([0-9a-f]{40})/")  # the hub's cache has a folder per commit
ADAPTER = "adapter_config.json"


def find_commit(where: str, revision: str | None) -> str | None:
    """The commit that a branch, a tag or no revision points to now; None for a folder.

    Raises:
        OSError: the model is neither on the hub nor in its cache.
    """
    if Path(where).exists():
        return None
    found = COMMIT.search(_cached(where, "config.json", revision) or "")
    return found[1] if found else revision


def check_whole(name: str, where: str, commit: str | None) -> None:
    """Refuse an adapter: it would load a base model that it names, without a pinned commit.

    Raises:
        AgentError: an adapter is there.
    """
    if Path(where).exists():
        found = (Path(where) / ADAPTER).exists()
    else:
        found = _cached(where, ADAPTER, commit, must_exist=False) is not None
    if found:
        raise AgentError(
            f"agents.{name}.model={where} holds an adapter ({ADAPTER}), which names another model "
            "to load; merge it into that model, save it whole and give that folder."
        )


def _cached(where: str, file: str, revision: str | None, must_exist: bool = True) -> str | None:
    """Path in the cache of a hub repository's file; it is downloaded if it is not there."""
    found = cached_file(
        where, file, revision=revision, _raise_exceptions_for_missing_entries=must_exist
    )
    return Path(found).as_posix() if found else None


def warn_of_code(name: str, config: AgentConfig) -> None:
    if config.trust_remote_code:
        warnings.warn(
            f"agents.{name}.trust_remote_code is on: agent {name} RUNS PYTHON that comes with "
            f"{config.model}.",
            RemoteCodeWarning,
            stacklevel=3,
        )


def warn_of_revision(name: str, config: AgentConfig, commit: str | None) -> None:
    if commit is not None and config.revision is None:
        warnings.warn(
            f"agents.{name}.model={config.model} has no revision, so results are not pinned; this "
            f"run has {commit}: set agents.{name}.revision={commit}.",
            UnpinnedWarning,
            stacklevel=3,
        )


def explain(name: str, error: Exception) -> str:
    """The library's reason in one line, with our option's name in place of the library's."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "trust_remote_code" in str(error):
        return (
            "it needs Python that comes with it, which is not run; use a model without, or read "
            f"that code and set agents.{name}.trust_remote_code=true."
        )
    if "safetensors" in str(error):
        return (
            f"{reason.rstrip('.')}. Only safetensors are read, no pickles (.bin): save it again "
            "with save_pretrained."
        )
    return reason
