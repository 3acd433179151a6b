"""Figures of analyses and of the gradient profile; from plain data, as their files hold it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.models.annotations import LabelSet
from bokeh.models.sources import ColumnDataSource
from bokeh.models.tools import HoverTool

from rmas_train.reporting.plots import COLOURS, DASHES, GREY, heat_map, legend, line, plot, text

MEASURES = ("gradient", "times_input", "patching", "zero", "mean", "shuffled", "leave_one_out")


def profile_map(lines: Sequence[Mapping[str, Any]]) -> Any:
    """Round by edge: log10 of the norm, of the last line of the greatest depth."""
    deepest = max(one["rounds"] for one in lines)
    last = [one for one in lines if one["rounds"] == deepest][-1]
    shown = [
        {
            "x": str(place["round"]),
            "y": text(place["edge"]),
            "value": math.log10(max(place["parameters"], 1e-30)),
            "text": f"{place['parameters']:.2g}",
            "message": f"{place['message']:.2g}",
            "step": last["step"],
        }
        for place in last["edges"]
    ]
    values = [one["value"] for one in shown]
    return heat_map(shown, "round", "edge", min(values) - 0.1, max(values) + 0.1)


def profile_curves(lines: Sequence[Mapping[str, Any]]) -> Any:
    """The norm over steps, one curve per edge and round."""
    curves: dict[tuple[str, int], list[tuple[int, float]]] = defaultdict(list)
    for one in lines:
        for place in one["edges"]:
            if place["parameters"] > 0:
                curves[place["edge"], place["round"]].append((one["step"], place["parameters"]))
    drawn = plot("optimizer step", "gradient norm of this round's use", y_axis_type="log")
    edges = sorted({edge for edge, _ in curves})
    entries = {}
    for (edge, round_), points in sorted(curves.items()):
        columns: dict[str, list[Any]] = {"x": [s for s, _ in points], "y": [n for _, n in points]}
        columns |= {"edge": [text(edge)] * len(points), "round": [round_] * len(points)}
        colour = COLOURS[edges.index(edge) % len(COLOURS)]
        dash = DASHES[(round_ - 1) % len(DASHES)]
        entries[f"{edge}, round {round_}"] = line(drawn, columns, colour, dash)
    legend(drawn, entries)
    return drawn


def attribution_places(places: Sequence[Mapping[str, Any]]) -> Any:
    """Measure by place, each over its own largest value."""
    shown = []
    for measure in MEASURES:
        most = max(abs(place[measure]) for place in places) or 1.0
        for place in places:
            shown.append(
                {
                    "x": f"{place['round']}: {text(place['edge'])}",
                    "y": measure.replace("_", " "),
                    "value": abs(place[measure]) / most,
                    "text": f"{place[measure]:.2g}",
                }
            )
    drawn = heat_map(shown[::-1], "round and edge", "", 0, 1)
    drawn.x_range.factors = drawn.x_range.factors[::-1]
    drawn.xaxis.major_label_orientation = 0.7
    drawn.height += 90
    return drawn


def attribution_graph(places: Sequence[Mapping[str, Any]]) -> Any:
    """Agents on a circle; an edge is as thick as its effect is large."""
    weights: dict[tuple[str, str], float] = defaultdict(float)
    for place in places:
        source, target = place["edge"].split("-")
        weights[source, target] += abs(place["mean"])
    agents = sorted({name for edge in weights for name in edge})
    angle = {n: math.pi / 2 - 2 * math.pi * i / len(agents) for i, n in enumerate(agents)}
    at = {name: (math.cos(a), math.sin(a)) for name, a in angle.items()}
    most = max(weights.values()) or 1.0
    drawn = plot("", "", height=380, x_range=(-1.9, 1.9), y_range=(-1.5, 1.5), match_aspect=True)
    drawn.axis.visible = drawn.grid.visible = False
    columns: dict[str, list[Any]] = defaultdict(list)
    for (source, target), weight in weights.items():
        (x0, y0), (x1, y1) = at[source], at[target]
        bend = 0.25  # towards the right of its direction, so that two ways do not coincide
        middle = ((x0 + x1) / 2 + bend * (y1 - y0), (y0 + y1) / 2 - bend * (x1 - x0))
        for name, value in (
            *(("x0", x0), ("y0", y0), ("x1", x1), ("y1", y1)),
            *(("cx", middle[0]), ("cy", middle[1]), ("width", 1 + 9 * weight / most)),
            *(("edge", text(f"{source} to {target}")), ("effect", f"{weight:.3g}")),
            *(("lx", (x0 + x1) / 4 + middle[0] / 2), ("ly", (y0 + y1) / 4 + middle[1] / 2)),
        ):
            columns[name].append(value)
    source_ = ColumnDataSource(dict(columns))
    drawn.quadratic(
        "x0",
        "y0",
        "x1",
        "y1",
        "cx",
        "cy",
        source=source_,
        line_width="width",
        color=COLOURS[0],
        line_alpha=0.6,
    )
    points = drawn.scatter("lx", "ly", source=source_, size=16, color=COLOURS[4], alpha=0.001)
    drawn.add_tools(
        HoverTool(renderers=[points], tooltips=[("edge", "@edge"), ("effect", "@effect")])
    )
    named = ColumnDataSource(
        {
            "x": [at[n][0] for n in agents],
            "y": [at[n][1] for n in agents],
            "n": [text(n) for n in agents],
        }
    )
    drawn.scatter("x", "y", source=named, size=14, color=COLOURS[1])
    for where, values in (("effect", source_), ("n", named)):
        x, y = ("x", "y") if where == "n" else ("lx", "ly")
        labels = LabelSet(
            x=x,
            y=y,
            text=where,
            source=values,
            text_color=GREY,
            text_font_size="12px",
            text_align="center",
            y_offset=10,
        )
        drawn.add_layout(labels)
    return drawn


def depth_curve(rounds: Sequence[Mapping[str, Any]]) -> Any:
    """Accuracy in percent, and entropy in the hover."""
    drawn = plot("rounds", "accuracy, %", y_range=(0, 103))
    drawn.xaxis.ticker = [one["rounds"] for one in rounds]
    line(
        drawn,
        {
            "x": [one["rounds"] for one in rounds],
            "y": [100 * one["accuracy"] for one in rounds],
            "low": [100 * one["ci95"][0] for one in rounds],
            "high": [100 * one["ci95"][1] for one in rounds],
            "entropy": [one["entropy"] for one in rounds],
        },
        COLOURS[0],
    )
    return drawn


def stopping(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Accuracy against mean rounds used; one curve per rule."""
    drawn = plot("mean rounds used", "accuracy, %", y_range=(0, 103))
    entries = {}
    for i, (rule, points) in enumerate(curves.items()):
        ordered = sorted(points, key=lambda point: point["rounds"])
        columns = {
            "x": [point["rounds"] for point in ordered],
            "y": [100 * point["accuracy"] for point in ordered],
            "threshold": [point["threshold"] for point in ordered],
            "rule": [text(rule)] * len(ordered),
        }
        entries[rule] = line(drawn, columns, COLOURS[i % len(COLOURS)])
    legend(drawn, entries)
    return drawn


def probes_map(places: Sequence[Mapping[str, Any]]) -> Any:
    shown = [
        {
            "x": str(place["round"]),
            "y": text(place["edge"]),
            "value": 100 * place["accuracy"],
            "text": f"{100 * place['accuracy']:.1f}",
            "by chance": f"{100 * place['by_chance']:.1f}",
        }
        for place in places
    ]
    return heat_map(shown, "round", "edge", 0, 100)
