"""Feeds cases to one worker, ends it where one hangs, and counts what came out."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hostile.case import Case

COUNTS = (
    "cases",
    "ok_results",
    "one_line_errors",
    "tracebacks",
    "hangs",
    "half_written",
    "other",
)
LIMIT = 60.0  # seconds that a case may take
TESTS = Path(__file__).resolve().parents[1]


class Worker:
    """One long-lived process; a new one after a hang or a crash."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._process: subprocess.Popen[str] | None = None

    def run(self, case: Case) -> dict[str, Any]:
        """Exit code, problems and stderr of a case."""
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None and process.stdin is not None
        began = time.monotonic()
        process.stdin.write(json.dumps(case.to_json()) + "\n")
        process.stdin.flush()
        line = self._line(LIMIT)
        seconds = time.monotonic() - began
        if not line:
            self.close()
            why = "hang" if seconds >= LIMIT else "traceback: the process died"
            return {"code": None, "problems": [why], "err": "", "seconds": seconds}
        return json.loads(line) | {"seconds": seconds}

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process = None

    def _start(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
        paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
        with (self._root / "worker.log").open("w") as log_file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hostile.worker", str(self._root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                text=True,
                env=os.environ | offline | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            )
        if self._line(300.0).strip() != "ready":
            log = (self._root / "worker.log").read_text() + (self._root / "err").read_text()
            self.close()
            raise RuntimeError(f"the worker did not start: {log[-2000:]}")

    def _line(self, seconds: float) -> str:
        """The next line, or nothing where none comes in time."""
        assert self._process is not None and self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            ready = selector.select(seconds)
        return self._process.stdout.readline() if ready else ""


def run_cases(cases: Iterable[Case], root: Path, tell: Any = None) -> dict[str, Any]:
    """Counts by kind, and every failure with what would make it again."""
    worker, counts, failures = Worker(root), {}, []
    slowest = 0.0
    try:
        for case in cases:
            found = worker.run(case)
            of = counts.setdefault(case.kind, dict.fromkeys(COUNTS, 0))
            of["cases"] += 1
            of[bucket(found)] += 1
            slowest = max(slowest, found["seconds"])
            if found["problems"]:
                about = {k: found[k] for k in ("code", "problems", "err")}
                failures.append({"index": case.index, "kind": case.kind, "name": case.name} | about)
            if tell:
                tell(case, found)
    finally:
        worker.close()
    total = {name: sum(of[name] for of in counts.values()) for name in COUNTS}
    return total | {"slowest_seconds": round(slowest, 1), "by_kind": counts, "failures": failures}


def bucket(found: dict[str, Any]) -> str:
    """The one count that an outcome belongs to."""
    for problem in found["problems"]:
        for prefix, name in (
            ("traceback", "tracebacks"),
            ("hang", "hangs"),
            ("half", "half_written"),
        ):
            if problem.startswith(prefix):
                return name
    if found["problems"]:
        return "other"
    return "ok_results" if found["code"] == 0 else "one_line_errors"
