"""What ``stage=analyse`` and training's profile found, as parts of the page.

Read from ``analyse/<name>.json`` and ``outer/profile.jsonl`` of a run folder. A file that does not
hold what it should is named in the page, and nothing else of it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from rmas_train.reporting.embedding import Picture, pictures_html
from rmas_train.reporting.insight_figures import (
    attribution_graph,
    attribution_places,
    depth_curve,
    probes_map,
    profile_curves,
    profile_map,
    stopping,
)
from rmas_train.support.output import clean
from rmas_train.support.reading import parse_json

MOST_LINES, MOST_EXAMPLES = 2000, 3


def insight_section(run: Path, name: str) -> str:
    """The parts of one run; nothing where nothing was measured.

    Args:
        run: its folder.
        name: of the run, where the page has several.
    """
    parts = [
        _part(run / "outer" / "profile.jsonl", "Gradient profile", _profile, _lines),
        *(
            _part(run / "analyse" / f"{kind}.json", title, make, _result)
            for kind, title, make in KINDS
        ),
    ]
    body = "".join(part for part in parts if part)
    head = f"<h2>Insight{': ' + _text(name) if name else ''}</h2>"
    return head + body if body else ""


def _part(path: Path, title: str, make: Callable[[Any], str], read: Callable[[Path], Any]) -> str:
    if not path.is_file():
        return ""
    try:
        return f"<h3>{escape(title)}</h3>{make(read(path))}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        why = _text(f"{path.name}: cannot be shown ({type(error).__name__}: {error})")
        return f"<h3>{escape(title)}</h3><p>{why}; run it again.</p>"


def _result(path: Path) -> Any:
    return parse_json(path.read_text(encoding="utf-8"))["result"]


def _lines(path: Path) -> list[Any]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-MOST_LINES:]
    return [parse_json(line) for line in lines if line.strip()]


def _profile(lines: list[Any]) -> str:
    made = [
        Picture(
            "profile-map",
            "What each round adds to a link's gradient: the norm for the last "
            "step of the greatest depth that was profiled.",
            profile_map(lines),
        ),
        Picture("profile", "The same over training.", profile_curves(lines)),
    ]
    return pictures_html(made) if lines else ""


def _health(result: Mapping[str, Any]) -> str:
    found = result["warnings"]
    said = "".join(
        f"<li><b>{_text(one['edge'])}: {_text(one['name'])}</b>: {_text(one['why'])}</li>"
        for one in found
    )
    head = (
        "round",
        "edge",
        "loudness",
        "variation",
        "variation_before",
        "cosine",
        "neighbours_kept",
        "effective_rank",
    )
    rows = [[_number(place[key]) for key in head] for place in result["places"]]
    lead = f"<ul>{said}</ul>" if found else "<p>Nothing is wrong with any link.</p>"
    return lead + table(head, rows) + _content(result["content"])


def _content(content: Mapping[str, Any]) -> str:
    rows = [
        [edge, _number(one["mean"]), f"{_number(one['ci95'][0])} to {_number(one['ci95'][1])}"]
        for edge, one in content.items()
    ]
    return table(
        ("edge", "fall of the gold answer's log p with another row's messages", "95% interval"),
        rows,
    )


def _attribution(result: Mapping[str, Any]) -> str:
    made = [
        Picture(
            "attribution-graph",
            "Edges by what the mean message in place of their own does "
            "to the answer, all rounds together.",
            attribution_graph(result["places"]),
        ),
        Picture(
            "attribution",
            "Each measure by round and edge, over its largest value.",
            attribution_places(result["places"]),
        ),
    ]
    head = ("guess", "measured", "within rows", "pooled", "over places", "first")
    keys = ("within_rows", "pooled", "over_places", "first")
    rows = [
        [guess, measured, *(_number(numbers[key]) for key in keys)]
        for guess, by_measure in result["agreement"].items()
        for measured, numbers in by_measure.items()
    ]
    lead = f"<p>Rank correlations; score: {_text(result['target'])}; {result['rows']:d} rows.</p>"
    return pictures_html(made) + lead + table(head, rows)


def _text_attribution(result: list[Any]) -> str:
    head = ("round", "edge", "gradient", "times_input", "first")
    return table(head, [[_number(one[key]) for key in head] for one in result])


def _depth(result: Mapping[str, Any]) -> str:
    made = [
        Picture(
            "depth",
            "Accuracy after each round of one unroll, with 95% intervals, and the "
            "entropy of the answer.",
            depth_curve(result["rounds"]),
        ),
    ]
    if result["stopping"]:
        made.append(
            Picture(
                "stopping",
                "Stopping rules: accuracy against mean rounds used "
                f"(the trained one: {_text(result['fitted_on'])}).",
                stopping(result["stopping"]),
            )
        )
    return pictures_html(made)


def _lens(result: Mapping[str, Any]) -> str:
    head = ("round", "edge", "to_answer", "to_other_answer")
    parts = [table(head, [[_number(one[key]) for key in head] for one in result["distance"]])]
    for example in result["examples"][:MOST_EXAMPLES]:
        rows = [
            [
                str(m["round"]),
                m["edge"],
                " | ".join(_words(v) for v in m["nearest"]),
                " | ".join(_words(v) for v in m["own_logits"]),
            ]
            for m in example["messages"]
        ]
        title = f"{_text(example['question'])} <b>{_text(example['answer'])}</b>"
        inside = table(("round", "edge", "nearest tokens", "its own logits"), rows)
        parts.append(f"<details><summary>{title}</summary>{inside}</details>")
    return "".join(parts)


def _words(best: list[Any]) -> str:
    return ", ".join(f"{str(token).strip() or '_'} {value:.2f}" for token, value in best[:3])


def _probes(result: Mapping[str, Any]) -> str:
    caption = (
        f"What a linear probe reads off each message: {_text(result['column'])}, "
        f"{result['classes']:d} values, the most frequent {100 * result['most_frequent']:.1f}%."
    )
    return pictures_html([Picture("probes", caption, probes_map(result["places"]))])


def _confidence(result: Mapping[str, Any]) -> str:
    head = ("least", "below", "vectors", "readout", "link", "text")
    rows = [[_number(one.get(key)) for key in head] for one in result["bins"]]
    lead = "<p>Median gradient norm by the entropy of the next token, nats.</p>"
    return lead + table(head, rows)


def _messages(result: list[Any]) -> str:
    head = ("round", "edge", "norm", "cosine")
    return table(head, [[_number(one[key]) for key in head] for one in result])


KINDS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("health", "Link health", _health),
    ("attribution", "Attribution", _attribution),
    ("text_attribution", "Attribution through text edges", _text_attribution),
    ("depth", "Depth", _depth),
    ("lens", "What messages say", _lens),
    ("probes", "Probes", _probes),
    ("confidence", "Gradient against confidence", _confidence),
    ("messages", "Messages", _messages),
)


def table(head: Any, rows: list[list[str]]) -> str:
    """Cells are escaped here."""
    top = "".join(f"<th>{_text(str(cell).replace('_', ' '))}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)


def _text(value: Any) -> str:
    return escape(clean(str(value)))
