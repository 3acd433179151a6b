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
from rmas_train.evaluation.evaluate import evaluate_variant, variants
from rmas_train.links.folder import find_links, read_card
from rmas_train.reporting.collect import check_references
from rmas_train.runs.folder import environment, stage_folder
from rmas_train.runs.handover import read_links
from rmas_train.runs.load import Loaded
from rmas_train.runs.starting_links import starting_links
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import write_json
from rmas_train.support.log import say
from rmas_train.support.reading import parse_json
from rmas_train.systems.latent import Answer
from rmas_train.tools.calls import Toolbox


def run_eval(
    config: Config, loaded: Loaded, runtime: Runtime, tools: Toolbox | None = None
) -> None:
    """Evaluate trained links and controls; writes ``run_dir/eval``."""
    folder = find_links(Path(config.run or config.run_dir))
    lines = references(config)
    untrained, _ = starting_links(loaded, init="default")
    links = {"trained": read_links(loaded, folder, untrained), "untrained": untrained}
    if (folder.parent / "start").is_dir():
        links["start"] = read_links(loaded, folder.parent / "start", untrained)
    for link_set in links.values():
        link_set.requires_grad_(False)
    table = loaded.test
    table.rows[:] = table.rows[: config.evaluation.max_rows]
    todo = variants(config, loaded.team, links, table, tools)
    mine = range(runtime.rank, len(todo), runtime.world)
    if runtime.placement == "sharded":  # all ranks run the same forwards, or they wait for ever
        mine = range(len(todo))
    done = []
    for i in mine:
        row, answers = evaluate_variant(config, table, todo[i])
        say(describe_row(row))
        done.append((i, row, [_record(answer) for answer in answers]))
    is_double = runtime.placement == "sharded" and not runtime.is_main
    done = sorted(runtime.gather([] if is_double else done))
    loaded.assert_unchanged()
    if runtime.is_main:
        out = stage_folder(config, "eval", loaded.agents)
        if (out / "results.json").is_file():
            say(f"{out}/results.json: an earlier evaluation is replaced.")
        write_answers(out / "answers.jsonl", done, loaded)
        write_json(
            out / "results.json",
            {
                "schema": 1,
                "rows": [row for _, row, _ in done],
                "references": {config.data.name: lines},
                "links": str(folder),
                "trained_rounds": read_card(folder).rounds,
                "environment": environment(),
                "config": to_dict(config),
            },
        )
    runtime.barrier()


def references(config: Config) -> dict[str, Any]:
    """Exact lines that the data's recipe computed, by rounds; empty where it gave none."""
    path = Path(config.data.folder) / "references.json"
    if not path.is_file():
        return {}
    try:
        lines: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        check_references({config.data.name: lines})
    except ValueError as error:
        raise DataError(f"{path}: {error}; make the data again, or remove the file.") from error
    return lines


def write_answers(
    path: Path, done: Sequence[tuple[int, dict[str, Any], list[dict[str, Any]]]], loaded: Loaded
) -> None:
    """What each variant answered, row by row, for whoever wants to look."""
    with path.open("w", encoding="utf-8") as file:
        for _, row, answers in done:
            variant = {k: row[k] for k in ("system", "control", "rounds", "latent_length")}
            for problem, answer in zip(loaded.test.rows, answers, strict=True):
                known = {"line": problem["_line"], "answer": problem["answer"]}
                record = variant | known | answer
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _record(answer: Answer) -> dict[str, Any]:
    """Its text, and its calls where there are some; half surrogate pairs cannot be written."""
    calls = [asdict(call) for call in answer.calls]
    return {"text": answer.text} | ({"calls": calls} if calls else {})


def describe_row(row: dict[str, Any]) -> str:
    name = row["system"] + (f" {row['control']}" if row["control"] else "")
    numbers = f"{row['accuracy']:.3f} ({row['seconds']:.4f} s each)"
    return f"eval {row['task']} {name} rounds={row['rounds']}: {numbers}"
