"""Kill runs at random file changes, go on, and compare with runs that nobody disturbed.

    PYTHONPATH=.:tests python tests/resume/kills.py --kills 200 --seed 1 [--json FILE]

Each run is a forked child of this process, which has imported everything. A hook in the child
counts the changes that it makes below its folder (a file opened for writing, a rename, a removal,
a new folder, a file of tensors) and ends the child with SIGKILL at one of them, chosen at random:
just before it, or with the file empty or half written. Then the command is given again, as a user
would, and some of these are killed too. At the end every file has to be what the undisturbed run
left, and no other may be there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny import TINY, make_agent, write_rows

import rmas_train.api
import rmas_train.links.folder
import rmas_train.release.from_checkpoint
import rmas_train.reporting.report
import rmas_train.stages.finished
import rmas_train.training.checkpoint as checkpoints
from rmas_train.__main__ import main as command
from rmas_train.errors import CheckpointError

CHANGES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
OFTEN = 0.3  # of the runs that go on after a kill are killed as well
MOST = 6  # kills of one run


class Hook:
    """Counts a child's file changes; at number ``last`` the child ends."""

    def __init__(self, root: Path, last: int, draw: random.Random) -> None:
        self.root, self.last, self.draw, self.count = f"{root}/", last, draw, 0

    def install(self) -> None:
        sys.addaudithook(self)
        for module in (rmas_train.links.folder, checkpoints):
            module.save_file = self.save

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in CHANGES or not self._is_ours(event, args):
            return
        self.count += 1
        if self.count == self.last:
            self.last = 0
            if event == "open" and self.draw.random() < 0.5:
                self._tear(str(args[0]), str(args[1]))
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_ours(self, event: str, args: tuple[Any, ...]) -> bool:
        if event == "open" and not (isinstance(args[2], int) and args[2] & WRITING):
            return False
        if not isinstance(args[0], str | os.PathLike):
            return False
        has_folder = event != "open" and isinstance(args[-1], int) and args[-1] >= 0  # dir_fd
        return has_folder or str(Path(args[0]).absolute()).startswith(self.root)

    def _tear(self, path: str, mode: str) -> None:
        with Path(path).open("a" if "a" in mode else "w") as file:
            file.write('{"step": 1, "lo' if "a" in mode else "")

    def save(self, tensors: dict, path: Path, **options: Any) -> None:
        """In place of ``save_file``, which writes without telling Python."""
        self.count += 1
        save_file(tensors, path, **options)
        if self.count == self.last:
            if self.draw.random() < 0.5:
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Scene:
    """A command in a folder that is not empty.

    Attributes:
        before: commands that make what is there.
        typed: the command that is killed.
        again: what is typed after a kill.
        or_before: what was there is right, too: a kill before starting over begins leaves a whole
            run of the same identity, which ``resume=auto`` calls finished.
    """

    name: str
    before: list[list[str]]
    typed: list[str]
    again: list[str]
    or_before: bool = False
    changes: int = 0
    wanted: dict[str, Any] = field(default_factory=dict)
    kills: int = 0
    failures: list[str] = field(default_factory=list)


SMALL = [
    "experiment=none",
    "topology=sequential",
    "data=jsonl",
    "data.name=tiny",
    "data.role_texts={planner: plan, critic: refined_plan, solver: solution}",
    "data.answer_pattern='(?P<answer>\\w+)'",
    *(f"training.{s}.{o}" for s in ("inner", "outer") for o in ("steps=3", "batch_size=4")),
    *(f"training.{s}.{o}" for s in ("inner", "outer") for o in ("save_every=1", "log_every=1")),
    "evaluation.max_new_tokens=3",
    "evaluation.systems=[start,shuffled]",
    "rounds=2",
]


def scenes(base: list[str]) -> list[Scene]:
    run = [*base, "run_dir=runs/r"]
    auto = [*run, "resume=auto"]
    other, beside = [*run, "seed=1"], [*base, "run_dir=runs/s"]
    few = ["stage=eval", "run=runs/r", "evaluation.max_rows=3"]
    outer = ["stage=outer", "resume=auto"]
    last = ["runs/r/outer/checkpoints/step_00000002", "runs/t"]
    report = ["stage=report", "run_dir=runs/r"]
    return [
        Scene("pipeline", [], run, auto),
        Scene("starting over", [other], run, auto),
        Scene("starting over, equal inner links", [run], run, auto, or_before=True),
        Scene("inner links of a folder beside", [beside, other], run, auto),
        Scene("outer stage", [[*run, "stage=inner"]], [*run, *outer], [*run, *outer]),
        Scene("evaluation", [run], few, few),
        Scene("report", [run], report, report),
        Scene("other rows", [run], [*auto, "data.test=few.jsonl"], [*auto, "data.test=few.jsonl"]),
        Scene("links", [run], *2 * [["links", "from-checkpoint", *last]]),
    ]


def in_child(typed: list[str], root: Path, log: Path, last: int, seed: str) -> tuple[int, int]:
    """Exit code (or minus the signal) and number of file changes."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.close(told)
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            hook = Hook(root, last, random.Random(seed))
            hook.install()
            code = command(typed)
            sys.stdout.flush()
            os.write(tell, str(hook.count).encode())
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
        os._exit(code)
    os.close(tell)
    count = os.read(told, 100)
    os.close(told)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), int(count or 0)


def signature(folder: Path) -> dict[str, Any]:
    """Every file and folder; its content as far as two runs share it."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name in (".lock", "run.log"):
            continue
        found[name] = None if path.is_dir() else content(path)
    return found


def content(path: Path) -> Any:
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
    if path.name == "results.json":
        found = json.loads(path.read_text())
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in found["rows"]]
        return [rows, found.get("identity"), found["references"], sorted(found["systems"])]
    if path.name == "state.json":
        found = json.loads(path.read_text())
        return {k: v for k, v in found.items() if k != "state"} | found["state"]["updates"]
    if path.name in ("config.yaml", "environment.json", "manifest.json", "random.safetensors"):
        return "there"  # say how and when; sealed by name and sum, see ``check``
    if path.suffix in (".png", ".html", ".md"):
        return path.stat().st_size > 500  # made from seconds too
    return hashlib.sha256(path.read_bytes()).hexdigest()


def differences(root: Path, wanted: dict[str, Any]) -> list[str]:
    found = signature(root)
    wrong = [k for k in sorted(found.keys() | wanted.keys()) if found.get(k, 0) != wanted.get(k, 0)]
    for path in root.rglob("step_" + "[0-9]" * 8):
        try:
            checkpoints.verify(path)
        except CheckpointError as error:
            wrong.append(str(error))
    return wrong


class Harness:
    """Runs the scenes in one folder after the other, each from a copy of what it begins with."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.seed, self.draw = work, seed, random.Random(seed)
        self.root, self.log = work / "runs", work / "log.txt"
        for name in TINY:
            agent = make_agent(name)
            agent.model.save_pretrained(work / "agents" / name)
            agent.tokenizer.save_pretrained(work / "agents" / name)
        for name, count, first in (("train", 12, 0), ("test", 5, 100), ("few", 4, 110)):
            write_rows(work / "data" / f"{name}.jsonl", count, first)
        for name, source in (("planner", "solver"), ("critic", "planner"), ("solver", "critic")):
            path = work / "prompts" / f"{name}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"user": f"<<question>> note <<message:{source}>> go"}))
        agents = [f"agents.{name}.model={work / 'agents' / name}" for name in TINY]
        place = [f"data.folder={work / 'data'}", f"data.prompts={work / 'prompts'}"]
        self.scenes = scenes([*SMALL, *agents, *place])

    def run(self, typed: list[str], last: int = 0) -> tuple[int, int]:
        return in_child(typed, self.root, self.log, last, f"{self.seed}/{self.draw.random()}")

    def must(self, typed: list[str]) -> int:
        code, changes = self.run(typed)
        if code:
            raise SystemExit(f"{typed}: {code}\n{self.log.read_text()[-3000:]}")
        return changes

    def prepare(self, scene: Scene) -> None:
        """What is there before, and what the undisturbed command leaves."""
        self.root.mkdir()
        for typed in scene.before:
            self.must(typed)
        shutil.copytree(self.root, self.template(scene))
        scene.changes = self.must(scene.typed)
        scene.wanted = signature(self.root)
        shutil.rmtree(self.root)

    def template(self, scene: Scene) -> Path:
        return self.work / "templates" / scene.name

    def disturb(self, scene: Scene) -> None:
        """One run, killed once or more."""
        shutil.copytree(self.template(scene), self.root)
        typed, places = scene.typed, []
        while not places or (len(places) < MOST and self.draw.random() < OFTEN):
            last = self.draw.randint(1, scene.changes)
            code, _ = self.run(typed, last)
            if code == -signal.SIGKILL:
                places.append(last)
            elif is_refused(code, self.log):
                typed = scene.typed
                continue
            else:
                break  # it had fewer changes left
            typed = scene.again
        scene.kills += len(places)
        code, _ = self.run(scene.again)
        if is_refused(code, self.log):  # nothing had begun: what was there is still whole
            code, _ = self.run(scene.typed)
        if code:
            wrong = [f"exit {code}: {self.log.read_text()[-800:]}"]
        else:
            wrong = differences(self.root, scene.wanted)
        if scene.or_before and signature(self.root) == signature(self.template(scene)):
            wrong = []
        if wrong:
            scene.failures.append(f"killed at {places} of {scene.changes}: {wrong[:5]}")
        shutil.rmtree(self.root)


def is_refused(code: int, log: Path) -> bool:
    """The run there is another one, because starting over had not begun when it was killed."""
    return code == 2 and "start over without resume" in log.read_text()


def summary(found: list[Scene], seconds: float, seed: int) -> dict[str, Any]:
    return {
        "kills": sum(s.kills for s in found),
        "unequal": sum(len(s.failures) for s in found),
        "seed": seed,
        "seconds": round(seconds),
        "kills_by_scene": dict(Counter({s.name: s.kills for s in found})),
        "changes_by_scene": {s.name: s.changes for s in found},
        "failures": {s.name: s.failures for s in found if s.failures},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scene", help="part of a scene's name; default: all in turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills") as folder:
        os.chdir(folder)
        harness = Harness(Path(folder), options.seed)
        chosen = [s for s in harness.scenes if (options.scene or "") in s.name]
        for scene in chosen:
            harness.prepare(scene)
        while sum(s.kills for s in chosen) < options.kills:
            harness.disturb(min(chosen, key=lambda s: s.kills))
            found = summary(chosen, time.monotonic() - began, options.seed)
            if options.json:  # what is known so far, whatever becomes of the next run
                options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    sys.exit(bool(found["unequal"]))


if __name__ == "__main__":
    main()
