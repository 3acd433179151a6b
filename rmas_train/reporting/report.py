"""The report: ``results.json``, one page and Markdown, from the files of a run folder alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from rich.console import Console

from rmas_train.reporting import figures, sweep_figures, sweep_table
from rmas_train.reporting.answers import answers_section, read_answers
from rmas_train.reporting.collect import collect, read_metrics
from rmas_train.reporting.embedding import Picture
from rmas_train.reporting.insight import insight_section, table
from rmas_train.reporting.link_table import links_section, read_links, untouched
from rmas_train.reporting.markdown import report_markdown
from rmas_train.reporting.page import lists, page
from rmas_train.reporting.pictures import (
    accuracy_picture,
    apart,
    cost_picture,
    cost_task,
    sweep_picture,
    training_picture,
)
from rmas_train.reporting.tables import plain_table, terminal_table
from rmas_train.support.contained import check_contained
from rmas_train.support.files import new_folder, write_json, write_text
from rmas_train.support.output import clean
from rmas_train.support.reading import parse_json
from rmas_train.systems.looks import looks_of, system_name

TENSORS = "links.safetensors"


def write_report(folder: Path) -> None:
    """Write ``results.json`` and ``report/`` into a run folder, and print the table.

    Args:
        folder: of one run, or of several below it (a sweep, ``outputs/demo``).
    """
    check_contained(folder, ("report", "results.json", ".results.json.*"))
    results = collect(folder)
    for run in results["runs"]:
        if is_stale(folder / run):
            name = clean(str(folder / run))
            print(
                f"warning: {name} was trained again after its evaluation; the numbers are "
                f"of the links before. Run stage=eval run={name}."
            )
    write_json(folder / "results.json", results)
    out = folder / "report"
    links = {run: read_links(folder / run) for run in results["runs"]}
    said = {
        "Verdicts": verdict_lines(results),
        "Links at a glance": [untouched(found) for found in links.values() if found],
        "Missing jobs": missing_jobs(results),
    }
    absent = {"Not applicable": missing_lines(results)}
    title = f"{'Audit' if any(links.values()) else 'Report'}: {folder.resolve().name}"
    metrics = {run: read_metrics(folder / run) for run in results["runs"]}
    with new_folder(out) as work:
        drawn = draw(work, results, metrics)
        write_text(work / "report.md", report_markdown(results, drawn, said | absent))
        shown, sections = pictures_of(results, metrics), sections_of(folder, results, links)
        sections.insert(0, lists(absent))
        write_text(work / "index.html", page(title, results, shown, said, sections))
    show(results)
    for line in [line for lines in (said | absent).values() for line in lines]:
        print(line)
    print(f"results: {folder / 'results.json'}   report: {out / 'index.html'}")


def show(results: dict[str, Any]) -> None:
    """The tables, on the terminal."""
    console = Console(width=None if Console().is_terminal else 160)
    console.print(terminal_table(results["rows"], results["systems"]))
    if results["sweep"]:
        console.print(plain_table("Sweep (trained system; means over seeds)", *sweep_rows(results)))


def sweep_rows(results: dict[str, Any]) -> tuple[Any, Any]:
    return sweep_table.header(results["sweep"]), sweep_table.cells(results["sweep"])


def pictures_of(results: dict[str, Any], metrics: dict[str, Any]) -> list[Picture]:
    """The page's figures of results, costs and training."""
    looks, (rows, lines) = looks_of(results["rows"], results["systems"]), apart(results)
    pictures = sweep_figures.pictures(results["sweep"]) if results["sweep"] else []
    pictures += figures.accuracy(rows, lines, looks)
    return [*pictures, *figures.cost(rows, looks), *figures.training(metrics)]


def sections_of(folder: Path, results: dict[str, Any], links: dict[str, Any]) -> list[str]:
    """The page's other parts; ``links``: of each run, what an audit found."""
    runs = results["runs"]
    parts = []
    if results["sweep"]:
        head, rows = sweep_rows(results)
        parts.append(f"<h2>Sweep</h2>{table(head, [list(cells) for cells in rows])}")
    parts += [insight_section(folder / run, run if len(runs) > 1 else "") for run in runs]
    parts.append(links_section(links))
    parts.append(answers_section({run: read_answers(folder / run) for run in runs}))
    return parts


def missing_jobs(results: dict[str, Any]) -> list[str]:
    """Jobs of a sweep that have no results."""
    sweep = results["sweep"] or {"missing": []}
    return [
        clean(f"job {name} has no results; give the sweep again with resume=auto")
        for name in sweep["missing"]
    ]


def verdict_lines(results: dict[str, Any]) -> list[str]:
    """What each run's evaluation says of its channel, by task and depth."""
    lines = []
    for one in results["verdicts"]:
        run = f"{one['run']}: " if len(results["runs"]) > 1 else ""
        lines.append(clean(f"{run}{one['task']}, rounds {one['rounds']}: {one['line']}"))
    return lines


def missing_lines(results: dict[str, Any]) -> list[str]:
    """Systems that were asked for and have no answers, with the reason."""
    lines = [
        clean(f"{one['task']}, {system_name(one)}: not applicable: {one['why']}")
        for one in results["not_applicable"]
    ]
    return list(dict.fromkeys(lines))


def is_stale(run: Path) -> bool:
    """This run folder's links were evaluated, and are others now; where an evaluation does not say
    which links it was of, they are newer."""
    results, links = run / "eval" / "results.json", run / "outer" / "links" / TENSORS
    found = parse_json(results.read_text(encoding="utf-8"))
    identity = found.get("identity")
    evaluated = identity.get("evaluated") if isinstance(identity, dict) else None
    if isinstance(evaluated, dict):
        is_own = _is_folder(found.get("links"), links.parent)
        now = hashlib.sha256(links.read_bytes()).hexdigest() if links.is_file() else None
        return is_own and evaluated.get("trained") != now
    since = results.stat().st_mtime
    return any(p.stat().st_mtime > since for p in run.glob(f"*/links/{TENSORS}"))


def _is_folder(named: Any, folder: Path) -> bool:
    """A file's text names this folder; a text that can name none does not."""
    try:
        return Path(str(named)).resolve() == folder.resolve()
    except (OSError, RuntimeError, ValueError):
        return False


def draw(out: Path, results: dict[str, Any], metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """All pictures that the rows allow: (file name, caption)."""
    (rows, lines), pictures = apart(results), []
    looks = looks_of(rows, results["systems"])
    accuracy_picture(out / "accuracy.png", rows, lines, looks)
    pictures.append(("accuracy.png", "Accuracy against rounds, with 95% Wilson intervals."))
    if (task := cost_task(rows)) is not None:
        cost_picture(out / "cost.png", rows, task, looks)
        pictures.append(("cost.png", "What an answer costs, in latent space and in text."))
    if any(metrics.values()):
        training_picture(out / "training.png", metrics)
        pictures.append(("training.png", "Training: loss, and each outer link's gradient norm."))
    if results["sweep"] and "rounds" in results["sweep"]["keys"]:
        sweep_picture(out / "sweep.png", rows)
        pictures.append(("sweep.png", "Training depth against inference depth."))
    return pictures
