"""Whether ends of a shared space fit together on edges that were never trained, on the relay.

    python scripts/shared_space.py [--out outputs/shared_space] [--json FILE] [KEY=VALUE ...]
    python scripts/shared_space.py --table FILE      # the table of docs/library.md

The loop planner, critic, solver is trained from the scrambled start, once with a link per edge and
once through a shared space. From the ends of the second, the loop the other way round is composed,
none of whose edges was trained; and from its start, as a control. Texts of the agents are the
ceiling. What is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from paper import rmas

from rmas_train.runs.session import environment
from rmas_train.support.files import write_json

LOOP = ["experiment=relay_scrambled", "training.outer.text_messages=1"]
SPACE = "links.shared_space=144"  # the planner's width
ASKED = ["evaluation.max_rows=500", 'evaluation.systems=[start,"null",shuffled]']
EDGES = [("critic", "planner"), ("planner", "solver"), ("solver", "critic")]
KEYS = ("system", "control", "rounds", "n", "accuracy", "accuracy_within_reach", "ci95")


def write_other_way(out: Path) -> Path:
    """The config file of the loop the other way round, and its prompts."""
    prompts = out / "prompts"
    prompts.mkdir(parents=True, exist_ok=True)
    for source, target in EDGES:
        text = json.dumps({"user": f"<<question>> hint<<message:{source}>>"})
        (prompts / f"{target}.yaml").write_text(text, encoding="utf-8")
    edges = [{"source": a, "target": b, "next_round": a == "solver"} for a, b in EDGES]
    order = ["critic", "planner", "solver"]
    topology = {"name": "other_way", "order": order, "edges": edges, "decoder": "solver"}
    path = out / "other_way.yaml"
    write_json(path, {"topology": topology, "data": {"prompts": str(prompts)}})
    return path


def train(run: Path, *options: str) -> None:
    rmas(*LOOP, *ASKED, *options, "resume=auto", f"run_dir={run}")


def compose(out: Path, name: str, links: Path, typed: list[str]) -> None:
    """The other loop from ends of a links folder, and its evaluation."""
    run, library = out / f"other_way_{name}", out / f"library_{name}"
    if not (run / "outer").is_dir():
        if not library.is_dir():
            rmas("links", "library", "add", str(links), str(library), "--name", name)
        where = ["--config", str(write_other_way(out)), f"run_dir={run}"]
        rmas("links", "library", "compose", str(library), *LOOP, *typed, SPACE, *where)
    if not (run / "eval" / "results.json").is_file():
        systems = 'evaluation.systems=["null",shuffled,text]'
        rmas("stage=eval", f"run={run}", ASKED[0], systems)


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows = json.loads((run / "eval" / "results.json").read_text(encoding="utf-8"))["rows"]
    return [{key: row.get(key) for key in KEYS} for row in rows]


def table(path: Path) -> str:
    """Accuracy in percent on problems within reach, by rounds; a line per run and system."""
    lines = ["| links | system | R = 1 | R = 2 | R = 3 |", "|---|---|---|---|---|"]
    for run, rows in json.loads(path.read_text(encoding="utf-8"))["runs"].items():
        found: dict[str, list[str]] = {}
        for row in rows:
            name = row["control"] or row["system"]
            found.setdefault(name, []).append(f"{100 * row['accuracy_within_reach']:.1f}")
        lines += [f"| {run} | {name} | {' | '.join(cells)} |" for name, cells in found.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("typed", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("outputs/shared_space"))
    parser.add_argument("--json", type=Path, help="default: <out>/shared_space.json")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a file")
    given = parser.parse_args()
    if given.table:
        print(table(given.table))
        return
    out, runs = given.out, ("per_edge", "shared_space", "other_way_trained", "other_way_start")
    train(out / "per_edge", *given.typed)
    train(out / "shared_space", SPACE, *given.typed)
    compose(out, "trained", out / "shared_space", given.typed)
    compose(out, "start", out / "shared_space" / "outer" / "start", given.typed)
    found = {name: rows_of(out / name) for name in runs}
    write_json(
        given.json or out / "shared_space.json", {"environment": environment(), "runs": found}
    )


if __name__ == "__main__":
    main()
