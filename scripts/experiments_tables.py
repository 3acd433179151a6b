"""The tables of docs/experiments.md, from docs/results/paper.json (``make paper``).

python scripts/experiments_tables.py [--write docs/experiments.md | --check docs/experiments.md]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rmas_train.systems.looks import system_name

NUMBERS = Path("docs/results/paper.json")
Part = dict[str, Any]


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def head(cells: list[str]) -> Iterator[str]:
    yield line(cells)
    yield "|" + "---|" * len(cells)


def percent(row: Part) -> str:
    value = row["accuracy_within_reach"]
    return f"{100 * (row['accuracy'] if value is None else value):.1f}"


def training(parts: dict[str, Part], names: list[str]) -> Iterator[str]:
    """Runs down, rounds across: before and after training, and without messages."""
    own = {name: parts[name] for name in names if name in parts}
    depths = sorted({row["rounds"] for part in own.values() for row in part["results"]})
    yield from head(["run", *(f"R = {depth}" for depth in depths)])
    for name, part in own.items():
        found = {(system_name(row), row["rounds"]): percent(row) for row in part["results"]}
        pairs = [(found["latent start", d], found["latent", d]) for d in depths]
        yield line([name, *(f"{start} → {trained}" for start, trained in pairs)])
    first: Part = next(iter(own.values()), {"results": []})
    silent = {row["rounds"]: percent(row) for row in first["results"] if row["control"] == "null"}
    yield line(["no message", *(silent.get(depth, "") for depth in depths)])


def controls(parts: dict[str, Part], names: list[str]) -> Iterator[str]:
    """Every system at the depth of training, with what it costs."""
    yield from head(
        ["run", "system", "rounds", "n", "accuracy, % (95% interval)", "tokens", "latent steps"]
    )
    for name in (n for n in names if n in parts):
        deepest = parts[name]["trained_rounds"]
        for row in (r for r in parts[name]["results"] if r["rounds"] == deepest):
            low, high = (100 * end for end in row["ci95"])
            shown = f"{100 * row['accuracy']:.1f} ({low:.1f} to {high:.1f})"
            costs = [f"{row['tokens']:.1f}", f"{row['latent_steps']:.1f}"]
            yield line([name, system_name(row), str(deepest), str(row["n"]), shown, *costs])


def deeper(part: Part) -> Iterator[str]:
    """Systems of one run down, rounds across; within reach."""
    shown = ("latent", "latent start", "text", "latent null")
    found = {(system_name(row), row["rounds"]): percent(row) for row in part["results"]}
    depths = sorted({depth for _, depth in found})
    yield from head(["system", *(f"R = {depth}" for depth in depths)])
    for system in shown:
        yield line([system, *(found[system, depth] for depth in depths)])


def beyond(part: Part) -> Iterator[str]:
    """Accuracy by a problem's number of operations, at depths of training and beyond."""
    found = {(one["rounds"], one["operations"]): one["accuracy"] for one in part["by_operations"]}
    counts = sorted({count for _, count in found})
    yield from head(["operations", *map(str, counts)])
    for depth in sorted({depth for depth, _ in found}):
        yield line([f"R = {depth}", *(f"{100 * found[depth, n]:.0f}" for n in counts)])


def levers(part: Part) -> Iterator[str]:
    """The sweep of levers: within reach, rounds across."""
    found = part["sweep"]["rows"]
    depths = sorted({row["rounds"] for row in found})
    yield from head(["lever", *(f"R = {depth}" for depth in depths)])
    named: dict[str, dict[int, float]] = {}
    for row in found:
        typed = ", ".join(f"`{key}={value}`" for key, value in row["values"].items() if value)
        named.setdefault(typed or "none", {})[row["rounds"]] = row["within_reach"]
    for name, by_depth in named.items():
        yield line([name, *(f"{100 * by_depth[d]:.1f}" for d in depths)])


def profile(parts: dict[str, Part], names: list[str]) -> Iterator[str]:
    """The norm of each round's share of a link's gradient, at the first profiled step and the last
    of the greatest depth."""
    yield from head(["run", "step", "loss", "edge", "round 1", "round 2", "round 3"])
    for name in (n for n in names if n in parts):
        for when in ("profile_first", "profile_last"):
            found = parts[name][when]
            for edge in dict.fromkeys(place["edge"] for place in found["edges"]):
                by_round = {
                    place["round"]: place["parameters"]
                    for place in found["edges"]
                    if place["edge"] == edge
                }
                cells = [f"{by_round[r]:.1e}" if r in by_round else "" for r in (1, 2, 3)]
                yield line([name, str(found["step"]), f"{found['loss']:.3g}", edge, *cells])


def health(parts: dict[str, Part]) -> Iterator[str]:
    """Loudness and variation over rounds, what the content brings, and warnings."""
    yield from head(
        ["run", "edge", "loudness", "variation", "gold answer's log p falls by", "warnings"]
    )
    for name, part in parts.items():
        found = part["analyses"].get("health")
        if found is None:
            continue
        for edge, content in found["content"].items():
            own = [place for place in found["places"] if place["edge"] == edge]
            cells = [
                ", ".join(f"{place[key]:.2g}" for place in own) for key in ("loudness", "variation")
            ]
            low, high = content["ci95"]
            fall = f"{content['mean']:.2f} ({low:.2f} to {high:.2f})"
            named = ", ".join(w["name"] for w in found["warnings"] if w["edge"] == edge)
            yield line([name, edge, *cells, fall, named])


def attribution(parts: dict[str, Part]) -> Iterator[str]:
    """Rank correlations within rows, and how often both rank the same place first."""
    measured = ("zero", "mean", "shuffled", "leave_one_out")
    titles = [name.replace("_", " ") for name in measured]
    yield from head(["run", "guess", *titles, *(f"first: {title}" for title in titles)])
    for name, part in parts.items():
        found = part["analyses"].get("attribution")
        if found is None or len(found["places"]) < 2:  # one place is always first
            continue
        for guess, by_measure in found["agreement"].items():
            numbers = [by_measure[m]["within_rows"] for m in measured]
            cells = ["" if value is None else f"{value:.2f}" for value in numbers]
            first = [f"{100 * by_measure[m]['first']:.1f}%" for m in measured]
            yield line([name, guess.replace("_", " "), *cells, *first])


def places(parts: dict[str, Part], name: str) -> Iterator[str]:
    """The measures of one run by round and edge."""
    keys = ("gradient", "times_input", "patching", "zero", "mean", "shuffled", "leave_one_out")
    yield from head(["round", "edge", *(key.replace("_", " ") for key in keys)])
    for place in parts[name]["analyses"]["attribution"]["places"]:
        numbers = [f"{place[key]:.2g}" for key in keys]
        yield line([str(place["round"]), place["edge"], *numbers])


def depth(parts: dict[str, Part]) -> Iterator[str]:
    """Accuracy and entropy after each round, of one unroll."""
    yield from head(["run", "rounds", "accuracy, % (95% interval)", "entropy, nats"])
    for name, part in parts.items():
        for one in part["analyses"].get("depth", {"rounds": []})["rounds"]:
            low, high = (100 * end for end in one["ci95"])
            shown = f"{100 * one['accuracy']:.1f} ({low:.1f} to {high:.1f})"
            yield line([name, str(one["rounds"]), shown, f"{one['entropy']:.2f}"])


def stopping(parts: dict[str, Part]) -> Iterator[str]:
    """Per rule, the fewest mean rounds at which it has its best accuracy."""
    yield from head(["run", "rule", "mean rounds", "accuracy, %"])
    for name, part in parts.items():
        for rule, points in part["analyses"].get("depth", {"stopping": {}})["stopping"].items():
            best = max(points, key=lambda p: (round(p["accuracy"], 4), -p["rounds"]))
            yield line([name, rule, f"{best['rounds']:.2f}", f"{100 * best['accuracy']:.1f}"])


def lens(parts: dict[str, Part]) -> Iterator[str]:
    """Cosine of messages to the row's answer and to another row's."""
    yield from head(["run", "round", "edge", "to the answer", "to another row's answer"])
    for name, part in parts.items():
        for one in part["analyses"].get("lens", {"distance": []})["distance"]:
            cells = [f"{one[key]:.2f}" for key in ("to_answer", "to_other_answer")]
            yield line([name, str(one["round"]), one["edge"], *cells])


def confidence(parts: dict[str, Part]) -> Iterator[str]:
    """Median gradient norms by entropy."""
    yield from head(["run", "entropy, nats", "vectors", "link", "read-out", "text's soft form"])
    for name, part in parts.items():
        for one in part["analyses"].get("confidence", {"bins": []})["bins"]:
            if one["vectors"]:
                most = "and more" if one["below"] is None else f"to {one['below']:g}"
                norms = [f"{one[k]:.1e}" if k in one else "" for k in ("link", "readout", "text")]
                yield line([name, f"{one['least']:g} {most}", str(one["vectors"]), *norms])


def tables() -> dict[str, str]:
    parts = json.loads(NUMBERS.read_text(encoding="utf-8"))["parts"]
    levers_part = parts.pop("levers", None)
    settings = ["noisy_start", "no_noise", "default_start", "default_start_text", "layernorm"]
    settings += ["vocabulary", "bfloat16_links", "released_settings"]
    made = {
        "deeper": deeper(parts["relay"]),
        "beyond": beyond(parts["relay"]),
        "controls": controls(parts, ["relay", "notes"]),
        "settings": training(parts, settings),
        "profile": profile(parts, ["noisy_start", "relay", "released_settings", "teacher_forced"]),
        "teacher forcing": training(parts, ["noisy_start", "teacher_forced", "gold_feedback"]),
        "levers": levers(levers_part) if levers_part else iter(()),
        "dialect": training(parts, ["dialect", "dialect_text"]),
        "shared": training(parts, ["one_model", "one_model_shared"]),
        "health": health(parts),
        "attribution": attribution(parts),
        "places": places(parts, "relay"),
        "depth": depth(parts),
        "stopping": stopping(parts),
        "lens": lens(parts),
        "confidence": confidence(parts),
    }
    found = {name: "\n".join(lines) for name, lines in made.items()}
    return {name: table for name, table in found.items() if table.count("\n") > 1}


def write(document: Path) -> None:
    """Put each table between its markers."""
    text = document.read_text(encoding="utf-8")
    for name, table in tables().items():
        before, begin, rest = text.partition(f"<!-- table: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if begin and end:
            text = f"{before}{begin}{table}\n{end}{after}"
    document.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=Path, help="a document that has to hold every table")
    parser.add_argument("--write", type=Path, help="a document whose tables are made anew")
    args = parser.parse_args()
    if args.write:
        write(args.write)
        return
    if args.check:
        text = args.check.read_text(encoding="utf-8")
        if missing := [name for name, table in tables().items() if table not in text]:
            sys.exit(f"error: {args.check} lacks the tables {', '.join(missing)}")
        return
    for name, table in tables().items():
        print(f"\n{name}\n\n{table}")


if __name__ == "__main__":
    main()
