"""Runs of the command in a process of its own, with secrets planted around it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path

from tiny import write_rows

ROOT = Path(__file__).resolve().parents[2]
# Made up, in the real formats; joined here so that no scanner takes them for lost ones.
PLANTED = {
    "HF_TOKEN": "hf_" + "Qw8eRtYuIoPaSdFgHjKlZxCvBnM1234567",
    "HUGGING_FACE_HUB_TOKEN": "hf_" + "Zz8eRtYuIoPaSdFgHjKlZxCvBnM7654321",
    "WANDB_API_KEY": "0123456789abcdef" * 2 + "c0ffee42",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYPLANTEDKEY",
    "AWS_ACCESS_KEY_ID": "AKIA" + "PLANTED7EXAMPLE8",
    "OPENAI_API_KEY": "sk-proj-" + "Planted0123456789_abcdefghijklmnopqrstu-vw",
    "GITHUB_TOKEN": "ghp_" + "PlAnTeD0123456789aBcDeFgHiJkLmNoPqRs",
    "MY_SERVICE_PASSWORD": "correct horse planted staple",
}
NETRC = "planted-netrc-password-31415"
HUB_FILE = "hf_" + "FileTokenPlanted0123456789abcdefgh"


def forms(secret: str) -> list[bytes]:
    plain = secret.encode()
    quoted = urllib.parse.quote(secret, safe="").encode()
    # Base64 of any text with the secret inside holds one of three cores, by where it begins.
    cores = []
    for offset in range(3):
        text = base64.b64encode(b"x" * offset + plain)
        cores.append(text[(0, 2, 3)[offset] : -4].rstrip(b"="))
    return [plain, quoted, *cores, *(c.translate(bytes.maketrans(b"+/", b"-_")) for c in cores)]


def leaks(folder: Path, *outputs: str) -> list[str]:
    """Where any form of any planted secret stands: in names and bytes of files, in outputs."""
    needles = {f for s in [*PLANTED.values(), NETRC, HUB_FILE] for f in forms(s)}
    blobs = {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    blobs |= {f"name of {p}": str(p).encode() for p in folder.rglob("*")}
    blobs |= {f"output {i}": text.encode() for i, text in enumerate(outputs)}
    return [f"{where}: {n!r}" for where, blob in blobs.items() for n in needles if n in blob]


class Place:
    """A folder with tiny data and prompts, a home with key files, and the run's environment."""

    def __init__(self, path: Path, agents: dict[str, Path]) -> None:
        self.path, self.run_dir, self.home = path, path / "run", path / "home"
        write_rows(path / "data" / "train.jsonl", 24)
        write_rows(path / "data" / "test.jsonl", 4, first=100)
        (path / "prompts").mkdir()
        for name, source in (("planner", "solver"), ("critic", "planner"), ("solver", "critic")):
            text = {"user": f"<<question>> note <<message:{source}>> go"}
            (path / "prompts" / f"{name}.yaml").write_text(json.dumps(text))
        hub = self.home / ".cache" / "huggingface"
        hub.mkdir(parents=True)
        (hub / "token").write_text(HUB_FILE)
        netrc = self.home / ".netrc"
        netrc.write_text(f"machine api.wandb.ai login user password {NETRC}\n")
        netrc.chmod(0o600)
        self.options = [
            *(f"agents.{name}.model={folder}" for name, folder in agents.items()),
            *("data.name=tiny", "data.recipe=null", "data.folder=data", "data.prompts=prompts"),
            *("data.answer_pattern='(?P<answer>\\w+)'", "rounds=2", "run_dir=run"),
            *("training.inner.steps=2", "training.outer.steps=2", "training.outer.log_every=1"),
            *("training.inner.batch_size=4", "training.outer.batch_size=4"),
            *("evaluation.max_new_tokens=2", "evaluation.rounds=[1]"),
        ]

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "OMP_NUM_THREADS")}
        places = {"HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        offline = {"WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", "MPLCONFIGDIR": str(self.path)}
        return kept | places | offline | PLANTED

    def start(self, argv: list[str], patch: str = "") -> subprocess.Popen[str]:
        """The command; ``patch`` is Python that runs before it in its process."""
        code = f"import runpy\n{patch}\nrunpy.run_module('rmas_train', run_name='__main__')"
        return subprocess.Popen(
            [sys.executable, "-c", code, *self.options, *argv],
            cwd=self.path,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, argv: list[str], patch: str = "") -> subprocess.CompletedProcess[str]:
        process = self.start(argv, patch)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)
