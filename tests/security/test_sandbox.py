"""Programs that the decoder writes stay in the sandbox: real attacks, layer by layer."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
import yaml
from planted import ROOT

from rmas_train.__main__ import main
from rmas_train.errors import SandboxWarning
from rmas_train.tools.python_tool import PROTECTIONS, Limits, PythonTool, run_python, unfenced

HERE = Path(__file__).parent
LIMITS = Limits(seconds=5.0)
ALL = set(PROTECTIONS)
# Who runs it, what the system is made to lack, and which protections have to be there still.
SYSTEMS = {
    "user": (1000, "-", ALL),
    "container": (0, "namespaces", ALL),
    "container_user": (1000, "namespaces", ALL),
    "container_without_seccomp": (1000, "namespaces,seccomp", {"processes", "user"}),
    "old_container": (0, "namespaces,landlock,seccomp", {"processes", "user"}),
    "old_container_user": (1000, "namespaces,landlock,seccomp", {"user"}),
}
# What ends it: exit codes, and limits.
ENDS = {
    "fork_bomb": {"time", "processes"},
    "fork_and_leave": {0, "time", "processes"},
    "threads": {1, "time"},
    "memory": {1, "memory"},
    "memory_slowly": {1, "memory", "time"},
    "memory_of_many": {"memory", "time", 1},
    "output": {"output", "time"},
    "output_of_bytes": {"output", "time"},
    "sleep": {"time"},
    "busy": {"time"},
    "deaf": {"time"},
    "stopped": {"time"},
    "quiet": {"time"},
    "file": {1},
    "files": {1, "time"},
    "deep": {0, 1, "time"},
    "no_rights": {0},
    "report": {9},
    "input": {3},
    "recursion": {1, 139, "time", "memory"},
    "not_text": {4},
    "not_python": {1},
}


@pytest.fixture
def place():
    """A folder that everybody may read, with the sandbox alone, and one that all may write to."""
    folder = Path(tempfile.mkdtemp(prefix="rmas_attacks_"))
    folder.chmod(0o755)
    package = folder / "rmas_train"
    shutil.copytree(ROOT / "rmas_train" / "tools", package / "tools")
    shutil.copy(ROOT / "rmas_train" / "errors.py", package)
    (package / "__init__.py").touch()
    for name in ("attacks.py", "confine.py"):
        shutil.copy(HERE / name, folder)
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def interpreter() -> str:
    """One that any user may run."""
    for path in (Path(sys.executable).resolve(), Path("/usr/bin/python3")):
        if path.exists() and all(p.stat().st_mode & 1 for p in (path, *path.parents)):
            return str(path)
    raise AssertionError("no Python that every user may run; install the system's python3")


def attack(place: Path, before: list[str], python: str) -> dict:
    command = [*before, python, str(place / "attacks.py"), str(place / "open")]
    done = subprocess.run(
        command,
        cwd=place,
        env={"PYTHONPATH": str(place), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def check_found(found: dict, folders_before: set[str]) -> None:
    active = set(found["active"])
    kinds = {name.split(":")[0] for name in found["stopped"]}
    assert kinds == active, "every protection that is promised was attacked"
    for name, what in found["stopped"].items():
        assert not any(what["signs"].values()), f"{name} got through: {what}"
    assert set(found["limited"]) == set(ENDS)
    for name, what in found["limited"].items():
        end = what["why"] or what["code"]
        assert end in ENDS[name], f"{name}: {what}"
        assert what["seconds"] < 30 and what["chars"] < 10_000, f"{name}: {what}"
    assert len(found["warnings"]) == (active != ALL)
    for name, words in PROTECTIONS.items():
        assert (name in active) != (words in "".join(found["warnings"]))
    assert programs() == [] and folders() <= folders_before


def programs() -> list[str]:
    """Of a sandbox, still running."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[1:5] == [b"-I", b"-B", b"-X", b"utf8"]:
            found.append(str(words))
    return found


def folders() -> set[str]:
    return {p.name for p in Path("/tmp").glob("rmas_python_*")}


@pytest.fixture
def alone():
    """One attack at a time on this machine: each looks for what it has left behind anywhere."""
    with (Path(tempfile.gettempdir()) / "rmas_attacks.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_attacks_on_this_system(place):
    before = folders()
    found = attack(place, [], sys.executable)
    check_found(found, before)


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("system", SYSTEMS)
def test_attacks_where_the_system_gives_less(place, system):
    """As root of a machine every case is real; as another user, its own user is everyone."""
    uid, missing, expected = SYSTEMS[system]
    before = folders()
    python = interpreter()
    command = [python, str(place / "confine.py"), str(uid), missing]
    found = attack(place, command, python)
    if os.getuid() == 0:  # whether root may make a cgroup is for the system to say
        free = {"memory"} if (uid, missing) == SYSTEMS["old_container"][:2] else set()
        assert set(found["active"]) - free == expected
    check_found(found, before)


def test_the_environment_is_empty(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "planted")
    ran = run_python("import os; print(sorted(os.environ)); print(os.getcwd())", LIMITS)
    # Python itself sets this one where it finds none.
    assert ran.output.splitlines()[0] in ("[]", "['LC_CTYPE']"), ran


def test_nothing_stays_from_call_to_call():
    run_python("open('left', 'w').write('x')", LIMITS)
    assert run_python("import os; print(os.listdir('.'))", LIMITS).output == "['main.py']\n"


def test_packages_are_there_only_if_asked_for():
    code = "import numpy; print(numpy.arange(3).sum())"
    assert "ModuleNotFoundError" in run_python(code, LIMITS).output
    limits = Limits(seconds=60.0, memory_mib=2048, packages=True)
    found = run_python(code, limits)
    assert (found.output, found.code) == ("3\n", 0)
    write = "import numpy, pathlib; pathlib.Path(numpy.__file__).with_name('planted').touch()"
    assert "Error" in run_python(write, limits).output
    import numpy

    assert not Path(numpy.__file__).with_name("planted").exists()


def test_what_the_decoder_reads():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SandboxWarning)
        tool = PythonTool(LIMITS)
        quick = PythonTool(Limits(seconds=1.0))
    assert tool("print(6 * 7)") == "42"
    assert tool("```python\nprint('é')\n```") == "é"
    assert tool("x = 1") == "(no output)"
    assert tool("1 / 0").endswith("ZeroDivisionError: division by zero\n[exit code 1]")
    assert tool("print(1); import os; os._exit(3)").endswith("[exit code 3]")
    assert quick("while True: pass") == "[stopped after 1 s]"
    assert tool("\ud800") != "", "half a surrogate pair is no crash"
    assert unfenced("a\n") == "a\n"


def test_a_run_says_what_the_option_means(overrides, capsys):
    assert main([*overrides, "tools.names=[python]"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "add allow_code_execution=true" in error
    typed = ["allow_code_execution=true", "tools.names=[python]"]
    for more in ("evaluation.decoding=static", "runtime.placement=sharded"):
        assert main([*overrides, *typed, more]) == 2
        assert more in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"allow_code_execution": True, "tools": {"names": ["python"]}}, "allow_code_execution"),
        ({"allow_code_execution": True}, "allow_code_execution"),
        ({"tools": {"search_url": "https://evil.example/search"}}, "tools.search_url"),
    ],
)
def test_a_saved_config_cannot_switch_it_on(finished, tmp_path, capsys, change, key):
    """Somebody's run folder says so; the person at the keyboard has to."""
    place, _ = finished
    config = yaml.safe_load((place.run_dir / "outer" / "config.yaml").read_text())
    config["tools"] |= change.pop("tools", {})
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "config.yaml").write_text(yaml.safe_dump(config | change))
    assert main(["stage=eval", f"run={theirs}"]) == 2
    error = capsys.readouterr().err
    assert f"add {key}=" in error and len(error.splitlines()) == 1
