"""Runs a command with less than this system gives: ``confine.py <uid> <what is missing> command``.

What may be missing, with commas: ``namespaces`` (as in a common container), ``landlock`` and
``seccomp`` (as on an old kernel), or nothing (``-``). Run by root, the command gets the user
``uid`` of a machine with all users; run by another, it stays that one. Standard library only.
"""

import ctypes
import os
import struct
import sys
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
NEWUSER, NO_NEW_PRIVS, SECCOMP = 0x10000000, 38, 22
PRCTL = {"x86_64": 157, "aarch64": 167}


def without_namespaces() -> None:
    for kind in ("user", "mnt", "net", "pid", "ipc", "uts"):
        Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")


def without_calls(missing: list[str]) -> None:
    """A filter that answers as a kernel which does not know these calls."""
    refuse, allow = 0x00050000 | 38, 0x7FFF0000  # ENOSYS
    program = [(0x20, 0, 0, 0)]
    if "landlock" in missing:
        program += [(0x15, 0, 1, 444), (0x06, 0, 0, refuse)]
    if "seccomp" in missing:
        program += [
            (0x15, 0, 3, PRCTL[os.uname().machine]),
            (0x20, 0, 0, 16),
            (0x15, 0, 1, SECCOMP),
            (0x06, 0, 0, refuse),
        ]
    program += [(0x06, 0, 0, allow)]
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    assert LIBC.prctl(SECCOMP, ctypes.c_ulong(2), header, 0, 0) == 0


def main() -> None:
    uid, missing, command = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
    is_root, own = os.getuid() == 0, os.getuid()
    (ready, told), (go, going) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        if "namespaces" in missing:
            assert LIBC.unshare(NEWUSER) == 0
        os.write(told, b"x")
        os.read(go, 1)
        if "namespaces" in missing:
            without_namespaces()
        if {"landlock", "seccomp"} & set(missing):  # while there are rights to do so
            without_calls(missing)
        if is_root:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        os.execvp(command[0], command)
    os.read(ready, 1)
    if "namespaces" in missing:
        users = "0 0 4294967295" if is_root else f"{own} {own} 1"
        if not is_root:
            Path(f"/proc/{child}/setgroups").write_text("deny")
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{name}").write_text(users)
    os.write(going, b"x")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


main()
