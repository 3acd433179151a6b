"""``--help`` and ``--version``: everything is there, in 80 columns."""

import subprocess
import sys
from pathlib import Path

import pytest

import rmas_train
from rmas_train.__main__ import main
from rmas_train.compose import folded, groups
from rmas_train.config import Config, describe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=[None, "40", "200"])
def columns(request, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    if request.param:
        monkeypatch.setenv("COLUMNS", request.param)


def test_help(columns, capsys):
    assert main(["rounds=3", "--help", "nonsense"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    flat = "".join(out.split())
    for key, default, meaning in describe(Config):
        assert "".join(f"{key}={default}{meaning}".split()) in flat
    for group, choices in groups().items():
        assert f"{group}={'|'.join(folded(choices))}" in flat
    for flag in ("--config FILE", "--config-dir DIR", "--show", "--version", "--multirun"):
        assert flag in out


@pytest.mark.parametrize("command", [[], ["import"], ["report"], ["push"]])
def test_help_of_links(columns, capsys, command):
    with pytest.raises(SystemExit):
        main(["links", *command, "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_every_option_has_a_meaning():
    assert all(meaning for key, _, meaning in describe(Config))


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rmas_train {rmas_train.__version__}\n"


def test_a_reader_that_has_seen_enough_gets_no_traceback():
    command = f"{sys.executable} -m rmas_train --help | head -n 1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("Usage") and done.stderr == ""


def test_output_on_a_full_disk_is_one_line():
    for flag in ("--help", "--show"):
        command = [sys.executable, "-m", "rmas_train", flag]
        with open("/dev/full", "w") as full:  # noqa: PTH123
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        (line,) = done.stderr.splitlines()[-1:]
        assert done.returncode == 2 and line.startswith("error: ") and "No space left" in line
        assert "Traceback" not in done.stderr
