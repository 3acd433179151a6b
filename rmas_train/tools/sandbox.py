"""Runs one Python program in the sandbox; a process of its own, started by ``python_tool``.

There are three processes: the *guard* (this one, which ends the others in time), the *first*
process of the new namespaces, and the program. Only the standard library is used, so the sandbox
starts in milliseconds. The guard reports lines of JSON over its own pipe, which the program cannot
reach.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import fence  # beside this file; see START in python_tool
import kernel
import seccomp

SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
FIRST_USER = 1_879_048_192  # plus the process id: user ids that no other user has
LOOK = 0.05  # seconds between two checks of the program's use
MIB = 2**20


@dataclass(frozen=True)
class Job:
    """The program and its limits; see ``python_tool.Limits`` and ``run_python``."""

    code: str
    folder: str
    parent: int
    seconds: float
    memory_mib: int
    processes: int
    file_mib: int
    packages: bool
    stdin: str = ""
    errors: bool = True
    group: int | None = None  # handle of its cgroup's list of processes


@dataclass(frozen=True)
class Shield:
    """The protections that this system offers.

    Attributes:
        mounts, pids, network: namespaces.
        uid: user id that the first process takes; None: unchanged.
        is_root, is_other: the caller is root; the program's user is not the caller.
        tasks: threads that the user had before.
    """

    mounts: bool
    pids: bool
    network: bool
    uid: int | None
    is_root: bool
    is_other: bool
    tasks: int


def main() -> None:
    pipe = int(sys.argv[1])
    os.umask(0o022)
    job = Job(**json.load(sys.stdin))
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    kernel.die_with_parent(signal.SIGTERM)
    if os.getppid() != job.parent:
        return
    kernel.adopt_orphans()
    kernel.new_keyring()
    shield = shut_in(job)
    kernel.die_with_parent(signal.SIGTERM)  # again, because a change of user resets it
    first = os.fork()
    if first == 0:
        run_first(job, shield, pipe)
    if job.group is not None:
        os.close(job.group)
    kernel.be_readable(False)
    report(pipe, watch(first, job))


def shut_in(job: Job) -> Shield:
    """Create namespaces: directly as root, otherwise inside a new user namespace."""
    is_root, uid = os.geteuid() == 0, None
    program = fence.interpreter(job.packages)
    direct = is_root and kernel.unshare(kernel.NEWNS)
    is_other = is_root and (direct or fence.all_may_read(program))
    if is_other:
        uid = FIRST_USER + os.getpid() % MIB
        os.chown(job.folder, uid, uid)
    if is_other and not direct:
        is_other = kernel.become(uid)
        uid = None
    mounts = direct or (kernel.own_user() and kernel.unshare(kernel.NEWNS))
    for flag in (kernel.NEWIPC, kernel.NEWUTS):
        kernel.unshare(flag)
    network = kernel.unshare(kernel.NEWNET)
    pids, tasks = kernel.unshare(kernel.NEWPID), fence.tasks_of_user()
    return Shield(mounts, pids, network, uid, is_root, is_other, tasks)


def run_first(job: Job, shield: Shield, pipe: int) -> None:
    """Apply the protections from inside, report them, and run the program. Does not return."""
    try:
        kernel.die_with_parent(signal.SIGKILL)
        has_group = join(job.group)
        walls = fence.build(job, shield) if shield.mounts else fence.none(job)
        is_other = shield.is_other and (shield.uid is None or kernel.become(shield.uid))
        Path(walls.work, "main.py").write_text(job.code, encoding="utf-8", errors="replace")
        given = hidden(Path(walls.work, "stdin"), job.stdin)
        kernel.die_with_parent(signal.SIGKILL)
        kernel.be_readable(False)
        os.chdir(walls.work)
        limit(job, shield.tasks)
        kernel.no_new_privileges()
        version = kernel.landlock(walls.readable, walls.writable)
        is_filtered = seccomp.refuse_calls(walls.closed)
        # Landlock alone lets a program change modes and times of files.
        has_files = walls.closed or (version > 0 and is_filtered)
        found = {
            "network": shield.network or is_filtered,
            "files": has_files,
            "processes": shield.pids or is_other or version >= 6,
            "user": is_other or not shield.is_root,
            "memory": has_group or (is_filtered and has_files),
        }
        report(pipe, {"active": sorted(k for k, yes in found.items() if yes)})
        os.set_inheritable(pipe, False)
        program(job, shield.pids, given)
    except BaseException as error:  # this is a fork of the guard; it must not continue as the guard
        report(pipe, {"failed": f"{type(error).__name__}: {error}"})
    os._exit(125)


def join(group: int | None) -> bool:
    """Enter the cgroup, whose limits hold for this process and all that come of it."""
    if group is None:
        return False
    try:
        return os.write(group, b"0") > 0
    except OSError:  # the guard counts memory in any case
        return False
    finally:
        os.close(group)


def limit(job: Job, tasks: int) -> None:
    """Set hard limits, which apply to each process; the guard adds up the use of all processes.

    ``tasks``: threads of the user outside; kernels before 5.14 count them inside a namespace too.
    """
    is_old = tuple(map(int, os.uname().release.split(".")[:2])) < (5, 14)
    tasks = tasks if is_old else fence.tasks_of_user()
    wanted = {
        resource.RLIMIT_AS: job.memory_mib * MIB,
        resource.RLIMIT_CPU: int(job.seconds) + 1,
        resource.RLIMIT_NPROC: tasks + job.processes,
        resource.RLIMIT_FSIZE: job.file_mib * MIB,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for kind, value in wanted.items():
        most = resource.getrlimit(kind)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))
    os.nice(10)  # the guard and the run have priority


def hidden(path: Path, text: str) -> int:
    """A handle of a file with the text that has no name any more, so that it is read only once."""
    path.write_text(text, encoding="utf-8", errors="replace")
    handle = os.open(path, os.O_RDONLY)
    path.unlink()
    return handle


def program(job: Job, is_init: bool, given: int) -> None:
    """Become the program; the first process of a namespace waits for it and for its orphans.

    ``given``: handle of what it reads as stdin.
    """
    command = [*fence.interpreter(job.packages)[:1], "-I", "-B", "-X", "utf8"]
    command += [] if job.packages else ["-S"]
    child = os.fork() if is_init else 0
    if child == 0:
        # A program that uses packages gets one variable: the number of their threads.
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} if job.packages else {}
        os.dup2(given, 0)
        if not job.errors:
            os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.execve(command[0], [*command, "main.py"], threads)
    os.closerange(0, 3)
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(exit_code(status))


def exit_code(status: int) -> int:
    """The exit code as a shell reports it: 128 plus the signal for a killed process."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def watch(first: int, job: Job) -> dict[str, object]:
    """Wait for the program, end it at a limit, and end all processes that it left."""
    end, look = time.monotonic() + job.seconds, 0.0
    why: str | None = None
    status: int | None = None
    while why is None and status is None:
        now = time.monotonic()
        if now >= end:
            why = "time"
        elif now >= look:
            began = time.monotonic()
            why = over(job)
            look = time.monotonic() + max(LOOK, 5 * (time.monotonic() - began))
        pause = max(0.0, min(end, look) - time.monotonic())
        got = signal.sigtimedwait(SIGNALS, pause) if why is None else None
        if got is not None and got.si_signo != signal.SIGCHLD:
            why = "output"
        pid, ended = os.waitpid(first, os.WNOHANG)
        status = ended if pid else None
    end_all()
    return {"why": why, "exit": None if why or status is None else exit_code(status)}


def over(job: Job) -> str | None:
    """The limit that all processes of the program together exceed, if any."""
    uses = [fence.use(pid) for pid in fence.descendants(os.getpid())]
    if sum(threads for threads, _ in uses) > 2 * job.processes + 2:
        return "processes"  # in case the system's own limit does not apply
    return "memory" if sum(size for _, size in uses) > job.memory_mib * MIB else None


def end_all() -> None:
    """Kill until no process is left; orphans have become children of the guard."""
    while True:
        for pid in fence.descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def report(pipe: int, facts: dict[str, object]) -> None:
    os.write(pipe, (json.dumps(facts) + "\n").encode())
