"""The tables of docs/real.md and of the README, from docs/results/real/*.json.

python scripts/real_tables.py [--check docs/real.md | README.md]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rmas_train.systems.looks import BUILTIN, system_name

RESULTS = Path("docs/results/real")


def percent(row: dict[str, Any]) -> str:
    """Accuracy and its interval, within reach where the rows have one."""
    suffix = "" if row["accuracy_within_reach"] is None else "_within_reach"
    low, high = row[f"ci95{suffix}"]
    accuracy = row[f"accuracy{suffix}"]
    seeds = ", ".join(f"{100 * one:.0f}" for one in row.get("accuracy_by_seed", []))
    whole = f"{100 * accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    return f"{whole}; {seeds}" if seeds else whole


def results_table(path: Path) -> Iterator[str]:
    """Systems down, tasks and depths across."""
    found = json.loads(path.read_text(encoding="utf-8"))
    columns = list(dict.fromkeys((row["task"], row["rounds"]) for row in found["rows"]))
    counts = {
        (row["task"], row["rounds"]): row["n_within_reach"] or row["n"] for row in found["rows"]
    }
    depths = {depth for _, depth in columns}
    heads = [f"{t}, R = {r}" if len(depths) > 1 else t for t, r in columns]
    heads = [f"{head} (n = {counts[key]})" for head, key in zip(heads, columns, strict=True)]
    yield f"| {path.stem} | " + " | ".join(heads) + " |"
    yield "|---|" + "---|" * len(columns)
    names = dict.fromkeys(system_name(row) for row in found["rows"])
    for name in names:
        own = {
            (row["task"], row["rounds"]): percent(row)
            for row in found["rows"]
            if system_name(row) == name
        }
        label = found["systems"][name]["label"]
        yield f"| {label} | " + " | ".join(own.get(key, "") for key in columns) + " |"


def pairs_table(path: Path) -> Iterator[str]:
    """The trained system against every other one; in points."""
    content = json.loads(path.read_text(encoding="utf-8"))
    yield "| latent, trained, against | points (95% interval) | p (Holm) | questions show |"
    yield "|---|---|---|---|"
    for one in content["comparisons"]:
        name = system_name(one)
        label = content["systems"][name]["label"] if name in content["systems"] else name
        p = "< 0.001" if one["p_holm"] < 0.001 else f"{one['p_holm']:.3f}"
        yield f"| {label} | {points(one)} | {p} | {100 * one['detectable']:.1f} |"


def starts_table(path: Path) -> Iterator[str]:
    """Starts down; accuracy by steps across."""
    starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
    steps = sorted({point["steps"] for one in starts.values() for point in one["curve"]})
    heads = ["start", "options", "steps to 90%", *map(str, steps), "new words, trained"]
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for name, one in starts.items():
        own = {point["steps"]: f"{100 * point['accuracy']:.0f}" for point in one["curve"]}
        reached = "not in these" if one["steps_to_90"] is None else one["steps_to_90"]
        cells = " | ".join(own.get(step, "") for step in steps)
        new = one["new_words"].get("trained")
        carried = percent(new | {"accuracy_within_reach": None}) if new else ""
        yield f"| {name} | `{' '.join(one['options'])}` | {reached} | {cells} | {carried} |"


# The README's columns: head, file, task, rounds.
SUMMARY = (
    ("notes", "notes_4", "notes", 1),
    ("new names and words", "notes_4", "notes_new_both", 1),
    ("three in a row", "notes_three", "notes", 1),
    ("sums; each seed", "chain_sum", "chain_sum", 1),
    ("in hops, R = 1", "notes_hops", "notes_hops", 1),
    ("R = 3", "notes_hops", "notes_hops", 3),
)
SHOWN = (
    *("latent", "latent start", "text", "text_capped"),
    *("latent null", "latent shuffled", "decoder_alone"),
)


def summary_table() -> Iterator[str]:
    """The README's table: systems down, tasks across."""
    names = {file for _, file, _, _ in SUMMARY}
    paths = {name: RESULTS / f"{name}.json" for name in names}
    rows = {n: json.loads(p.read_text(encoding="utf-8"))["rows"] for n, p in paths.items()}
    yield "| accuracy, % (95% interval) | " + " | ".join(head for head, *_ in SUMMARY) + " |"
    yield "|---|" + "---|" * len(SUMMARY)
    for name in SHOWN:
        cells = []
        for _, file, task, rounds in SUMMARY:
            wanted = (task, rounds, name)
            own = [r for r in rows[file] if (r["task"], r["rounds"], system_name(r)) == wanted]
            cells.append(percent(own[0]) if own else "")
        yield f"| {BUILTIN[name].label} | " + " | ".join(cells) + " |"


def words_table(paths: list[Path]) -> Iterator[str]:
    """Systems down, kind of links and length of the message across; pairs at the end, in points."""
    found = {path: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    lengths = [one["config"]["latent_length"] for one in found.values()]
    kinds = [one["config"]["links"]["readout"] for one in found.values()]
    heads = [f"{kind}, {length}" for kind, length in zip(kinds, lengths, strict=True)]
    yield f"| links, vectors (n = {found[paths[0]]['rows'][0]['n']}) | {' | '.join(heads)} |"
    yield "|---|" + "---|" * len(paths)
    looks = found[paths[0]]["systems"]
    for name in dict.fromkeys(system_name(row) for row in found[paths[0]]["rows"]):
        rows = [next(r for r in f["rows"] if system_name(r) == name) for f in found.values()]
        yield f"| {looks[name]['label']} | " + " | ".join(map(percent, rows)) + " |"
    for name in ("latent start", "text", "single planner"):
        pairs = [
            next(c for c in f["comparisons"] if system_name(c) == name) for f in found.values()
        ]
        label = f"trained against {looks[name]['label']}"
        yield f"| {label} | " + " | ".join(map(points, pairs)) + " |"


def points(pair: dict[str, Any]) -> str:
    """Difference of a pair and its interval."""
    low, high = (100 * end for end in pair["ci95"])
    return f"{100 * pair['difference']:+.1f} ({low:.1f} to {high:.1f})"


def confidence_table(path: Path) -> Iterator[str]:
    """Bins of entropy down, with median gradient norms."""
    yield "| entropy, nats | vectors | through the read-out | through the whole link |"
    yield "|---|---|---|---|"
    for one in json.loads(path.read_text(encoding="utf-8"))["result"]["bins"]:
        most = "" if one["below"] is None else f" to {one['below']:g}"
        norms = [f"{one[key]:.2g}" if key in one else "" for key in ("readout", "link")]
        yield f"| {one['least']:g}{most or ' and more'} | {one['vectors']} | {' | '.join(norms)} |"


def tables() -> dict[str, str]:
    """File -> its table."""
    words = sorted(
        RESULTS.glob("words_*.json"), key=lambda path: ("hidden" in path.stem, path.stem)
    )
    found = {"words_*.json": "\n".join(words_table(words))}
    for path in sorted(set(RESULTS.glob("*.json")) - set(words)):
        content = json.loads(path.read_text(encoding="utf-8"))
        if "systems" in content:
            found[path.name] = "\n".join(results_table(path))
        if "comparisons" in content:
            found[path.name] += "\n\n" + "\n".join(pairs_table(path))
        if "result" in content:
            found[path.name] = "\n".join(confidence_table(path))
        if "starts" in content:
            found[path.name] = "\n".join(starts_table(path))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=Path, help="a document that has to hold every table")
    args = parser.parse_args()
    if args.check:
        text = args.check.read_text(encoding="utf-8")
        wanted = tables()
        if args.check.name == "README.md":
            wanted = {"the summary": "\n".join(summary_table())}
        if missing := [name for name, table in wanted.items() if table not in text]:
            sys.exit(
                f"error: {args.check} lacks the table of {', '.join(missing)}; run without --check."
            )
        return
    for name, table in tables().items():
        print(f"\n{name}\n\n{table}")
    print("\nREADME.md\n\n" + "\n".join(summary_table()))


if __name__ == "__main__":
    main()
