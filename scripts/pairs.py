"""Links between every two of the three small models, and loops composed from them.

    python scripts/pairs.py --small FOLDER [--out outputs/pairs] [--json FILE] [KEY=VALUE ...]
    python scripts/pairs.py --table FILE      # the table of docs/library.md, from such a file

All six directed pairs learn ``notes`` (the sender sees the facts, one vector carries the answer)
and go into a library. Two loops of the three models, which need three of the links each, are
composed from it for ``notes_hops`` without training; then each is trained on for 50 steps, and so
are new links in the same loop. Every system stands beside its controls. What is there already is
not made again.
"""

from __future__ import annotations

import argparse
import json
from itertools import permutations
from pathlib import Path
from typing import Any

from paper import rmas

from rmas_train.runs.session import environment
from rmas_train.support.files import write_json

MODELS = {"qwen": "qwen_coder", "gemma": "gemma3", "smollm": "smollm2"}
ROLES = ("planner", "critic", "solver")
LOOPS = (("gemma", "qwen", "smollm"), ("gemma", "smollm", "qwen"))
PAIRS = tuple(permutations(MODELS, 2))
RESULTS = Path("eval") / "results.json"
CONTROLS = '"null",shuffled'
LAST = ["training.outer.select=last", "training.outer.validate_every=0"]
PAIR = [
    *("experiment=notes", "data.more_tests={}", "training.outer.steps=40", *LAST),
    *("training.outer.batch_size=8", "evaluation.max_rows=60"),
    f"evaluation.systems=[start,{CONTROLS},text]",
]
HOPS = ["experiment=notes_hops", "evaluation.max_rows=60", "evaluation.rounds=[3]"]
TUNED = ["training.outer.steps=50", "training.outer.batch_size=4", *LAST]


def agents_of(folder: Path, names: tuple[str, ...]) -> list[str]:
    """Which model has which role."""
    roles = ROLES if len(names) == len(ROLES) else (ROLES[0], ROLES[-1])
    typed = [f"small={folder}"]
    for role, name in zip(roles, names, strict=True):  # many CPUs have no bfloat16 of their own
        typed += [f"agents.{role}.model={folder / MODELS[name]}", f"agents.{role}.dtype=float32"]
    return typed


def make_pair(names: tuple[str, str], small: Path, out: Path, typed: list[str]) -> None:
    """Train and evaluate one link, and put it into the library."""
    name, library = "-".join(names), out / "library"
    rmas(*PAIR, *agents_of(small, names), *typed, "resume=auto", f"run_dir={out / name}")
    if not (library / name).is_dir():
        rmas("links", "library", "add", str(out / name), str(library))


def make_loop(names: tuple[str, ...], small: Path, out: Path, typed: list[str]) -> None:
    """Compose a loop, evaluate it, train it on, evaluate it again; and the same from new links."""
    composed, tuned, new = (out / f"{loop_name(names)}{end}" for end in ("", "_tuned", "_new"))
    system = [*HOPS, *agents_of(small, names), *typed]
    if not (composed / "outer").is_dir():
        where = f"run_dir={composed}"
        rmas("links", "library", "compose", str(out / "library"), *system, where)
    if not (composed / RESULTS).is_file():
        systems = f"evaluation.systems=[{CONTROLS},text]"
        rmas("stage=eval", f"run={composed}", systems)
    given = [f"inner={composed}", f"training.outer.from_links={composed}"]
    asked = f"evaluation.systems=[{CONTROLS}]"
    rmas(*system, *TUNED, *given, asked, "resume=auto", f"run_dir={tuned}")
    asked = f"evaluation.systems=[start,{CONTROLS}]"
    rmas(*system, *TUNED, f"inner={composed}", asked, "resume=auto", f"run_dir={new}")


def loop_name(names: tuple[str, ...]) -> str:
    return f"loop_{'_'.join(names)}"


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows = json.loads((run / RESULTS).read_text(encoding="utf-8"))["rows"]
    keys = ("system", "control", "rounds", "n", "accuracy", "ci95")
    return [{key: row[key] for key in keys} for row in rows]


def write_found(out: Path, path: Path | None) -> None:
    """What is evaluated by now."""
    runs = ["-".join(names) for names in PAIRS]
    runs += [f"{loop_name(loop)}{end}" for loop in LOOPS for end in ("", "_tuned", "_new")]
    done = {name: rows_of(out / name) for name in runs if (out / name / RESULTS).is_file()}
    write_json(path or out / "pairs.json", {"environment": environment(), "runs": done})


def table(path: Path) -> str:
    """Accuracy in percent with 95% intervals; a line per run, a column per system."""
    lines = ["| run | rows | links | start | no message | another row's | text |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, rows in json.loads(path.read_text(encoding="utf-8"))["runs"].items():
        latent = {row["control"]: row for row in rows if row["system"] == "latent"}
        text = next((row for row in rows if row["system"] == "text"), None)
        cells = [*map(latent.get, (None, "start", "null", "shuffled")), text]
        lines.append(f"| {name} | {rows[0]['n']} | {' | '.join(map(percent, cells))} |")
    return "\n".join(lines)


def percent(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    least, most = row["ci95"]
    return f"{100 * row['accuracy']:.1f} ({100 * least:.1f} to {100 * most:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("typed", nargs="*", metavar="KEY=VALUE")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--small", type=Path, help="folder with the three models")
    what.add_argument("--table", type=Path, metavar="FILE", help="print the table of a result file")
    parser.add_argument("--out", type=Path, default=Path("outputs/pairs"))
    parser.add_argument("--json", type=Path, help="default: <out>/pairs.json")
    given = parser.parse_args()
    if given.table:
        print(table(given.table))
        return
    for names in PAIRS:
        make_pair(names, given.small, given.out, given.typed)
        write_found(given.out, given.json)
    for loop in LOOPS:
        make_loop(loop, given.small, given.out, given.typed)
        write_found(given.out, given.json)


if __name__ == "__main__":
    main()
