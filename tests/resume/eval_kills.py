"""Kill an evaluation at random moments, on one process and on two, and compare its records.

    PYTHONPATH=.:tests python tests/resume/eval_kills.py --kills 30 [--seed 0] [--json FILE]

Each round evaluates links from nothing: the command is given, all of its processes are killed after
a random time, and it is given again, until it ends. Then its records have to be those of an
evaluation that nobody disturbed, but for seconds; and after every kill, no two records on disk may
be of the same question, system and depth.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from launching import environment, torchrun
from tiny import TINY, make_agent, write_rows

from rmas_train.evaluation.records import key_of, read_records

ROWS = 450  # five parts of about 100 rows
SYSTEMS = "evaluation.systems=[start,shuffled,text,decoder_alone]"


def prepare(work: Path) -> None:
    """Agents, data, prompts and a run whose links are evaluated."""
    for name in TINY:
        agent = make_agent(name)
        agent.model.save_pretrained(work / "agents" / name)
        agent.tokenizer.save_pretrained(work / "agents" / name)
    write_rows(work / "data" / "train.jsonl", 12)
    write_rows(work / "data" / "test.jsonl", ROWS, 100)
    for name, source in (("planner", "solver"), ("critic", "planner"), ("solver", "critic")):
        path = work / "prompts" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"user": f"<<question>> note <<message:{source}>> go"}))
    typed = [
        "experiment=none",
        *("topology=sequential", "data=jsonl", "data.name=tiny", "run_dir=run", "rounds=2"),
        *(f"agents.{name}.model={work / 'agents' / name}" for name in TINY),
        *(f"data.folder={work / 'data'}", f"data.prompts={work / 'prompts'}"),
        *("data.answer_pattern='(?P<answer>\\w+)'", "data.allow_shared_rows=true"),
        "data.role_texts={planner: plan, critic: refined_plan, solver: solution}",
        *("training.inner.steps=1", "training.outer.steps=1", "evaluation.max_new_tokens=3"),
        *("evaluation.systems=[]", "evaluation.max_rows=1", "evaluation.batch_size=50"),
    ]
    finish(start(typed, 1, work))
    shutil.rmtree(work / "run" / "eval")


def start(typed: list[str], processes: int, work: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [*torchrun(processes), "rmas_train", *typed],
        cwd=work,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    _, error = process.communicate(timeout=300)
    if process.returncode:
        raise SystemExit(error[-3000:])


def asked(run: Path) -> list[str]:
    return ["stage=eval", f"run={run}", SYSTEMS, "evaluation.max_rows=null"]


def answers(run: Path) -> list[dict[str, Any]]:
    return [record | {"seconds": 0} for record in read_records(run / "eval" / "answers.jsonl")]


def kill(process: subprocess.Popen, run: Path) -> None:
    """The launcher and its processes, which are in sessions of their own: by the folder's name."""
    os.killpg(process.pid, signal.SIGKILL)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            mine = f"run={run}".encode() in path.read_bytes()
        except OSError:  # it has ended
            continue
        if mine:
            os.kill(int(path.parent.name), signal.SIGKILL)
    process.communicate()


def doubles(run: Path) -> int:
    """Records on disk whose key another one has too."""
    paths = sorted((run / "eval_records").glob("rank-*.jsonl"))
    keys = Counter(key_of(record) for path in paths for record in read_records(path))
    return sum(count - 1 for count in keys.values())


def first_record(process: subprocess.Popen, run: Path, most: int = 0) -> None:
    """Wait until there are more than ``most`` records on disk, or the process has ended."""
    while process.poll() is None and size(run) <= most:
        time.sleep(0.02)


def size(run: Path) -> int:
    """Bytes of records."""
    return sum(path.stat().st_size for path in (run / "eval_records").glob("rank-*.jsonl"))


def disturb(work: Path, processes: int, answering: float, draw: random.Random) -> dict[str, Any]:
    """One evaluation from nothing, killed once or more, most times while it answers.

    Args:
        answering: seconds from the first record to the end, undisturbed.
    """
    run = work / "copy"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(work / "run", run)
    kills, kept, twice = 0, 0, 0
    while True:
        process = start(asked(run), processes, work)
        if draw.random() < 0.8:
            first_record(process, run, size(run))
        try:
            process.wait(timeout=draw.uniform(0, 1) * answering)
        except subprocess.TimeoutExpired:
            kill(process, run)
            kills, twice = kills + 1, twice + doubles(run)
            kept += size(run) > 0
            continue
        finish(process)
        break
    return {"kills": kills, "doubles": twice, "kept": kept, "answers": answers(run)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    draw, found = random.Random(options.seed), {}
    if options.json and options.json.is_file():  # of other numbers of processes
        found = json.loads(options.json.read_text())
    with tempfile.TemporaryDirectory(prefix="eval_kills") as folder:
        work = Path(folder)
        prepare(work)
        for processes in options.processes:
            shutil.rmtree(work / "whole", ignore_errors=True)
            shutil.copytree(work / "run", work / "whole")
            process = start(asked(work / "whole"), processes, work)
            first_record(process, work / "whole")
            began = time.monotonic()
            finish(process)
            answering, wanted = time.monotonic() - began, answers(work / "whole")
            results = []
            while sum(one["kills"] for one in results) < options.kills:
                results.append(disturb(work, processes, answering, draw))
            found[f"{processes} process(es)"] = {
                "kills": sum(one["kills"] for one in results),
                "evaluations": len(results),
                "unequal": sum(one["answers"] != wanted for one in results),
                "doubles": sum(one["doubles"] for one in results),
                "kills_with_records": sum(one["kept"] for one in results),
                "records": len(wanted),
            }
            print(json.dumps(found, indent=1), flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(any(one["unequal"] or one["doubles"] for one in found.values()))


if __name__ == "__main__":
    main()
