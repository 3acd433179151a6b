"""Files that are whole or absent, and where ``conf/`` and ``data_recipes/`` are."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rmas_train.errors import ConfigError, LinksError, WriteError
from rmas_train.support.contained import open_here

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


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
OS_ERROR = re.compile(r"\(os error (\d+)\)")  # safetensors' writer is not Python
TORCH_WRITER = ("PytorchStreamWriter failed", "iostream error")


def write_failure(error: Exception) -> str | None:
    """Why something could not be written; None if the error is about something else."""
    if isinstance(error, WriteError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror
    found = OS_ERROR.search(str(error))
    if found is not None:
        return os.strerror(int(found[1]))
    is_torch = any(sign in str(error) for sign in TORCH_WRITER)
    return "no space, or no permission" if is_torch else None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Writes to ``path`` alone; what the system refuses is one line.

    Raises:
        WriteError: names ``path`` and the reason.
    """
    try:
        yield
    except Exception as error:  # torch and safetensors raise types of their own for a full disk
        reason = write_failure(error)
        if reason is None:
            raise
        failure = WriteError(
            f"{path}: cannot be written ({reason}); what was there before is as it was. Free "
            "space, mend the permissions, or choose another folder."
        )
        failure.strerror = reason
        raise failure from error


def write_text(path: Path, text: str) -> None:
    """Write a file atomically.

    Raises:
        WriteError: it cannot be written; a file that was there stays.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """See ``write_text``."""
    work = path.with_name(f".{path.name}.tmp{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_dead(path)
        try:
            work.unlink(missing_ok=True)
            with open_here(work, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            work.replace(path)
        finally:
            work.unlink(missing_ok=True)  # where it has not taken its place


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, or nothing.

    Raises:
        WriteError: it cannot be written.
    """
    with writing(path):
        size = path.stat().st_size if path.exists() else 0
        try:
            with open_here(path, "a") as file:
                file.write(f"{line}\n")
        except OSError:
            if path.exists():
                os.truncate(path, size)
            raise


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that replaces ``path`` when the block ends without an error.

    A process that is killed between the two renames leaves the old folder under a hidden name;
    ``recover`` and the next ``new_folder`` bring it back.

    Raises:
        WriteError: it cannot be written; a folder that was there stays.
    """
    work = path.with_name(f".{path.name}.tmp{os.getpid()}")
    old = path.with_name(f".{path.name}.old{os.getpid()}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            recover(path.parent, path.name)
            _remove_dead(path)
            remove(work)
            work.mkdir()
        with _writing_inside(path, work):
            yield work
        with writing(path):
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
def _writing_inside(path: Path, work: Path) -> Iterator[None]:
    """What fills a new folder also reads: errors of reading elsewhere stay what they are."""
    try:
        yield
    except Exception as error:  # as above; whatever it is, it is raised again
        is_write = not isinstance(error, OSError) or error.errno in FULL
        name = getattr(error, "filename", None)
        if is_write or (name is not None and Path(os.fsdecode(name)).is_relative_to(work)):
            with writing(path):
                raise
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes.

    The operating system releases the lock when this process ends, also after a crash.

    Raises:
        ConfigError: another process holds it.
    """
    with open_here(folder / ".lock", "w") as handle:
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
        probe.unlink(missing_ok=True)
        open_here(probe, "x").close()
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
    if leads_outside(path):
        raise LinksError(
            f"{path}: a symbolic link to {_target(path)}, outside the folder; copy the file itself "
            "there."
        )


def leads_outside(path: Path) -> bool:
    """Whether a file is a symbolic link out of its folder; the hub's own links are none."""
    try:
        real, folder = path.resolve(), path.parent.resolve()
    except (OSError, RuntimeError):
        return True
    roots = [folder, *(root / "blobs" for root in _hub_repositories(folder))]
    return not any(real.is_relative_to(root) for root in roots)


def _target(path: Path) -> str:
    try:
        return str(path.resolve())
    except (OSError, RuntimeError):
        return "nowhere"


def _hub_repositories(folder: Path) -> Iterator[Path]:
    for parent in folder.parents:
        if parent.name == "snapshots" and HUB_REPOSITORY.fullmatch(parent.parent.name):
            yield parent.parent
