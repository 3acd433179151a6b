"""Places to run the command in, and one finished run that several tests look at."""

import subprocess
from pathlib import Path

import pytest
from planted import PLANTED, Place


@pytest.fixture
def place(tmp_path: Path, agent_folders: dict[str, Path]) -> Place:
    return Place(tmp_path, agent_folders)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, agent_folders: dict[str, Path]):
    """A whole run with both trackers: its place and what it printed."""
    place = Place(tmp_path_factory.mktemp("finished"), agent_folders)
    remote = f"https://user:{PLANTED['GITHUB_TOKEN']}@example.com/team/code.git"
    subprocess.run(["git", "init", "-q"], cwd=place.path, check=True)
    subprocess.run(["git", "remote", "add", "origin", remote], cwd=place.path, check=True)
    done = place.run(["tracking=[tensorboard,wandb]"])
    assert done.returncode == 0, done.stderr
    return place, done
