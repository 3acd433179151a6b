"""Files that are whole or absent, and where ``conf/`` and ``data_recipes/`` are."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rmas_train.errors import ConfigError, LinksError

PACKAGE = Path(__file__).resolve().parents[1]
HUB_REPOSITORY = re.compile(r"models--[\w.-]+")


def resource_root() -> Path:
    """The folder that holds ``conf`` and ``data_recipes``."""
    return PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent


def find_path(name: str) -> Path | None:
    """A file or folder by its path, or by its path below the resource root; None if not found."""
    for candidate in (Path(name), resource_root() / name):
        if candidate.exists():
            return candidate
    return None


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_dead(path)
    work = path.with_name(f".{path.name}.tmp{os.getpid()}")
    try:
        with work.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)  # where it has not taken its place


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that replaces ``path`` when the block ends without an error.

    A process that is killed between the two renames leaves the old folder under a hidden name;
    ``recover`` and the next ``new_folder`` bring it back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path.parent, path.name)
    _remove_dead(path)
    work = path.with_name(f".{path.name}.tmp{os.getpid()}")
    old = path.with_name(f".{path.name}.old{os.getpid()}")
    remove(work)
    work.mkdir()
    try:
        yield work
        for file in (*work.rglob("*"), work):
            sync(file)
        if path.is_symlink() or path.exists():
            path.rename(old)
        work.rename(path)
        sync(path.parent)
    finally:
        recover(path.parent, path.name)
        remove(work)
        remove(old)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes.

    The operating system releases the lock when this process ends, also after a crash.

    Raises:
        ConfigError: another process holds it.
    """
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"run_dir={folder} is in use by another run; wait for it, stop it, or choose "
                "another run_dir."
            ) from error
        yield


LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<kind>tmp|old)(?P<pid>\d{1,9})|\.probe\d+")


def recover(folder: Path, only: str | None = None) -> None:
    """Bring back what a killed ``new_folder`` had moved away when it could not put the new one.

    Args:
        folder: where to look.
        only: the name of one file or folder; None: all.
    """
    for path in folder.glob(".*.old*"):
        found = LEFTOVER.fullmatch(path.name)
        if found and found["kind"] == "old" and only in (None, found["name"]):
            place = folder / found["name"]
            if not (place.is_symlink() or place.exists()):
                path.rename(place)


def remove_leftovers(folder: Path) -> None:
    """Undo unfinished writes of a killed process in a folder that nobody else writes to."""
    if folder.is_symlink() or not folder.is_dir():
        return
    recover(folder)
    for path in folder.glob(".*"):
        if LEFTOVER.fullmatch(path.name):
            remove(path)


def _remove_dead(path: Path) -> None:
    """Remove what processes that are gone left of their attempts to write ``path``."""
    for left in path.parent.glob(".*.*"):
        found = LEFTOVER.fullmatch(left.name)
        if found and found["name"] == path.name and not Path(f"/proc/{found['pid']}").exists():
            remove(left)


def remove(path: Path) -> None:
    """Remove a file, a symbolic link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif path.is_symlink() or path.exists():
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(folder: Path, key: str) -> None:
    """Create a folder and check that files can be written there.

    Raises:
        ConfigError: names the option ``key`` and the reason.
    """
    probe = folder / f".probe{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"{key}={folder} cannot be written ({error.strerror}); choose another {key}."
        ) from error


def check_inside(path: Path) -> None:
    """Check that a file of a links folder is not a symbolic link to another place.

    The hub's cache has symbolic links from ``models--<name>/snapshots/<commit>`` to its own
    ``blobs``; these are allowed.

    Raises:
        LinksError: the file is a symbolic link out of the folder.
    """
    try:
        real, folder = path.resolve(), path.parent.resolve()
    except (OSError, RuntimeError) as error:
        raise LinksError(f"{path}: a link that leads nowhere; copy the file itself.") from error
    roots = [folder, *(root / "blobs" for root in _hub_repositories(folder))]
    if not any(real.is_relative_to(root) for root in roots):
        raise LinksError(
            f"{path}: a symbolic link to {real}, outside the folder; copy the file itself there."
        )


def _hub_repositories(folder: Path) -> Iterator[Path]:
    for parent in folder.parents:
        if parent.name == "snapshots" and HUB_REPOSITORY.fullmatch(parent.parent.name):
            yield parent.parent
