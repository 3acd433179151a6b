"""Each way out of the sandbox that we know of is closed; the attempts themselves are right."""

import contextlib
import ctypes
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest
from escapes import CALLS, EACH, LIMITED, OUTSIDE, PRELUDE, WITHOUT_RIGHTS

from rmas_train.tools import cgroup, python_tool
from rmas_train.tools.python_tool import Limits, run_python

LIBC = ctypes.CDLL(None, use_errno=True)
LIMITS = Limits(seconds=2.0, memory_mib=256, processes=12, file_mib=64)
KEYCTL, ADD_KEY = (219, 217) if platform.machine() == "aarch64" else (250, 248)
SESSION = -3


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A home folder with a key, which any user could read."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir()
    (home / ".ssh" / "id_rsa").write_text("planted key")
    for folder in (home, *home.parents):
        if "pytest" in str(folder) and folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o55)
    return home


@pytest.fixture(scope="module")
def victim(home):
    """A process beside the run, whose memory and schedule a program could want."""
    env = {"PLANTED_API_KEY": "planted"}
    with subprocess.Popen(["sleep", "1000"], env=env) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def names(home, victim):
    """What stands in the programs: a process, an address in it, and a key of this session."""
    lines = Path(f"/proc/{victim.pid}/maps").read_text().splitlines()
    place = next(line for line in lines if " rw-p " in line).split("-")[0]
    key = LIBC.syscall(ADD_KEY, b"user", b"rmas-planted", b"planted", 7, SESSION)
    ring = LIBC.syscall(KEYCTL, 0, SESSION, 0)
    yield {
        **{"parent": victim.pid, "address": int(place, 16), "home": home},
        **{"key": max(key, 0), "ring": max(ring, 0)},
    }
    LIBC.syscall(KEYCTL, 3, key)  # revoke


def outcome(output: str) -> str:
    assert "tried\n" in output, output
    return output.split("tried\n")[1].split()[0]


@pytest.fixture(scope="module")
def calls(names) -> dict[str, str]:
    """What each program of ``CALLS`` printed, all in one sandbox."""
    programs = {name: program.format(**names) for name, program in CALLS.items()}
    limits = Limits(seconds=20.0, memory_mib=256, processes=12, output_chars=2**20)
    ran = run_python(f"programs = {programs!r}\n{PRELUDE}{EACH}", limits)
    parts = (part.partition("\n")[::2] for part in ran.output.split("program ")[1:])
    return dict(parts)


@pytest.mark.parametrize("name", CALLS)
def test_no_call_gives_a_way_out(calls, name):
    assert outcome(calls[name]) == "stopped", f"{name}: {calls[name]}"


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_outside_is_reached(names, victim, name):
    ran = run_python(PRELUDE + OUTSIDE[name].format(**names), LIMITS)
    if not {"files", "processes"} <= ran.active:
        pytest.skip("neither namespaces nor Landlock: a run warns that this can be reached")
    assert outcome(ran.output) == "stopped", f"{name}: {ran}"
    assert victim.poll() is None and ran.why is None
    assert not Path(f"/dev/shm/rmas_{victim.pid}").exists() and os.uname().nodename != "taken"


@pytest.mark.parametrize("name", sorted(WITHOUT_RIGHTS))
def test_the_attempts_succeed_where_nothing_stops_them(names, name):
    """Otherwise the test above would pass because of a mistake in the program."""
    if "key" in name and names["key"] == 0:
        pytest.xfail("this kernel, or the container, has no keyrings")
    program = PRELUDE + CALLS[name].format(**names)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert outcome(done.stdout) == "reached", done


@pytest.mark.parametrize("counted_by", ["system", "guard"])
@pytest.mark.parametrize("name", LIMITED)
def test_all_that_is_used_is_counted(monkeypatch, name, counted_by):
    program, ends = LIMITED[name]
    if counted_by == "guard":  # as where no cgroup may be made
        if "memory" not in ends:
            return
        monkeypatch.setattr(python_tool, "own_group", lambda *_: contextlib.nullcontext())
    began = time.monotonic()
    ran = run_python(PRELUDE + program, LIMITS)
    assert (ran.why or ran.code) in ends, ran
    assert time.monotonic() - began < LIMITS.seconds + 3


def test_nobody_outlives_the_program(tmp_path):
    """Also a process in a session of its own, whose parents have ended, and that hears nothing."""
    mark = f"left{os.getpid()}"  # the name of its processes
    program = (
        f"import ctypes; ctypes.CDLL(None).prctl(15, b'{mark}')\n"
        "import os, signal, time\nfor s in range(1, 32):\n"
        "  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\n"
        "if os.fork() == 0:\n  os.setsid()\n  if os.fork(): os._exit(0)\n  os.closerange(0, 99)\n"
        "  time.sleep(917)\nprint('left')"
    )
    assert run_python(program, LIMITS).output == "left\n"
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            assert path.read_text().strip() != mark, path


@pytest.mark.parametrize("where", ["own file system", "folder on the disk"])
def test_links_of_a_program_lead_nowhere_when_its_folder_is_removed(monkeypatch, tmp_path, where):
    """The folder is cleared with our rights: a link to a folder of ours must not be followed."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("ours")
    if where == "folder on the disk":
        made = python_tool._folder

        @contextlib.contextmanager
        def planted():
            with made() as folder:
                yield folder
                Path(folder, "planted").symlink_to(kept)
                Path(folder, "deep").mkdir()
                Path(folder, "deep", "link").symlink_to(kept / "file")
                Path(folder, "deep").chmod(0)

        monkeypatch.setattr(python_tool, "_folder", planted)
    run_python(f"import os; os.symlink({str(kept)!r}, 'link'); os.rename('main.py', 'x')", LIMITS)
    assert (kept / "file").read_text() == "ours" and kept.stat().st_mode & 0o700 == 0o700


def test_a_program_has_keys_of_its_own_session_only(names):
    """Its session keyring is new, also where no filter refuses the calls."""
    code = (
        "import sys; sys.path.append({!r}); import ctypes, kernel; kernel.new_keyring(); "
        "print(ctypes.CDLL(None).syscall({}, 10, -3, b'user', b'rmas-planted', 0))"
    )
    if names["key"] == 0:
        pytest.xfail("this kernel, or the container, has no keyrings")
    folder = str(Path(python_tool.__file__).parent)
    command = [sys.executable, "-c", code.format(folder, KEYCTL)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "-1\n"


# A system of version 2, as files: name -> its text.
NEW = {"cgroup.controllers": "cpu memory pids", "app/cgroup.subtree_control": "memory pids"}


def test_a_cgroup_of_version_2_is_a_sibling_with_limits(monkeypatch, tmp_path):
    own = tmp_path / "app" / "run.scope"
    own.mkdir(parents=True)
    for name, text in NEW.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "list").write_text("0::/app/run.scope\n")
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path)
    monkeypatch.setattr(cgroup, "LIST", tmp_path / "list")
    assert list(cgroup.places()) == [(tmp_path / "app", True)]
    monkeypatch.setattr(cgroup, "_try", lambda path, text: path.write_text(text))
    with cgroup.own_group(256, 64, 12) as group:
        assert group is not None and group.folder.parent == tmp_path / "app"
        assert (group.folder / "memory.max").read_text() == str((256 + 64 + 32) * 2**20)
        assert (group.folder / "memory.swap.max").read_text() == "0"
        assert (group.folder / "pids.max").read_text() == "16"
        assert not group.was_full()
        (group.folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
        assert group.was_full()
        for file in group.folder.iterdir():  # the kernel's own vanish with the folder
            file.unlink()
    assert not list((tmp_path / "app").glob("rmas_python_*"))


@pytest.mark.parametrize(
    "listed", ["", "0::/\n", "4:memory:/a\n", "1:name=systemd:/\n", "no list\n"]
)
def test_without_a_cgroup_the_guard_counts(monkeypatch, tmp_path, listed):
    (tmp_path / "list").write_text(listed)
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path / "none")
    monkeypatch.setattr(cgroup, "LIST", tmp_path / "list")
    with cgroup.own_group(256, 64, 12) as group:
        assert group is None
