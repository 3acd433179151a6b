"""What the records of an evaluation come to: the parts of ``results.json``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rmas_train.config import Config
from rmas_train.errors import WriteError
from rmas_train.evaluation.evaluate import Judge
from rmas_train.evaluation.lenient import lenient_grader
from rmas_train.evaluation.parts import Part
from rmas_train.evaluation.records import Record, Records
from rmas_train.evaluation.score import by_system, result_row
from rmas_train.evaluation.verdict import Source
from rmas_train.links.link_set import LinkSet
from rmas_train.support.output import say
from rmas_train.systems.looks import system_name


def answers_to(judge: Judge, parts: Sequence[Part], records: Records) -> list[Record]:
    """All records of what is asked, by benchmark, depth, system and row.

    Raises:
        WriteError: some are not there, as where processes do not share the run folder.
    """
    order = {(entry.system, entry.control): i for i, entry in enumerate(judge.entries())}
    tasks = list(dict.fromkeys(part.benchmark.name for part in parts))
    asked = {
        (part.benchmark.name, depth, part.first + i): content
        for part in parts
        for depth in part.depths
        for i, content in enumerate(part.hashes)
    }
    samples = range(judge.config.evaluation.samples)
    found = [
        record
        for record in records.every()
        if (record["system"], record["control"]) in order
        and record.get("sample", 0) in samples
        and asked.get((record["task"], record["rounds"], record["index"])) == record["hash"]
    ]

    wanted = Counter((task, depth) for task, depth, _ in asked)
    for (task, system, control, depth, _), own in by_system(found).items():
        if len(own) < (count := wanted[task, depth] * len(samples)):
            name = system_name({"system": system, "control": control})
            raise WriteError(
                f"{task}, {name}, rounds {depth}: {len(own)} records of {count}; "
                "every process has to see the same run_dir, on a shared file system. The same "
                "command goes on from what is there."
            )

    def place(record: Record) -> tuple[int, ...]:
        who = order[record["system"], record["control"]]
        which = record["index"], record.get("sample", 0)
        return tasks.index(record["task"]), record["rounds"], who, *which

    return sorted(found, key=place)


def source_of(config: Config, parts: Sequence[Part]) -> Source:
    """What the question of a record comes from: ``data.source_column``, or the question itself."""
    rows = rows_asked(parts)
    column = config.data.source_column

    def source(record: Record) -> Hashable:
        row = rows[record["task"], record["rounds"]][record["index"]]
        return record["index"] if column is None else json.dumps(row.get(column))

    return source


def rows_of(
    config: Config, parts: Sequence[Part], answers: Sequence[Record]
) -> list[dict[str, Any]]:
    """The table: one row for each benchmark, depth and system."""
    rows, lenient = rows_asked(parts), lenient_grader(config)
    found = []
    for who, own in by_system(answers).items():
        row = result_row(who, own, rows[own[0]["task"], own[0]["rounds"]], lenient)
        say(describe_row(row))
        found.append(row)
    return found


def describe_systems(judge: Judge, answers: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Name -> how tables and pictures show it; the report knows no registry."""
    there = {system_name(record) for record in answers}
    return {e.name: asdict(e.look) for e in judge.entries() if e.name in there}


def not_applicable(judge: Judge, parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Systems that were asked for and have no answers, by benchmark, with the reason."""
    first = {part.benchmark.name: part for part in reversed(parts)}
    found = [one for part in reversed(first.values()) for one in judge.not_applicable(part)]
    for one in found:
        say(f"eval {one['task']} {system_name(one)}: not applicable: {one['why']}")
    return found


def parameters_of(links: LinkSet) -> dict[str, int]:
    """Numbers that training sets, over all links of each kind."""
    kinds = {"inner": links.inner, "outer": links.outer}
    return {kind: sum(p.numel() for p in of.parameters()) for kind, of in kinds.items()}


def describe_row(row: dict[str, Any]) -> str:
    name = row["system"] + (f" {row['control']}" if row["control"] else "")
    numbers = f"{row['accuracy']:.3f} ({row['seconds']:.4f} s each)"
    return f"eval {row['task']} {name} rounds={row['rounds']}: {numbers}"


def rows_asked(parts: Sequence[Part]) -> dict[tuple[str, int], Sequence[Mapping[str, Any]]]:
    """Task and depth -> the rows of the benchmark, whose index a record has."""
    return {(p.benchmark.name, depth): p.benchmark.rows for p in parts for depth in p.depths}
