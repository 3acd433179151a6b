"""The tool ``python``: runs a program that the decoder wrote, in a sandbox in its own process.

It is off unless ``allow_code_execution=true``. docs/tools.md says what the sandbox can and cannot
do.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from rmas_train.errors import ConfigError, SandboxWarning
from rmas_train.tools.cgroup import Group, own_group

# The sandbox is imported from its folder, because importing the package would load much more.
START = "import sys; sys.path.append({!r}); import sandbox; sandbox.main()"
GRACE = 5.0  # seconds that the guard may take beyond the program's time
FLOOD = 2**24  # bytes of output after which a program is ended
PROTECTIONS = {
    "network": "reach the network",
    "files": "read and write your files",
    "processes": "see and end your processes and read their environment",
    "user": "act with your user's rights, root's",
    "memory": "hide memory from its limit",
}
REASONS = {"time": "after {seconds:g} s", "memory": "at {memory_mib} MiB of memory"} | {
    "processes": "at {processes} processes",
    "output": "because it wrote too much",
}


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        seconds: wall-clock time, and processor time of each process.
        memory_mib: of all its processes together, and the address space of each.
        processes: processes and threads together.
        file_mib: of one file; of all files where the sandbox has a file system of its own.
        output_chars: characters that are kept of its output; beginning and end.
        packages: the program may import installed packages too, not only the standard library.
    """

    seconds: float = 10.0
    memory_mib: int = 512
    processes: int = 16
    file_mib: int = 64
    output_chars: int = 6000
    packages: bool = False


@dataclass(frozen=True)
class Ran:
    """The result of a program.

    Attributes:
        output: of both streams together.
        code: exit code as a shell gives it; None: the program was ended.
        why: the limit at which it was ended, a key of ``REASONS``.
        active: the ``PROTECTIONS`` that were active.
    """

    output: str
    code: int | None
    why: str | None
    active: frozenset[str]


class Output:
    """Keeps the beginning and the end of a stream of any length."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._head, self._tail, self.seen = b"", b"", 0

    def add(self, data: bytes) -> None:
        self.seen += len(data)
        room = self._most - len(self._head)
        self._head += data[:room]
        self._tail = (self._tail + data[room:])[-self._most :] if data[room:] else self._tail

    def text(self) -> str:
        left = self.seen - len(self._head) - len(self._tail)
        gap = f"\n[{left} bytes left out]\n".encode() if left else b""
        return (self._head + gap + self._tail).decode("utf-8", "replace")


class PythonTool:
    """Runs code, and returns what it printed and how it ended.

    Args:
        limits: what a program may use.

    Raises:
        ConfigError: this system cannot run a sandbox at all.
    """

    name = "python"

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.active = check(limits)

    def __call__(self, text: str) -> str:
        ran = run_python(unfenced(text), self.limits)
        parts = [ran.output.rstrip("\n")] if ran.output.strip() else []
        if ran.why is not None:
            parts.append(f"[stopped {REASONS[ran.why].format(**asdict(self.limits))}]")
        elif ran.code != 0:
            parts.append(f"[exit code {ran.code}]")
        return "\n".join(parts) or "(no output)"


def check(limits: Limits, asked: str = "tools.names=[python]") -> frozenset[str]:
    """Try the sandbox once; return the active protections and warn of the missing ones.

    Args:
        limits: of programs.
        asked: the option that asks for it, for messages.

    Raises:
        ConfigError: the sandbox does not run.
    """
    if sys.platform != "linux":
        raise ConfigError(
            f"{asked} on {sys.platform}: the sandbox needs Linux; run in a container "
            "(docs/tools.md), or leave it out."
        )
    ran = run_python("print(6 * 7)", limits)
    if (ran.output, ran.code) != ("42\n", 0):
        raise ConfigError(
            f"{asked}: the sandbox cannot run a program here ({ran.why or ran.code}: "
            f"{ran.output.strip()[:300]}); raise tools.memory_mib={limits.memory_mib} or "
            f"tools.python_seconds={limits.seconds:g}, or use a container (docs/tools.md)."
        )
    missing = [what for name, what in PROTECTIONS.items() if name not in ran.active]
    if missing:
        warnings.warn(
            f"{asked}: on this system a program that the decoder writes can "
            f"{', '.join(missing)}. Run in a container (docs/tools.md).",
            SandboxWarning,
            stacklevel=2,
        )
    return ran.active


def unfenced(text: str) -> str:
    """Code without a Markdown fence around it, which models often write."""
    lines = text.strip("\n").split("\n")
    if len(lines) > 2 and lines[0].strip().startswith("```") and lines[-1].strip() == "```":
        lines = lines[1:-1]
    return "\n".join(lines) + "\n"


def run_python(code: str, limits: Limits, stdin: str = "", errors: bool = True) -> Ran:
    """Run a program in the sandbox; when this returns, no process and no file of it remains.

    Args:
        code: the program.
        limits: what it may use.
        stdin: what it reads.
        errors: its error stream is kept, mixed with its output; False: left out.
    """
    given = {"code": code, "stdin": stdin, "errors": errors}
    size = limits.memory_mib, limits.file_mib, limits.processes
    with _folder() as folder, own_group(*size) as group:
        output = Output(2 * limits.output_chars)
        lines = _guarded(given, folder, limits, group, output)
        was_full = group is not None and group.was_full()
    facts = [json.loads(line) for line in lines.splitlines()]
    found = {key: value for fact in facts for key, value in fact.items()}
    if "failed" in found:
        return Ran(f"{found['failed']} {output.text()}", None, None, frozenset())
    active = frozenset(found.get("active", []))  # no last line: the guard did not finish in time
    why = found.get("why", "time")
    if was_full and why in (None, "time"):  # the kernel has ended a part of it
        why = "memory"
    return Ran(output.text(), found.get("exit") if why is None else None, why, active)


def _guarded(
    given: dict[str, Any], folder: str, limits: Limits, group: Group | None, output: Output
) -> bytes:
    """Start the guard, give it the program, and wait; returns its lines."""
    reads, writes = os.pipe()
    handles = [writes]
    with os.fdopen(reads, "rb", buffering=0) as notes:
        try:
            if group is not None:
                handles.append(os.open(group.folder / "cgroup.procs", os.O_WRONLY))
            process = _start(folder, handles)
        finally:
            for handle in handles:
                os.close(handle)
        try:
            _give(process, given, folder, limits, handles[1:])
            return _listen(process, notes, output, limits)
        finally:
            _end(process)


def _start(folder: str, handles: list[int]) -> subprocess.Popen[bytes]:
    start = START.format(str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-c", start, str(handles[0])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={},
        cwd=folder,
        pass_fds=handles,
        start_new_session=True,
    )


def _give(
    process: subprocess.Popen[bytes],
    given: dict[str, Any],
    folder: str,
    limits: Limits,
    group: list[int],
) -> None:
    """Write the job to the guard's stdin, then close it."""
    options = asdict(limits)
    del options["output_chars"]
    job = given | {"folder": folder, "parent": os.getpid()} | options
    job["group"] = group[0] if group else None
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
        stdin.write(json.dumps(job).encode())


def _listen(
    process: subprocess.Popen[bytes], notes: IO[bytes], output: Output, limits: Limits
) -> bytes:
    """Read both pipes until they close; return the guard's lines."""
    assert process.stdout is not None
    lines, end = b"", time.monotonic() + limits.seconds + GRACE
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(notes, selectors.EVENT_READ)
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is notes:
                    lines += data
                else:
                    output.add(data)
            if output.seen > FLOOD:
                process.terminate()  # the guard ends everything
    return lines


def _end(process: subprocess.Popen[bytes]) -> None:
    """End all processes, also after an error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A temporary folder that is always removed, also if a program changed its permissions."""
    folder = tempfile.mkdtemp(prefix="rmas_python_")
    try:
        yield folder
    finally:
        with contextlib.suppress(RecursionError):
            shutil.rmtree(folder, ignore_errors=True)
        if Path(folder).exists():  # folders without permissions, or thousands of nested folders
            for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
                subprocess.run([*command, "--", folder], check=False, capture_output=True)
