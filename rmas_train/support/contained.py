"""Writes stay in the run folder, also if the folder came from somebody else with links in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

from rmas_train.errors import ConfigError

# What a run writes at the top of its folder, and below; patterns of names.
WRITTEN = (
    *("inner", "outer", "lora", "sft", "eval", "eval_records", "analyse", "plan"),
    *("report", "earlier"),
    *("inner.old*", "outer.old*", ".starting_over.json"),
    *(
        "run.log",
        "results.json",
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "profile.jsonl",
        "error.txt",
    ),
    *("links_report.json", "audit.yaml", "prompts"),  # of an audit
    *(".lock", ".failed", ".probe*", ".*.tmp*", ".*.old*", ".submitit"),
)


def check_contained(folder: Path, names: Iterable[str] = WRITTEN) -> None:
    """Check that nothing of these names leads out of a folder, before anything is written there.

    A link to a place inside the folder is fine, such as the one that a tracker keeps to its newest
    run. The folder itself may be a link: it was typed.

    Raises:
        ConfigError: a symbolic link to another place, or a pipe, socket or device.
    """
    root, patterns = Path(os.path.realpath(folder)), tuple(names)
    if not root.is_dir():
        return
    seen: set[Path] = set()
    for entry in sorted(root.iterdir()):
        if any(fnmatch(entry.name, pattern) for pattern in patterns):
            _check(entry, root, seen)


def _check(path: Path, root: Path, seen: set[Path]) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:  # another process of this run has just removed it
        return
    if stat.S_ISLNK(mode):
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(root):
            raise ConfigError(
                f"{path}: a symbolic link to {real}, outside of the run folder; a run would write "
                "there, so remove the link, or put a copy of the file or folder in its place."
            )
        if real.exists() and real not in seen:
            _check(real, root, seen)
    elif stat.S_ISDIR(mode):
        seen.add(path)
        # W&B writes to a new folder each time, and leaves links to its own log in each.
        if path.parent.name == "wandb" and fnmatch(path.name, "*run-*"):
            return
        for entry in sorted(path.iterdir()):
            _check(entry, root, seen)
    elif not stat.S_ISREG(mode):
        raise ConfigError(
            f"{path}: neither a file nor a folder, but a pipe, a socket or a device; remove it, or "
            "choose another run_dir."
        )


def open_here(path: Path, mode: str) -> IO[Any]:
    """Open a file to write (``w``), append (``a``) or make it new (``x``), if it is no link.

    Raises:
        OSError: it is a symbolic link, or cannot be opened.
    """
    encoding = None if "b" in mode else "utf-8"
    return open(path, mode, encoding=encoding, opener=_opener)


def _opener(path: str, flags: int) -> int:
    # A pipe would wait for a reader for ever without O_NONBLOCK, which files do not know.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
