"""A relay that was trained for two steps, and real processes that serve or evaluate it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from launching import environment

import rmas_train

SMALL = {
    "experiment": "relay",
    "data": {"recipe_options": {"train": 400, "test": 20}},
    "training": {"inner": {"steps": 2, "batch_size": 8}, "outer": {"steps": 2, "batch_size": 8}},
    "rounds": 1,
}
COMMAND = [sys.executable, "-m", "rmas_train"]


@pytest.fixture(scope="session")
def relay_run(tmp_path_factory) -> Path:
    """Run folder of a relay; its start is aligned, so it answers most questions of one round."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rmas_train.train(SMALL | {"run_dir": "outputs/relay"})
    return folder / "outputs" / "relay"


class Server:
    """``serve`` in a process of its own; ``url`` ends in /v1."""

    def __init__(self, typed: list[str], log: Path) -> None:
        self._log = log.open("w")
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "port=0", *typed],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment(),
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line.startswith("serving "), (line, log.read_text())
        self.url = line.split(" at ")[1].split(";")[0]
        self.log = log

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60) -> str:
        """What it printed at the end; its exit code has to be 0."""
        self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=seconds)
        self._log.close()
        assert self.process.returncode == 0, self.log.read_text()
        return said


Start = Callable[..., Server]


@contextmanager
def servers(folder: Path) -> Iterator[Start]:
    """A function that starts servers; those that still run are ended."""
    running: list[Server] = []

    def start(*typed: str) -> Server:
        running.append(Server(list(typed), folder / f"server{len(running)}.log"))
        return running[-1]

    try:
        yield start
    finally:
        for server in running:
            if server.process.poll() is None:
                server.end()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with servers(tmp_path) as function:
        yield function


@pytest.fixture(scope="module")
def relay_server(relay_run: Path, tmp_path_factory) -> Iterator[Server]:
    with servers(tmp_path_factory.mktemp("logs")) as function:
        yield function(f"run={relay_run}")
