"""Try malformed inputs from the seeded generator of tests/hostile, and count what comes out.

    python scripts/malformed_run.py [--cases 506] [--seed 0] [--json docs/results/malformed.json]

One case again: `--first INDEX --cases 1 --verbose`. Needs what the tests need (`make setup`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from hostile.generate import covered, make_case  # noqa: E402
from hostile.harness import COUNTS, run_cases  # noqa: E402

from rmas_train.runs.session import environment  # noqa: E402
from rmas_train.support.files import write_json  # noqa: E402


def tell(case: Any, found: dict[str, Any]) -> None:
    """One line per case, as it ends; more where something is wrong."""
    mark = "FAIL" if found["problems"] else "ok"
    print(
        f"{case.index:5d} {mark:4s} {found['seconds']:5.1f} s  {case.kind}: {case.name}", flush=True
    )
    for problem in found["problems"]:
        print(f"      {problem}", flush=True)


def tell_all(case: Any, found: dict[str, Any]) -> None:
    tell(case, found)
    print(f"      {case.call} {str(case.argv)[:400]}\n      {str(case.edits)[:400]}")
    print(f"      code {found['code']} {found['err']}", flush=True)


def table(path: Path) -> str:
    """The counts of a file that was made here, as Markdown."""
    found = json.loads(path.read_text())
    names = list(COUNTS)
    names = [
        "cases",
        "ok_results",
        "one_line_errors",
        "tracebacks",
        "hangs",
        "half_written",
        "other",
    ]
    rows = [["kind", *(n.replace("_", " ") for n in names)], ["---"] * (len(names) + 1)]
    rows += [[kind, *(str(of[n]) for n in names)] for kind, of in found["by_kind"].items()]
    rows.append(["all", *(str(found[n]) for n in names)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=506)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds that contain this text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--table", type=Path, help="print this file's counts, and run nothing")
    args = parser.parse_args()
    if args.table:
        print(table(args.table))
        return
    indices = range(args.first, args.first + args.cases)
    cases = (c for c in (make_case(args.seed, i) for i in indices) if args.only in c.kind)
    with tempfile.TemporaryDirectory() as root:
        results = run_cases(cases, Path(root), tell_all if args.verbose else tell)
    record = {"seed": args.seed} | results | {"covered": covered(), "environment": environment()}
    print({k: v for k, v in results.items() if isinstance(v, int | float)})
    if args.json:
        write_json(args.json, record)
    sys.exit(1 if results["failures"] else 0)


if __name__ == "__main__":
    main()
