"""Functions of the Linux kernel that confine a process. Standard library only, as in the sandbox.

Systems differ in what they allow, so every function returns whether it worked. docs/tools.md says
what is not protected if one does not.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable

LIBC = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    *(0x00020000, 0x04000000, 0x08000000),
    *(0x10000000, 0x20000000, 0x40000000),
)
PR_DEATH_SIGNAL, PR_DUMPABLE, PR_SECCOMP, PR_FORGET_CAPABILITY = 1, 4, 22, 24
PR_REAPER, PR_NO_NEW_PRIVS = 36, 38
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446  # the same on every machine
LANDLOCK_FILE = 0b1100000000000111  # the rights that apply to a file; others apply to folders only
LANDLOCK_READ = 0b1101  # execute, read a file, list a folder
KEYCTL, JOIN_SESSION_KEYRING = {"x86_64": 250, "aarch64": 219}, 1
NOBODY = 65534


def prctl(option: int, value: int) -> bool:
    return LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0


def die_with_parent(signal_number: int) -> None:
    """Get this signal when the parent process ends for any reason."""
    prctl(PR_DEATH_SIGNAL, signal_number)


def adopt_orphans() -> None:
    """Descendants whose parent ends become children of this process."""
    prctl(PR_REAPER, 1)


def be_readable(yes: bool) -> None:
    """Whether processes of the same user may read this one's memory and environment."""
    prctl(PR_DUMPABLE, int(yes))


def new_keyring() -> bool:
    """An empty session keyring in place of the one that holds the run's keys."""
    number = KEYCTL.get(platform.machine())
    return number is not None and LIBC.syscall(number, JOIN_SESSION_KEYRING, None) >= 0


def unshare(flag: int) -> bool:
    """Create a namespace of this kind for this process."""
    return LIBC.unshare(flag) == 0


def own_user() -> bool:
    """A user namespace in which this user is an ordinary user and no other user exists."""
    uid, gid = os.getuid(), os.getgid()
    # Root gets another id inside: with root's privileges a program could undo the protections.
    inside = uid or NOBODY, gid or NOBODY
    if not unshare(NEWUSER):
        return False
    be_readable(True)  # otherwise the files below belong to root
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{inside[0]} {uid} 1")
    _write("/proc/self/gid_map", f"{inside[1]} {gid} 1")
    _write("/proc/sys/user/max_user_namespaces", "0", needed=False)  # for this namespace only
    return True


def become(uid: int) -> bool:
    """Become another user, without groups or privileges; this cannot be undone."""
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError:
        return False
    return True


def no_new_privileges() -> None:
    """Give up root's rights, and never gain new rights by executing a program."""
    prctl(PR_NO_NEW_PRIVS, 1)
    for capability in range(64):
        prctl(PR_FORGET_CAPABILITY, capability)
    header, empty = struct.pack("Ii", 0x20080522, 0), bytes(24)
    LIBC.capset(header, empty)


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """See mount(2).

    Raises:
        OSError: refused.
    """
    arguments = [source.encode(), target.encode(), kind.encode() if kind else None]
    if LIBC.mount(*arguments, ctypes.c_ulong(flags), options.encode() or None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def change_root(folder: str) -> None:
    """Make this folder ``/``; no other file can be reached.

    Raises:
        OSError: refused.
    """
    os.chdir(folder)
    pivot = {"x86_64": 155, "aarch64": 41}.get(platform.machine())
    if pivot is None or LIBC.syscall(pivot, b".", b".") != 0:
        raise OSError(ctypes.get_errno(), "pivot_root", folder)
    if LIBC.umount2(b".", 2) != 0:  # MNT_DETACH
        raise OSError(ctypes.get_errno(), "umount", folder)
    os.chdir("/")


def landlock(readable: Iterable[str], writable: Iterable[str]) -> int:
    """Allow files only below these folders, no TCP, no signals to processes outside.

    Returns the kernel's version of Landlock, or 0. Needs no rights, only ``no_new_privileges``.
    Signals are covered from version 6 on.
    """
    version = LIBC.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return 0
    bits = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    everything = (1 << bits) - 1
    attribute = struct.pack("QQQ", everything, 0b11 if version >= 4 else 0, 0b11)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = LIBC.syscall(LANDLOCK_CREATE, attribute, size, 0)
    if rules < 0:
        return 0
    for paths, rights in ((readable, LANDLOCK_READ), (writable, everything)):
        for path in paths:
            _allow(rules, path, rights & everything)
    done = LIBC.syscall(LANDLOCK_RESTRICT, rules, 0) == 0
    os.close(rules)
    return version if done else 0


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):  # noqa: PTH112
        rights &= LANDLOCK_FILE
    LIBC.syscall(LANDLOCK_ADD, rules, 1, struct.pack("=Qi", rights, handle), 0)
    os.close(handle)


def _write(path: str, text: str, needed: bool = True) -> None:
    try:
        handle = os.open(path, os.O_WRONLY)
        try:
            os.write(handle, text.encode())
        finally:
            os.close(handle)
    except OSError:
        if needed:
            raise
