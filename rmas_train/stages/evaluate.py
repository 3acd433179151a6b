"""Stage eval over ranks, and its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmas_train.compose import to_dict
from rmas_train.config import Config
from rmas_train.errors import DataError
from rmas_train.evaluation.benchmark import make_benchmarks
from rmas_train.evaluation.evaluate import Outcome, Trial, plan_trials, run_trial
from rmas_train.links.card import read_card
from rmas_train.links.folder import find_links
from rmas_train.links.modules import LinkSet
from rmas_train.reporting.collect import check_references
from rmas_train.runs.evaluated import eval_identity, read_links, start_of
from rmas_train.runs.identity import Identity, tensors_hash
from rmas_train.runs.load import Loaded
from rmas_train.runs.session import describe, environment, set_aside
from rmas_train.runs.starting_links import drawn_links
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import new_folder, write_json, write_text
from rmas_train.support.output import say
from rmas_train.support.reading import parse_json
from rmas_train.tools.calls import Toolbox


def run_eval(
    config: Config, loaded: Loaded, runtime: Runtime, tools: Toolbox | None = None
) -> None:
    """Evaluate trained links, controls and baselines; writes ``run_dir/eval``."""
    folder = links_of(config)
    links = read_all_links(loaded, folder)
    identity = identity_of_eval(config, loaded)
    benchmarks = make_benchmarks(config, loaded)
    trials = plan_trials(config, loaded.team, links, benchmarks, tools, loaded.single_prompt)
    outcomes = run_trials(trials, runtime)
    loaded.assert_unchanged()
    if runtime.is_main:
        results = {
            "schema": 1,
            "rows": [outcome.row for outcome in outcomes],
            "systems": describe_systems(trials),
            "references": {config.data.name: references(config)},
            "links": str(folder),
            "trained_rounds": read_card(folder).rounds,
            "environment": environment(),
            "config": to_dict(config),
            "identity": identity,
        }
        write_results(config, loaded, results, outcomes)
    runtime.barrier()


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
    config: Config, loaded: Loaded, results: dict[str, Any], outcomes: Sequence[Outcome]
) -> None:
    """``run_dir/eval``, all of it at once; an earlier evaluation of other things is set aside."""
    run_dir = Path(config.run_dir)
    if identity_there(run_dir / "eval") == results["identity"]:
        say(f"{run_dir / 'eval'}: the same evaluation, made before, is replaced.")
    elif place := set_aside(run_dir, "eval"):
        say(f"the evaluation before, and its report, are in {place}")
    with new_folder(run_dir / "eval") as work:
        describe(work, config, loaded.agents)
        write_answers(work / "answers.jsonl", outcomes)
        write_json(work / "results.json", results)
    say(f"full config: {run_dir / 'eval' / 'config.yaml'}")


def read_all_links(loaded: Loaded, folder: Path) -> dict[str, LinkSet]:
    """``trained``, ``untrained``, and ``start`` where it was kept; all frozen."""
    untrained = drawn_links(loaded)
    links = {"trained": read_links(loaded, folder, untrained), "untrained": untrained}
    for name, link in untrained.links().items():  # the norms that the training data gave
        link.scale.copy_(links["trained"].links()[name].scale)
    if start := start_of(folder):
        links["start"] = read_links(loaded, start, untrained)
    for link_set in links.values():
        link_set.requires_grad_(False)
    return links


def run_trials(trials: Sequence[Trial], runtime: Runtime) -> list[Outcome]:
    """All trials over ranks; rank 0 has all outcomes, by benchmark, depth and system."""
    mine = range(runtime.rank, len(trials), runtime.world)
    if runtime.placement == "sharded":  # all ranks run the same forwards, or they wait for ever
        mine = range(len(trials))
    done = []
    for i in mine:
        for outcome in run_trial(trials[i]):
            say(describe_row(outcome.row))
            place = (outcome.row["task"], outcome.row["rounds"], trials[i].entry.look.order, i)
            done.append((place, outcome))
    is_double = runtime.placement == "sharded" and not runtime.is_main
    every = runtime.gather([] if is_double else done)
    own = {place for place, _ in done}
    for place, outcome in every:
        if runtime.is_main and place not in own:
            say(describe_row(outcome.row))
    return [outcome for _, outcome in sorted(every, key=lambda pair: pair[0])]


def describe_systems(trials: Sequence[Trial]) -> dict[str, dict[str, Any]]:
    """Name -> how tables and pictures show it; the report knows no registry."""
    entries = {trial.entry.name: trial.entry for trial in trials}
    return {name: asdict(entry.look) for name, entry in entries.items()}


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


def write_answers(path: Path, outcomes: Sequence[Outcome]) -> None:
    """One record per question and system, for inspection."""
    lines = [json.dumps(r, ensure_ascii=False) for of in outcomes for r in of.records]
    write_text(path, "".join(f"{line}\n" for line in lines))


def describe_row(row: dict[str, Any]) -> str:
    name = row["system"] + (f" {row['control']}" if row["control"] else "")
    numbers = f"{row['accuracy']:.3f} ({row['seconds']:.4f} s each)"
    return f"eval {row['task']} {name} rounds={row['rounds']}: {numbers}"
