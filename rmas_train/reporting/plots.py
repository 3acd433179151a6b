"""Plain plots: what every figure of the page has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.models.annotations import Legend, LegendItem, Whisker
from bokeh.models.sources import ColumnDataSource
from bokeh.models.tools import HoverTool
from bokeh.plotting import figure
from bokeh.transform import linear_cmap

from rmas_train.support.output import printable

GREY = "#767c85"  # can be read on white and on black
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#999933", "#882255")
DASHES = ("solid", "dashed", "dotted", "dashdot")
LONGEST = 48


def text(value: Any) -> str:
    """A name from a run's files; nothing that a canvas would take for a formula."""
    shown = printable(str(value)).replace("$$", "$ $").replace("\\[", "[").replace("\\(", "(")
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 3]}..."


def plot(x: str, y: str, height: int = 360, **options: Any) -> Any:
    """An empty plot, as wide as the page."""
    drawn = figure(
        height=height,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,reset,save",
        toolbar_location="right",
        x_axis_label=x,
        y_axis_label=y,
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=GREY,
        **options,
    )
    drawn.toolbar.autohide = True
    for axis in drawn.axis:
        for part in ("axis_line", "major_tick_line", "minor_tick_line"):
            setattr(axis, f"{part}_color", GREY)
        axis.axis_label_text_color = axis.major_label_text_color = GREY
        axis.axis_label_text_font_style = "normal"
    drawn.grid.grid_line_color = GREY
    drawn.grid.grid_line_alpha = 0.2
    return drawn


def line(
    drawn: Any, columns: Mapping[str, Sequence[Any]], colour: str, dash: str = "solid"
) -> list[Any]:
    """A curve with points, and whiskers where there are ``low`` and ``high``; hover shows all."""
    source = ColumnDataSource(dict(columns))
    parts = [
        drawn.line("x", "y", source=source, color=colour, line_dash=dash, line_width=2),
        drawn.scatter("x", "y", source=source, color=colour, size=7),
    ]
    if "low" in columns:
        whisker: Any = Whisker(base="x", upper="high", lower="low", source=source)
        whisker.line_color = colour
        whisker.upper_head.line_color = whisker.lower_head.line_color = colour
        drawn.add_layout(whisker)
    tips = [(name, f"@{{{name}}}") for name in columns if name not in ("low", "high", "colour")]
    if "low" in columns:
        tips.append(("95% interval", "@low to @high"))
    drawn.add_tools(HoverTool(renderers=[parts[1]], tooltips=tips))
    return parts


def legend(drawn: Any, entries: Mapping[str, list[Any]], columns: int = 3) -> None:
    """Below the plot; a click hides a curve."""
    items = [LegendItem(label=text(name), renderers=parts) for name, parts in entries.items()]
    if items:
        drawn.add_layout(
            Legend(
                items=items,
                ncols=min(columns, len(items)),
                click_policy="hide",
                label_text_color=GREY,
                label_text_font_size="11px",
                background_fill_alpha=0,
                border_line_alpha=0,
            ),
            "below",
        )


def heat_map(rows: Sequence[Mapping[str, Any]], x: str, y: str, low: float, high: float) -> Any:
    """Cells of ``x``, ``y``, ``value`` and ``text``, all of them shown on hover.

    Args:
        rows: one per cell; ``x`` and ``y`` are texts.
        x, y: what the axes are.
        low, high: ends of the colour scale.
    """
    xs, ys = (list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("x", "y"))
    drawn = plot(x, y, height=max(260, 46 * len(ys) + 110), x_range=xs, y_range=ys)
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    middle = low + 0.6 * (high - low)  # Viridis is dark below and bright above
    columns["ink"] = ["white" if row["value"] < middle else "black" for row in rows]
    source = ColumnDataSource(columns)
    colours = linear_cmap("value", "Viridis256", low, high)
    cells = drawn.rect("x", "y", 0.98, 0.98, source=source, fill_color=colours, line_color=None)
    drawn.text(
        "x",
        "y",
        "text",
        source=source,
        text_align="center",
        text_baseline="middle",
        text_color="ink",
        text_font_size="12px",
    )
    tips = [(name, f"@{{{name}}}") for name in rows[0]]
    drawn.add_tools(HoverTool(renderers=[cells], tooltips=tips))
    drawn.grid.visible = False
    return drawn


def bars(
    names: Sequence[str],
    values: Sequence[float],
    colours: Sequence[str],
    intervals: Sequence[Sequence[float]] | None,
    x: str,
) -> Any:
    """Horizontal bars, the first on top; names in the hover too."""
    shown = [text(name) for name in names]
    unique = [f"{name} ({i})" if shown.count(name) > 1 else name for i, name in enumerate(shown)]
    drawn = plot(x, "", height=80 + 24 * len(unique), y_range=unique[::-1])
    columns: dict[str, Any] = {"name": unique, "value": list(values), "colour": list(colours)}
    if intervals is not None:
        columns |= {"low": [i[0] for i in intervals], "high": [i[1] for i in intervals]}
    source = ColumnDataSource(columns)
    parts = drawn.hbar("name", 0.7, "value", source=source, color="colour")
    if intervals is not None:
        drawn.segment("low", "name", "high", "name", source=source, color=GREY, line_width=2)
    tips = [(name, f"@{name}") for name in columns if name != "colour"]
    drawn.add_tools(HoverTool(renderers=[parts], tooltips=tips))
    return drawn
