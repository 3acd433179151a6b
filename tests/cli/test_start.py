"""What answers at once: nothing heavy is imported before a run begins."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from launching import environment

import rmas_train

LIMIT = 1.0  # processor seconds, user and system
HEAVY = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "matplotlib",
    "numpy",
    "huggingface_hub",
)
QUICK = [
    ["--help"],
    ["--version"],
    ["links", "--help"],
    ["foo=1"],
    ["--foo"],
    ["rounds=0"],
    ["-m", "foo=1,2"],
]


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start(code: list[str], folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *code], cwd=folder, env=environment(), capture_output=True, text=True
    )


@pytest.mark.parametrize("typed", QUICK, ids=" ".join)
def test_answers_within_a_second_of_processor_time(typed, tmp_path):
    start(["-m", "rmas_train", *typed], tmp_path)  # the first one may write bytecode
    before = processor_seconds()
    done = start(["-m", "rmas_train", *typed], tmp_path)
    assert processor_seconds() - before < LIMIT
    assert done.returncode == (0 if typed[-1] in ("--help", "--version") else 2), done.stderr


@pytest.mark.parametrize("typed", QUICK, ids=" ".join)
def test_imports_nothing_heavy(typed, tmp_path):
    code = (
        "import sys, contextlib\n"
        "from rmas_train.__main__ import main\n"
        "with contextlib.suppress(SystemExit):\n"
        f"    main({typed!r})\n"
        f"print('loaded:', [m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    done = start(["-c", code], tmp_path)
    assert done.stdout.splitlines()[-1] == "loaded: []", done.stdout + done.stderr


def test_the_public_names_are_all_there():
    assert set(rmas_train.__all__) <= set(dir(rmas_train))
    for name in rmas_train.__all__:
        assert getattr(rmas_train, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lood'"):
        _ = rmas_train.lood


def test_a_config_from_typed_words_is_that_of_the_command_line():
    from rmas_train.compose import compose

    typed = ["experiment=none", "rounds=5"]
    assert rmas_train.config_from(typed) == compose(typed)
