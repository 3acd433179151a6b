"""Stage eval over ranks, and its files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmas_train.compose import to_dict
from rmas_train.config import Config
from rmas_train.errors import DataError, WriteError
from rmas_train.evaluation.benchmark import make_benchmarks
from rmas_train.evaluation.costs import with_costs
from rmas_train.evaluation.evaluate import Judge
from rmas_train.evaluation.parts import Part, parts_of
from rmas_train.evaluation.progress import Progress
from rmas_train.evaluation.records import Record, Records, read_records
from rmas_train.evaluation.score import by_system, result_row
from rmas_train.evaluation.verdict import Source, comparisons, verdicts
from rmas_train.links.card import read_card
from rmas_train.links.folder import find_links
from rmas_train.links.modules import LinkSet
from rmas_train.reporting.collect import check_references
from rmas_train.runs.evaluated import eval_identity, format_links, read_all_links, start_of
from rmas_train.runs.finetuned import folder_of, weights_hash
from rmas_train.runs.identity import Identity, tensors_hash
from rmas_train.runs.load import Loaded
from rmas_train.runs.session import describe, environment, set_aside
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import new_folder, remove, write_json, write_text
from rmas_train.support.output import say
from rmas_train.support.reading import parse_json
from rmas_train.systems.looks import system_name
from rmas_train.tools.calls import Toolbox

RECORDS = "eval_records"  # in a run folder, while its evaluation is not finished


def run_eval(
    config: Config, loaded: Loaded, runtime: Runtime, tools: Toolbox | None = None
) -> None:
    """Evaluate trained links, controls and baselines; writes ``run_dir/eval``."""
    folder = links_of(config)
    links = read_all_links(loaded, folder, format_links(config))
    identity = identity_of_eval(config, loaded)
    judge = Judge(config, loaded.team, links, tools, loaded.baseline_prompts)
    parts = parts_of(config, make_benchmarks(config, loaded))
    records = open_records(config, runtime, identity)
    answer_parts(judge, parts, records, runtime)
    loaded.assert_unchanged()
    if runtime.is_main:
        answers = answers_to(judge, parts, records)
        compared = comparisons(answers, source_of(config, parts), config.seed)
        results = {
            "schema": 1,
            "rows": with_costs(rows_of(parts, answers), judge, parts),
            "not_applicable": not_applicable(judge, parts),
            "systems": describe_systems(judge, answers),
            "comparisons": compared,
            "verdicts": verdicts(compared),
            "references": {config.data.name: references(config)},
            "links": str(folder),
            "trainable_parameters": parameters_of(links["trained"]),
            "trained_rounds": read_card(folder).rounds,
            "environment": environment(),
            "config": to_dict(config),
            "identity": identity,
        }
        write_results(config, loaded, results, answers)
        remove(Path(config.run_dir) / RECORDS)
    runtime.barrier()


def open_records(config: Config, runtime: Runtime, identity: Identity) -> Records:
    """What an evaluation that was stopped has left, and what a finished one has of these links.

    With plugins, a finished one is not used: their code may have changed since.
    """
    run_dir = Path(config.run_dir)
    base, earlier = base_of(identity), list[Record]()
    there = identity_there(run_dir / "eval")
    if isinstance(there, dict) and base_of(there) == base and not config.plugins:
        earlier = list(read_records(run_dir / "eval" / "answers.jsonl"))
        say(
            f"{run_dir / 'eval'}: {len(earlier)} answers to these links are there, and are used "
            "again where they are asked for; remove the folder to make them anew."
        )
    records = Records(run_dir / RECORDS, base, runtime.rank, earlier)
    runtime.barrier()
    records.load()
    return records


def base_of(identity: Mapping[str, Any]) -> Identity:
    """What single records depend on: all but which rows, systems and depths there are."""
    mine = {k: v for k, v in identity.items() if k not in ("rows", "references", "rounds")}
    free = (
        "rounds",
        "max_rows",
        "samples",
        "price_per_hour",
        "single_rows",
        "systems",
        "benchmarks",
        "beyond_reach",
        "batch_size",
    )
    options = identity.get("evaluation")
    kept = {k: v for k, v in options.items() if k not in free} if isinstance(options, dict) else {}
    return mine | {"evaluation": kept}


def answer_parts(judge: Judge, parts: Sequence[Part], records: Records, runtime: Runtime) -> None:
    """Every part on one rank; each record is on disk as soon as it is there."""
    mine = range(runtime.rank, len(parts), runtime.world)
    shared = runtime.placement == "sharded"  # all ranks run the same forwards, or they wait
    if shared:
        mine = range(len(parts))
    progress = Progress(len(judge.trials(parts[i])) * len(parts[i].rows) for i in mine)
    for i in mine:
        for found in judge.answer(parts[i], records):
            records.add(found if runtime.is_main or not shared else [])
            progress.tell(len(parts[i].rows), f"{i + 1} of {len(parts)}, {parts[i].benchmark.name}")
    runtime.barrier()
    records.load()


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
    rows = {(p.benchmark.name, depth): p.benchmark.rows for p in parts for depth in p.depths}
    column = config.data.source_column

    def source(record: Record) -> Hashable:
        row = rows[record["task"], record["rounds"]][record["index"]]
        return record["index"] if column is None else json.dumps(row.get(column))

    return source


def rows_of(parts: Sequence[Part], answers: Sequence[Record]) -> list[dict[str, Any]]:
    """The table: one row for each benchmark, depth and system."""
    rows = {(p.benchmark.name, depth): p.benchmark.rows for p in parts for depth in p.depths}
    found = []
    for who, own in by_system(answers).items():
        row = result_row(who, own, rows[own[0]["task"], own[0]["rounds"]])
        say(describe_row(row))
        found.append(row)
    return found


def links_of(config: Config) -> Path:
    """The links folder that is evaluated."""
    return find_links(Path(config.run or config.run_dir))


def identity_of_eval(config: Config, loaded: Loaded) -> Identity:
    """What this evaluation depends on, with the links that are there now."""
    folder = links_of(config)
    start = start_of(folder)
    evaluated = {
        "trained": tensors_hash(folder),
        "start": tensors_hash(start) if start else None,
    }
    if (learnt := format_links(config)) is not None:
        evaluated["format"] = tensors_hash(learnt)
    for method in {"lora", "sft"} & set(config.evaluation.systems):
        evaluated[method] = weights_hash(folder_of(config, method))
    rows = {benchmark.name: benchmark.rows for benchmark in make_benchmarks(config, loaded)}
    return eval_identity(loaded, evaluated, rows, references(config))


def identity_there(folder: Path) -> Any:
    """The identity of the evaluation in a folder; None: there is none, or it does not say."""
    try:
        found = parse_json((folder / "results.json").read_text(encoding="utf-8"))
        return found.get("identity")
    except (OSError, ValueError, AttributeError):
        return None


def write_results(
    config: Config, loaded: Loaded, results: dict[str, Any], answers: Sequence[Record]
) -> None:
    """``run_dir/eval``, all of it at once; an earlier evaluation of other things is set aside."""
    run_dir = Path(config.run_dir)
    if identity_there(run_dir / "eval") == results["identity"]:
        say(f"{run_dir / 'eval'}: the same evaluation, made before, is replaced.")
    elif place := set_aside(run_dir, "eval"):
        say(f"the evaluation before, and its report, are in {place}")
    with new_folder(run_dir / "eval") as work:
        describe(work, config, loaded.agents)
        write_answers(work / "answers.jsonl", answers)
        write_json(work / "results.json", results)
    say(f"full config: {run_dir / 'eval' / 'config.yaml'}")


def parameters_of(links: LinkSet) -> dict[str, int]:
    """Numbers that training sets, over all links of each kind."""
    kinds = {"inner": links.inner, "outer": links.outer}
    return {kind: sum(p.numel() for p in of.parameters()) for kind, of in kinds.items()}


def not_applicable(judge: Judge, parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Systems that were asked for and have no answers, by benchmark, with the reason."""
    first = {part.benchmark.name: part for part in reversed(parts)}
    found = [one for part in reversed(first.values()) for one in judge.not_applicable(part)]
    for one in found:
        say(f"eval {one['task']} {system_name(one)}: not applicable: {one['why']}")
    return found


def describe_systems(judge: Judge, answers: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Name -> how tables and pictures show it; the report knows no registry."""
    there = {system_name(record) for record in answers}
    return {e.name: asdict(e.look) for e in judge.entries() if e.name in there}


def references(config: Config) -> dict[str, Any]:
    """Exact lines that the data's recipe computed, by rounds; empty where it gave none."""
    path = Path(config.data.folder) / "references.json"
    if not config.data.folder or not path.is_file():
        return {}
    try:
        lines: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        check_references({config.data.name: lines})
    except ValueError as error:
        raise DataError(f"{path}: {error}; make the data again, or remove the file.") from error
    return lines


def write_answers(path: Path, answers: Sequence[Record]) -> None:
    """One record per question and system, to be read and to be used again."""
    lines = [json.dumps(record, ensure_ascii=False) for record in answers]
    write_text(path, "".join(f"{line}\n" for line in lines))


def describe_row(row: dict[str, Any]) -> str:
    name = row["system"] + (f" {row['control']}" if row["control"] else "")
    numbers = f"{row['accuracy']:.3f} ({row['seconds']:.4f} s each)"
    return f"eval {row['task']} {name} rounds={row['rounds']}: {numbers}"
