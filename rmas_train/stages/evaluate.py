"""Stage eval over ranks, and its files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmas_train.compose import to_dict
from rmas_train.config import Config
from rmas_train.errors import DataError
from rmas_train.evaluation.benchmark import make_benchmarks
from rmas_train.evaluation.costs import with_costs
from rmas_train.evaluation.evaluate import Judge
from rmas_train.evaluation.outcome import (
    answers_to,
    describe_systems,
    not_applicable,
    parameters_of,
    rows_of,
    source_of,
)
from rmas_train.evaluation.parts import Part, parts_of
from rmas_train.evaluation.progress import Progress
from rmas_train.evaluation.records import Record, Records, read_records
from rmas_train.evaluation.verdict import comparisons, verdicts
from rmas_train.links.card import read_card
from rmas_train.links.folder import find_links
from rmas_train.reporting.collect import check_references
from rmas_train.runs.evaluated import eval_identity, format_links, read_all_links, start_of
from rmas_train.runs.finetuned import folder_of, weights_hash
from rmas_train.runs.identity import Identity, tensors_hash
from rmas_train.runs.load import Loaded, hash_of
from rmas_train.runs.session import describe, environment, set_aside
from rmas_train.runs.stop_rule import read_rule
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import new_folder, remove, write_json, write_text
from rmas_train.support.output import say
from rmas_train.support.reading import parse_json
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
            "rows": with_costs(rows_of(config, parts, answers), judge, parts),
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
    if "stop_trained" in config.evaluation.systems:
        evaluated["stop_rule"] = hash_of(asdict(read_rule(config.evaluation.stop_rule)))
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
