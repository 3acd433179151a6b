"""Links between every two of the three small models, and loops composed from them.

    python scripts/pairs.py --small FOLDER [--out outputs/pairs] [--json FILE] [KEY=VALUE ...]

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
PAIR = [
    *("experiment=notes", "data.more_tests={}", "training.outer.steps=40"),
    *("training.outer.select=last", "training.outer.validate_every=0"),
    *("evaluation.max_rows=100", 'evaluation.systems=[start,"null",shuffled,text,decoder_alone]'),
]
HOPS = ["experiment=notes_hops", "evaluation.max_rows=90"]
CONTROLS = '"null",shuffled'
TUNED = [
    *("training.outer.steps=50", "training.outer.batch_size=8", "training.outer.validate_every=0"),
    *("training.outer.select=last", f"evaluation.systems=[start,{CONTROLS}]"),
]


def agents_of(folder: Path, names: tuple[str, ...]) -> list[str]:
    """Which model has which role."""
    roles = ROLES if len(names) == len(ROLES) else (ROLES[0], ROLES[-1])
    models = zip(roles, names, strict=True)
    return [f"small={folder}", *(f"agents.{r}.model={folder / MODELS[n]}" for r, n in models)]


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
    if not (composed / "eval" / "results.json").is_file():
        systems = f"evaluation.systems=[{CONTROLS},text,decoder_alone]"
        rmas("stage=eval", f"run={composed}", systems)
    given = [f"inner={composed}", f"training.outer.from_links={composed}"]
    rmas(*system, *TUNED, *given, "resume=auto", f"run_dir={tuned}")
    rmas(*system, *TUNED, f"inner={composed}", "resume=auto", f"run_dir={new}")


def loop_name(names: tuple[str, ...]) -> str:
    return f"loop_{'_'.join(names)}"


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows = json.loads((run / "eval" / "results.json").read_text(encoding="utf-8"))["rows"]
    keys = ("system", "control", "rounds", "n", "accuracy", "ci95")
    return [{key: row[key] for key in keys} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("typed", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--small", type=Path, required=True, help="folder with the three models")
    parser.add_argument("--out", type=Path, default=Path("outputs/pairs"))
    parser.add_argument("--json", type=Path, help="default: <out>/pairs.json")
    given = parser.parse_args()
    pairs = list(permutations(MODELS, 2))
    for names in pairs:
        make_pair(names, given.small, given.out, given.typed)
    for loop in LOOPS:
        make_loop(loop, given.small, given.out, given.typed)
    write_json(
        given.json or given.out / "pairs.json",
        {
            "environment": environment(),
            "pairs": {"-".join(names): rows_of(given.out / "-".join(names)) for names in pairs},
            "loops": {
                loop_name(loop): {
                    "composed": rows_of(given.out / loop_name(loop)),
                    "after_50_steps": rows_of(given.out / f"{loop_name(loop)}_tuned"),
                    "new_links": rows_of(given.out / f"{loop_name(loop)}_new"),
                }
                for loop in LOOPS
            },
        },
    )


if __name__ == "__main__":
    main()
