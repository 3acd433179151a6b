"""The sandbox's own file system, and the use of resources in it. Standard library only."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kernel

READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC, REMOUNT, BIND, DEEP, PRIVATE = (
    *(1, 2, 4, 8),
    *(32, 4096, 16384, 262144),
)
OPTIONS = {"nosuid": NO_SUID, "nodev": NO_DEVICES, "noexec": NO_EXEC}
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/nix/store")
# Not /dev/zero: mapped as shared, it is memory that belongs to no process.
DEVICES = ("/dev/null", "/dev/urandom", "/dev/random")
COUNTED = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:", "RssAnon:", "RssShmem:", "VmSwap:")


@dataclass(frozen=True)
class Walls:
    """The program's working folder, and the files that it may see.

    Attributes:
        work: its folder, the only one that it may write to.
        readable, writable: paths for Landlock.
        closed: the program has a file system of its own, with no other files.
    """

    work: str
    readable: list[str]
    writable: list[str]
    closed: bool


@functools.cache  # called again when the outer files can no longer be seen
def interpreter(packages: bool) -> list[str]:
    """The interpreter that runs the program, and the folders that it needs."""
    program = sys.executable if packages else str(Path(sys.executable).resolve())
    folders = [sys.base_prefix, sys.base_exec_prefix, str(Path(program).resolve().parent)]
    if packages:
        folders += [sys.prefix, str(Path(sys.prefix).resolve()), str(Path(program).parent)]
    kept = dict.fromkeys(f for f in folders if f not in ("/", os.path.expanduser("~")))  # noqa: PTH111
    return [program, *kept]


def all_may_read(paths: list[str]) -> bool:
    """Whether a user without any rights can run the interpreter."""
    every = {p for path in paths for p in (Path(path), *Path(path).parents)}
    return all(p.stat().st_mode & stat.S_IXOTH for p in every)


def none(job: Any) -> Walls:
    """Without a file system of its own: the paths for Landlock, if Landlock is available."""
    readable = [*SYSTEM, *interpreter(job.packages)[1:], *DEVICES]
    return Walls(job.folder, readable, [job.folder, "/dev/null"], closed=False)


def build(job: Any, shield: Any) -> Walls:
    """A root folder of its own: system and interpreter read-only, ``/tmp`` in memory writable.

    Falls back to ``none`` if the system refuses a step.
    """
    root = f"{job.folder}/root"
    owner = os.getuid() if shield.uid is None else shield.uid
    try:
        # A namespace of its own again: a change of root applies to all processes of a namespace.
        if not kernel.unshare(kernel.NEWNS):
            return none(job)
        kernel.mount("none", "/", None, DEEP | PRIVATE)
        Path(root).mkdir()
        kernel.mount("none", root, "tmpfs", NO_SUID | NO_DEVICES, "size=1m,mode=755")
        shown = [*SYSTEM, *interpreter(job.packages)[1:]]
        hidden = [path for path in shown if path.startswith("/tmp/")]  # hidden by the mount below
        for path in shown:
            if path not in hidden:
                _show(root, path)
        for device in DEVICES:
            _bind(device, root + device, is_folder=False)
        _lock(root)
        _new_proc(root, shield.pids)
        Path(f"{root}/tmp").mkdir()
        size = f"size={job.file_mib}m,nr_inodes=4096,mode=700,uid={owner},gid={owner}"
        flags = NO_SUID | NO_DEVICES
        kernel.mount("none", f"{root}/tmp", "tmpfs", flags, size)
        for path in hidden:
            _show(root, path)
            _lock(str(Path(root + path).parent))
        kernel.mount("none", root, None, REMOUNT | READ_ONLY | flags, "size=1m,mode=755")
        kernel.change_root(root)
    except OSError:
        return none(job)
    return Walls("/tmp", ["/"], ["/tmp", "/dev/null"], closed=True)


def _show(root: str, path: str) -> None:
    """Show a path below the new root; a symbolic link stays a symbolic link."""
    source, target = Path(path), Path(root + path)
    if target.exists() or not source.exists():
        return
    if source.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.readlink())
        return
    _bind(path, str(target), source.is_dir())


def _bind(source: str, target: str, is_folder: bool) -> None:
    Path(target if is_folder else str(Path(target).parent)).mkdir(parents=True, exist_ok=True)
    if not is_folder:
        Path(target).touch()
    kernel.mount(source, target, None, BIND | DEEP)


def _lock(root: str) -> None:
    """Make everything that was shown read-only, including mounts inside it."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        place = fields[4].encode().decode("unicode_escape")
        if place.startswith(f"{root}/"):
            kept = sum(OPTIONS.get(option, 0) for option in fields[5].split(","))
            devices = 0 if place.startswith(f"{root}/dev/") else NO_DEVICES
            kernel.mount("none", place, None, REMOUNT | BIND | READ_ONLY | NO_SUID | devices | kept)


def _new_proc(root: str, pids: bool) -> None:
    """A ``/proc`` that shows the sandbox's own processes; if that fails, there is no ``/proc``."""
    if not pids:
        return
    Path(f"{root}/proc").mkdir()
    try:
        kernel.mount("none", f"{root}/proc", "proc", NO_SUID | NO_DEVICES | NO_EXEC)
    except OSError:  # refused where a container hides parts of the outer /proc
        return


def descendants(root: int) -> list[int]:
    """All descendants of the process ``root``, as ``/proc`` lists them."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            try:
                text = Path(f"/proc/{name}/stat").read_text(errors="replace")
            except OSError:
                continue
            parent = int(text.rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(name))
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def use(pid: int) -> tuple[int, int]:
    """Number of threads, and bytes of memory of the process; 0, 0 if it has ended."""
    try:
        threads = len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208
        return threads, memory(pid)
    except OSError:
        return 0, 0


def memory(pid: int) -> int:
    """Bytes of memory, also swapped, without files on the disk.

    A page that several processes share counts in parts, where the system tells us of them; where
    it does not, it counts for each process.
    """
    text = ""
    with contextlib.suppress(OSError):  # needs rights that root may lack in a container
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    if "Pss_Anon:" not in text:  # also before Linux 5.9
        text = Path(f"/proc/{pid}/status").read_text(errors="replace")
    lines = (line.split() for line in text.splitlines() if line.startswith(COUNTED))
    return sum(int(line[1]) for line in lines) * 1024


def tasks_of_user() -> int:
    """Threads that this user already has, as far as visible; the system's limit counts them too."""
    found = 0
    try:
        names = [n for n in os.listdir("/proc") if n.isdigit()]  # noqa: PTH208
    except OSError:
        return 1
    for name in names:
        try:
            if os.stat(f"/proc/{name}").st_uid == os.getuid():  # noqa: PTH116
                found += len(os.listdir(f"/proc/{name}/task"))  # noqa: PTH208
        except OSError:
            continue
    return max(found, 1)
