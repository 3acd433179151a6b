"""The report: ``results.json``, pictures and one page, from the files of a run folder alone."""

from __future__ import annotations

import hashlib
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console

from rmas_train.reporting.answers import answers_section, read_answers
from rmas_train.reporting.collect import collect, read_metrics
from rmas_train.reporting.link_table import links_section, read_links
from rmas_train.reporting.pictures import (
    accuracy_picture,
    cost_picture,
    sweep_picture,
    training_picture,
)
from rmas_train.reporting.tables import HEADER, table_rows, terminal_table
from rmas_train.support.contained import check_contained
from rmas_train.support.files import new_folder, write_json, write_text
from rmas_train.support.output import clean
from rmas_train.support.reading import parse_json
from rmas_train.systems.looks import looks_of, system_name

TENSORS = "links.safetensors"
STYLE = (
    "body{font-family:sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;font-size:13px}td,th{padding:2px 9px;text-align:right}"
    "td:first-child,td:nth-child(2),th:first-child,th:nth-child(2){text-align:left}"
    "tr:nth-child(even){background:#f3f3f3}img{max-width:100%}"
    "td pre{margin:0;text-align:left;white-space:pre-wrap}summary{margin:.4em 0}"
)


# No text becomes a script even if an escape were forgotten.
POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"script-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'\">"
)


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
    metrics = {run: read_metrics(folder / run) for run in results["runs"]}
    with new_folder(out) as work:
        pictures = draw(work, results, metrics)
        more = links_section({run: read_links(folder / run) for run in results["runs"]})
        more += answers_section({run: read_answers(folder / run) for run in results["runs"]})
        write_text(work / "index.html", page(results, pictures, more))
    Console(width=None if Console().is_terminal else 140).print(
        terminal_table(results["rows"], results["systems"])
    )
    for line in [*missing_lines(results), *verdict_lines(results)]:
        print(line)
    print(f"results: {folder / 'results.json'}   report: {out / 'index.html'}")


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
    rows, pictures = results["rows"], []
    looks = looks_of(rows, results["systems"])
    accuracy_picture(out / "accuracy.png", rows, results["references"], looks)
    pictures.append(("accuracy.png", "Accuracy against rounds, with 95% Wilson intervals."))
    names = {system_name(r) for r in rows}
    if {"latent", "text"} <= names:
        cost_picture(out / "cost.png", rows, looks)
        pictures.append(("cost.png", "What an answer costs, in latent space and in text."))
    if any(metrics.values()):
        training_picture(out / "training.png", metrics)
        pictures.append(("training.png", "Training: loss, and each outer link's gradient norm."))
    if len({r["trained_rounds"] for r in rows}) > 1 or len({r["latent_length"] for r in rows}) > 3:
        sweep_picture(out / "sweep.png", rows)
        pictures.append(("sweep.png", "Training depth against inference depth."))
    return pictures


def page(results: dict[str, Any], pictures: list[tuple[str, str]], more: str = "") -> str:
    """One HTML page; every text from a run file is escaped.

    Args:
        results: all that ``results.json`` holds.
        pictures: see ``draw``.
        more: see ``links_section`` and ``answers_section``.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADER)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>"
        for cells in table_rows(results["rows"], results["systems"])
    )
    figures = "".join(
        f'<p><img src="{escape(name)}" alt="{escape(caption)}"><br>{escape(caption)}</p>'
        for name, caption in pictures
    )
    said = _list("Not applicable", missing_lines(results))
    said += _list("Verdicts", verdict_lines(results))
    runs = "".join(
        f"<li><b>{_text(name)}</b>: <code>{_text(run['environment']['command'])}</code>, seed "
        f"{_text(run['config']['seed'])}, {_text(run['environment']['versions'])}, "
        f"{_text(run['environment']['cpus'])} CPU threads, "
        f"GPU {_text(run['environment']['gpu'])}</li>"
        for name, run in results["runs"].items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{POLICY}'
        f"<title>rmas_train report</title>"
        f"<style>{STYLE}</style><h1>Report</h1>{figures}<h2>Results</h2>"
        f"<p>Accuracies in percent. <i>Within reach</i>: problems that this depth can solve at "
        f"best, where the data say so. Controls: <i>start</i> = links as the outer stage began, "
        f"<i>untrained</i> = freshly drawn links, <i>null</i> = empty slots, <i>shuffled</i> = "
        f"another problem's messages.</p><table><tr>{head}</tr>{body}</table>{said}{more}"
        f"<h2>Runs</h2>"
        f"<ul>{runs}</ul></html>\n"
    )


def _list(title: str, lines: list[str]) -> str:
    items = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""


def _text(value: Any) -> str:
    """Anything from a run's files, as text in a page."""
    return escape(clean(str(value)))
