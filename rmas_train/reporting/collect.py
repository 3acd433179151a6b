"""Run files below a folder, read into plain rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from rmas_train.errors import UserError
from rmas_train.reporting.sweep_table import read_sweep, summarise
from rmas_train.support.reading import check_type, parse_json, short
from rmas_train.systems.looks import Look

Row = dict[str, Any]
EARLIER = "earlier"  # folder of a run with what it had before it was started over


class RowExtras(TypedDict, total=False):
    """What some rows have."""

    accuracy_lenient: float
    unreadable: int
    retried: int


class ResultRow(RowExtras):
    """Types of a row of ``results.json``, as far as the report reads it (docs/results.md)."""

    task: str
    system: str
    control: str | None
    rounds: int
    latent_length: int
    accuracy: float
    ci95: list[float]
    accuracy_within_reach: float | None
    accuracy_beyond_reach: float | None
    tokens: float
    latent_steps: float
    seconds: float


class Environment(TypedDict):
    """Of ``environment`` in ``results.json``."""

    command: str
    versions: dict[str, str | None]
    cpus: int | None
    gpu: str | None


class Seed(TypedDict):
    """Of ``config`` in ``results.json``."""

    seed: int


class SystemLook(TypedDict):
    """Of ``systems`` in ``results.json``."""

    label: str
    colour: str
    marker: str
    order: int


class Verdict(TypedDict):
    """Of ``verdicts`` in ``results.json``."""

    task: str
    rounds: int
    line: str


class NotApplicable(TypedDict):
    """Of ``not_applicable`` in ``results.json``."""

    task: str
    system: str
    control: str | None
    why: str


class Results(TypedDict):
    """Types of ``eval/results.json``; ``systems`` is missing in those of version 0.1."""

    rows: list[ResultRow]
    references: dict[str, Any]
    links: str
    trained_rounds: int | None
    environment: Environment
    config: Seed


class Line(TypedDict, total=False):
    """Exact lines at one depth; a recipe gives those that it knows."""

    ceiling: float
    stops: float
    best_guess: float
    guess_shown: float
    guess_any: float


class MetricsLine(TypedDict):
    """Types of a line of ``metrics.jsonl``."""

    step: int
    loss: float
    gradient_norms: dict[str, float]


def result_files(folder: Path) -> list[Path]:
    """``eval/results.json`` of the run itself and of runs below it (sweeps, experiments)."""
    found = folder.rglob("eval/results.json")
    return sorted(p for p in found if EARLIER not in p.relative_to(folder).parts)


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
        check_type(value, Results, "")
        check_references(value["references"])
        check_looks(value.get("systems", {}))
        check_type(value.get("verdicts", []), list[Verdict], "verdicts")
        check_type(value.get("not_applicable", []), list[NotApplicable], "not_applicable")
        check_type(value.get("comparisons", []), list[dict[str, Any]], "comparisons")
        if not value["rows"]:
            raise ValueError("no rows in it")
        for row in value["rows"]:
            _check_row(row)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run stage=eval again.") from error
    return dict(value)


def _check_row(row: Row) -> None:
    """What types do not say.

    Raises:
        ValueError: names the key.
    """
    if len(row["ci95"]) != 2 or not row["ci95"][0] <= row["accuracy"] <= row["ci95"][1]:
        raise ValueError(f"key ci95 is {short(row['ci95'])} around {short(row['accuracy'])}")


def check_looks(systems: Any) -> None:
    """System -> how it is shown, as pictures can draw it.

    Raises:
        ValueError: names the key.
    """
    check_type(systems, dict[str, SystemLook], "systems")
    for name, look in systems.items():
        try:
            Look(**look)
        except (TypeError, ValueError) as error:
            raise ValueError(f"key systems.{short(name)}: {error}") from error


def check_references(lines: Any) -> None:
    """Task -> rounds -> exact lines by name.

    Raises:
        ValueError: names the key.
    """
    check_type(lines, dict[str, dict[str, Line]], "references")
    for task, by_rounds in lines.items():
        for rounds in by_rounds:
            if not (rounds.isascii() and rounds.isdigit()) or len(rounds) > 9:
                raise ValueError(f"key references.{task} has {short(rounds)}, not rounds")


def collect(folder: Path) -> dict[str, Any]:
    """All results below ``folder`` in the form of docs/results.md.

    Raises:
        UserError: there are none.
    """
    files = result_files(folder)
    if not files:
        raise UserError(f"{folder}: no eval/results.json below it; run stage=eval first.")
    rows: list[Row] = []
    sweep = read_sweep(folder)
    references: dict[str, Any] = {}
    runs: dict[str, Any] = {}
    systems: dict[str, Any] = {}
    compared: dict[str, list[Any]] = {"not_applicable": [], "comparisons": [], "verdicts": []}
    for path in files:
        found = read_json(path)
        name = str(path.parent.parent.relative_to(folder))
        extra: Row = {"run": name, "trained_rounds": found["trained_rounds"]}
        if sweep is not None and name in sweep["jobs"]:
            extra["swept"] = sweep["jobs"][name]
        rows += [row | extra for row in found["rows"]]
        references |= found["references"]
        systems |= found.get("systems", {})
        for key, own in compared.items():
            own += [one | {"run": name} for one in found.get(key, [])]
        runs[name] = {k: found[k] for k in ("environment", "config", "links")}
    found = {"schema": 1, "rows": rows, "systems": systems, **compared}
    swept = None if sweep is None else summarise(sweep, rows)
    return found | {"references": references, "runs": runs, "sweep": swept}


def read_metrics(folder: Path) -> dict[str, list[Row]]:
    """Stage -> lines of its ``metrics.jsonl``, for the run in ``folder``."""
    found = {}
    for stage in ("inner", "outer"):
        path = folder / stage / "metrics.jsonl"
        if path.is_file():
            found[stage] = _metrics_lines(path)
    return found


def _metrics_lines(path: Path) -> list[Row]:
    lines = path.read_bytes().splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                rows.append(parse_json(line.decode()))
                check_type(rows[-1], MetricsLine, "")
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: {error}; remove the line, or train again."
            ) from error
    return rows
