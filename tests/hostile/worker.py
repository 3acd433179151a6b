"""A process that is fed cases, one JSON line each, and answers with problems, one JSON line each.

    python -m hostile.worker FOLDER

It is a process of its own so that a case that hangs can be ended, and so that the modules are
loaded once for all cases.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch

import rmas_train
from hostile.case import Case
from hostile.verdict import Outcome, judge, snapshot
from hostile.workspace import OPTIONS, damaged_copy, write_inputs
from rmas_train.__main__ import main
from rmas_train.errors import UserError
from rmas_train.support.output import stop_log

MEMORY = 12 * 2**30


def good_workspace(root: Path) -> Path:
    """``root/base``: inputs, a finished run, and another one with another seed."""
    base = root / "base"
    if not base.is_dir():
        work = root / "base.new"
        write_inputs(work)
        os.chdir(work)
        assert main(OPTIONS) == 0
        assert main([*OPTIONS, "run_dir=other", "seed=1", "stage=inner"]) == 0
        assert main([*OPTIONS, "run_dir=other", "seed=1", "stage=outer"]) == 0
        work.rename(base)
    return base


def call(case: Case) -> int:
    """The entry point as a user's command or program calls it."""
    try:
        if case.call == "main":
            return main([*OPTIONS, *case.argv])
        answers = rmas_train.load("run/outer/links").answer(["red two"])
        assert len(answers) == 1 and isinstance(answers[0].text, str)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except SystemExit as exit_:
        return int(exit_.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def captured(folder: Path) -> Any:
    """File descriptors 1 and 2 go to files: libraries keep hold of the streams they were given."""
    kept = [os.dup(1), os.dup(2)]
    files = [os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC) for name in ("out", "err")]
    try:
        for number, file in enumerate(files, start=1):
            os.dup2(file, number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, (old, file) in enumerate(zip(kept, files, strict=True), start=1):
            os.dup2(old, number)
            os.close(old)
            os.close(file)


def run(case: Case, root: Path, base: Path) -> dict[str, Any]:
    folder = root / "a" / "b" / "c" / "case"
    damaged_copy(base, folder, case)
    before = snapshot(folder)
    os.chdir(folder)
    with captured(root):
        code = call(case)
    stop_log()
    torch.set_num_threads(1)
    texts = [(root / name).read_text(errors="replace") for name in ("out", "err")]
    outcome = Outcome(code, *texts)
    problems = judge(case, outcome, folder, before, base)
    return {"code": code, "problems": problems, "err": outcome.err[-3000:]}


def serve(root: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    with captured(root):
        base = good_workspace(root)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        found = run(Case(**json.loads(line)), root, base)
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]).resolve())
