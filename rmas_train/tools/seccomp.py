"""System calls that a program may not make (seccomp). Standard library only, as in the sandbox.

Refused is what gives nothing to a program that computes, and was the way out of other sandboxes:
sockets, other processes' memory, keys, memory that belongs to no process, new namespaces, mounts,
and large parts of the kernel that only system programs use.
"""

from __future__ import annotations

import ctypes
import platform
import struct

import kernel  # beside this file; see START in python_tool

Calls = dict[str, tuple[int | None, int | None]]
# Name -> number on x86-64 and on ARM64. Refused whatever the arguments are.
REFUSED: Calls = {
    "socket": (41, 198),
    # Other processes: their memory, files and schedule.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "ioprio_set": (251, 30),
    # Keys of this user and of the session that started the run.
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    # Memory that is in no process, so that no limit of a process holds it.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # Namespaces, mounts and roots.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # Parts of the kernel that had faults, and serve system programs.
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "personality": (135, 92),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
}
# Allowed for the program's own processes only: number of the argument that has to be 0 (oneself).
OWN = {
    "prlimit64": ((302, 261), 0),
    "sched_setaffinity": ((203, 122), 0),
    "sched_setparam": ((142, 118), 0),
    "sched_setscheduler": ((144, 119), 0),
    "sched_setattr": ((314, 274), 0),
    "setpriority": ((141, 140), 1),
}
# Landlock does not look at these. Without a file system of its own, a program that makes them is
# told that they worked, and nothing changes: copying a file, for one, sets its mode.
ATTRIBUTES: Calls = {
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}
CLONE, CLONE3, IOCTL, MMAP = (56, 220), (435, 435), (16, 29), (9, 222)
NEW_NAMESPACES = 0x7E020000  # flags of clone
TYPE_INTO_TERMINAL = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
SHARED_NAMELESS = 0x21  # MAP_SHARED and MAP_ANONYMOUS: stays when hardly any of it is mapped
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, BACK = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
REFUSE, UNKNOWN, IGNORE = 0x00050001, 0x00050026, 0x00050000  # EPERM, ENOSYS, no error
ALLOW, KILL = 0x7FFF0000, 0x80000000

Line = tuple[int, int, int, int]


def refuse_calls(is_closed: bool) -> bool:
    """Refuse these calls from now on, also after ``execve``; needs ``no_new_privileges``.

    ``is_closed``: the program has a file system of its own.
    """
    if platform.machine() not in ARCHITECTURES:
        return False
    program = lines(platform.machine(), is_closed)
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    return kernel.LIBC.prctl(kernel.PR_SECCOMP, ctypes.c_ulong(2), header, 0, 0) == 0


def lines(machine: str, is_closed: bool) -> list[Line]:
    """The filter. Calls of another architecture end the process."""
    on = list(ARCHITECTURES).index(machine)
    program: list[Line] = [
        (LOAD, 0, 0, 4),  # the architecture
        (EQUAL, 1, 0, ARCHITECTURES[machine]),
        (BACK, 0, 0, KILL),
        (LOAD, 0, 0, 0),  # the number of the call
        *_when(X32, REFUSE, AT_LEAST),
        *_when(CLONE3[on], UNKNOWN),  # libraries then use clone, whose flags can be seen
    ]
    ignored = {} if is_closed else ATTRIBUTES
    for names, answer in ((REFUSED, REFUSE), (ignored, IGNORE)):
        for number in (numbers[on] for numbers in names.values()):
            program += _when(number, answer) if number is not None else []
    for numbers, argument in OWN.values():
        program += _look(numbers[on], argument, [(EQUAL, 1, 0, 0), (BACK, 0, 0, REFUSE)])
    program += _look(CLONE[on], 0, _when(NEW_NAMESPACES, REFUSE, ANY_BIT))
    typed = [line for code in TYPE_INTO_TERMINAL for line in _when(code, REFUSE)]
    program += _look(IOCTL[on], 1, typed)
    shared = [(AND, 0, 0, SHARED_NAMELESS), *_when(SHARED_NAMELESS, REFUSE)]
    return [*program, *_look(MMAP[on], 3, shared), (BACK, 0, 0, ALLOW)]


def _when(value: int, answer: int, test: int = EQUAL) -> list[Line]:
    """If what is loaded is this value, this is the answer."""
    return [(test, 0, 1, value), (BACK, 0, 0, answer)]


def _look(number: int, argument: int, tests: list[Line]) -> list[Line]:
    """For one call, look at the lower half of an argument (both machines are little-endian)."""
    inside = [(LOAD, 0, 0, 16 + 8 * argument), *tests, (BACK, 0, 0, ALLOW)]
    return [(EQUAL, 0, len(inside), number), *inside]
