"""The tutorial, followed word by word from an empty folder.

python tests/examples/test_tutorial.py docs/results/tutorial.json   # the figures of the tutorial
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from rmas_train.compose import compose

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str, str]]:
    """(language, word after it, text) of every fenced block."""
    return [m.groups() for m in BLOCK.finditer(TUTORIAL.read_text(encoding="utf-8"))]


class Reader:
    """Does what the tutorial says, in a folder with a clone of the repository beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seconds = folder, {}
        (folder / "rmas_train").symlink_to(ROOT)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._env = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def run(self, command: str) -> subprocess.CompletedProcess:
        """One line; a change of folder holds for those that follow."""
        began = time.perf_counter()
        line = f"set -e\n{command}\npwd > '{self.folder}/.pwd'"
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self._env, capture_output=True, text=True
        )
        self.seconds[command] = round(time.perf_counter() - began, 1)
        if done.returncode == 0:
            where = self.folder / ".pwd"
            self.folder = Path(where.read_text().strip())
            where.unlink()
        return done


def follow(reader: Reader) -> None:
    """Every file and command in order; a command that fails has to fail as the text shows."""
    found = blocks()
    for i, (language, word, text) in enumerate(found):
        if language in ("python", "yaml"):
            reader.write(word, text)
        elif language == "sh" and word != "install":
            for command in text.splitlines():
                done = reader.run(command)
                if word == "fails":
                    assert done.returncode == 2 and done.stderr == found[i + 1][2], done.stderr
                else:
                    assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_its_config_is_one(tmp_path, monkeypatch):
    """The quick half: every file has a name, and the config names what the tutorial makes."""
    reader = Reader(tmp_path)
    names = {word for language, word, _ in blocks() if language in ("python", "yaml")}
    assert "" not in names and {"make_rows.py", "my.yaml"} <= names
    for language, word, text in blocks():
        if language in ("python", "yaml"):
            reader.write(word, text)
    monkeypatch.chdir(tmp_path)
    config = compose(["--config=my.yaml"])
    assert {f"{config.data.prompts}/{name}.yaml" for name in config.agents} <= names
    assert reader.run("python make_rows.py").returncode == 0
    row = json.loads((tmp_path / config.data.folder / "train.jsonl").read_text().splitlines()[0])
    columns = {*config.data.role_texts.values(), *config.data.feedback_texts.values()}
    assert columns | {"question", "answer"} <= set(row)


@pytest.mark.slow
def test_it_works_word_by_word(tmp_path):
    reader = Reader(tmp_path)
    follow(reader)
    rows = json.loads((reader.folder / "outputs/my_system/results.json").read_text())["rows"]
    accuracy = {(r["system"], r["control"], r["rounds"]): r["accuracy"] for r in rows}
    assert accuracy["latent", None, 2] >= 0.9
    assert accuracy["latent", None, 2] > accuracy["latent", "start", 2]
    assert accuracy["latent", "null", 2] < 0.5 and accuracy["latent", "shuffled", 2] < 0.3


def main(path: str) -> None:
    """Follow it, and keep its times and results."""
    with tempfile.TemporaryDirectory() as folder:
        reader = Reader(Path(folder))
        follow(reader)
        out = reader.folder / "outputs"
        deeper = json.loads((out / "deeper" / "results.json").read_text())
        results = json.loads((out / "my_system" / "results.json").read_text())
    record = {
        "seconds": reader.seconds,
        "total_seconds": round(sum(reader.seconds.values()), 1),
        "rows": results["rows"],
        "rows_deeper": deeper["rows"],
        "environment": next(iter(results["runs"].values()))["environment"],
    }
    Path(path).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
