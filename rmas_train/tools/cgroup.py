"""A control group (cgroup) for a program and its processes, where this process may make one.

The kernel then counts all of their memory, whatever a process does with it, and ends them at the
limit. Where there is none, the sandbox's guard counts the memory itself, some times per second.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNT, LIST = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
NAME = "rmas_python_{}_{}"  # process id, number
ROOM = 32  # MiB for what the kernel keeps for processes, and for files that it read
NUMBERS = itertools.count()


@dataclass(frozen=True)
class Group:
    """A cgroup.

    Attributes:
        folder: where the kernel shows it.
        events: file with the line ``oom_kill <number>``.
    """

    folder: Path
    events: str

    def was_full(self) -> bool:
        """Whether the kernel ended a process because its memory was used up."""
        with contextlib.suppress(OSError):
            lines = (self.folder / self.events).read_text().splitlines()
            return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in lines)
        return False


@contextlib.contextmanager
def own_group(memory_mib: int, file_mib: int, processes: int) -> Iterator[Group | None]:
    """A new, empty cgroup with these limits; None if the system does not let us make one.

    Args:
        memory_mib, file_mib: MiB of memory, and of files that may be held in memory.
        processes: processes and threads.
    """
    group = _make((memory_mib + file_mib + ROOM) * 2**20, processes + 4)
    try:
        yield group
    finally:
        if group is not None:
            _remove(group.folder)


def _make(size: int, processes: int) -> Group | None:
    name = NAME.format(os.getpid(), next(NUMBERS))
    for parent, is_new in places():
        folder = parent / name
        with contextlib.suppress(OSError):
            _sweep(parent)
            folder.mkdir()
            try:
                return _limit(folder, is_new, size, processes)
            except OSError:
                _remove(folder)
    return None


def places() -> Iterator[tuple[Path, bool]]:
    """Where a cgroup could be made: its parent, and whether it is of version 2."""
    try:
        lines = LIST.read_text().splitlines()
        entries = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    except OSError:
        return
    for _, controllers, path in entries:
        if controllers == "" and (MOUNT / "cgroup.controllers").exists():
            own = _folder(MOUNT, path)
            # Version 2 puts processes into leaves only, so a sibling is the rule.
            for parent in ([own.parent] if own != MOUNT else []) + [own]:
                if "memory" in _text(parent / "cgroup.subtree_control").split():
                    yield parent, True
        if "memory" in controllers.split(","):
            yield _folder(MOUNT / "memory", path), False


def _folder(mount: Path, path: str) -> Path:
    """The folder of a cgroup; in a container, the mount itself may be the container's own."""
    folder = mount / path.lstrip("/")
    return folder if ".." not in Path(path).parts and folder.is_dir() else mount


def _limit(folder: Path, is_new: bool, size: int, processes: int) -> Group:
    if not is_new:
        (folder / "memory.limit_in_bytes").write_text(str(size))
        _try(folder / "memory.memsw.limit_in_bytes", str(size))  # with swap
        return Group(folder, "memory.oom_control")
    (folder / "memory.max").write_text(str(size))
    _try(folder / "memory.swap.max", "0")
    _try(folder / "memory.oom.group", "1")
    _try(folder / "pids.max", str(processes))
    return Group(folder, "memory.events")


def _try(path: Path, text: str) -> None:
    """Write a limit that this system may not have."""
    with contextlib.suppress(OSError):
        if path.exists():
            path.write_text(text)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _remove(folder: Path) -> None:
    """Remove a cgroup; its last processes may take a moment to end."""
    for _ in range(50):
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)


def _sweep(parent: Path) -> None:
    """Remove empty cgroups that runs left when they were killed."""
    for folder in parent.glob(NAME.format("*", "*")):
        pid = folder.name.split("_")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):
                folder.rmdir()
