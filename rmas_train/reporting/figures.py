"""Figures of results, costs and training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rmas_train.reporting.embedding import Picture
from rmas_train.reporting.pictures import ACCURACY, EXACT, cost_task, deepest
from rmas_train.reporting.plots import COLOURS, DASHES, GREY, bars, legend, line, plot, text
from rmas_train.systems.looks import Look, system_name

Row = dict[str, Any]
Metrics = Mapping[str, Mapping[str, list[Row]]]  # run -> stage -> lines


def accuracy(
    rows: list[Row], references: Mapping[str, Any], looks: Mapping[str, Look]
) -> list[Picture]:
    """A figure per task: accuracy against rounds with 95% intervals and exact lines, or bars."""
    found = []
    for i, task in enumerate(sorted({row["task"] for row in rows})):
        own = [row for row in rows if row["task"] == task]
        depths = sorted({row["rounds"] for row in own})
        is_flat = len(depths) == 1
        made = _bars(own, looks) if is_flat else _curves(own, references.get(task, {}), looks)
        after = "after 1 round" if depths == [1] else f"after {depths[0]} rounds"
        how = after if is_flat else "against rounds"
        caption = f"{text(task)}: accuracy {how}, with 95% Wilson intervals."
        found.append(Picture(f"accuracy-{i}", caption, made))
    return found


def _curves(rows: list[Row], lines: Mapping[str, Any], looks: Mapping[str, Look]) -> Any:
    drawn = plot("rounds", ACCURACY, height=420, y_range=(0, 103))
    drawn.xaxis.ticker = sorted({row["rounds"] for row in rows})
    entries = {}
    for name, look in looks.items():
        chosen = deepest([r for r in rows if system_name(r) == name])
        if chosen:
            entries[look.label] = line(drawn, _columns(chosen, look.label), look.colour)
    for name, (dashes, label) in EXACT.items():
        known = [(int(d), 100 * one[name]) for d, one in lines.items() if name in one]
        if known:
            x, y = zip(*sorted(known), strict=True)
            dash = {":": "dotted", "--": "dashed", "-.": "dashdot"}[dashes]
            entries[label] = [drawn.line(x, y, color=GREY, line_dash=dash, line_width=1.5)]
    legend(drawn, entries)
    return drawn


def _columns(chosen: list[Row], label: str) -> dict[str, list[Any]]:
    return {
        "x": [r["rounds"] for r in chosen],
        "y": [round(100 * r["accuracy"], 2) for r in chosen],
        "low": [round(100 * r["ci95"][0], 2) for r in chosen],
        "high": [round(100 * r["ci95"][1], 2) for r in chosen],
        "system": [text(label)] * len(chosen),
    }


def _bars(rows: list[Row], looks: Mapping[str, Look]) -> Any:
    found = {n: deepest([r for r in rows if system_name(r) == n]) for n in looks}
    names = [name for name in looks if found[name]]
    chosen = [found[name][0] for name in names]
    return bars(
        [looks[name].label for name in names],
        [round(100 * r["accuracy"], 2) for r in chosen],
        [looks[name].colour for name in names],
        [[100 * x for x in r["ci95"]] for r in chosen],
        ACCURACY,
    )


def cost(rows: list[Row], looks: Mapping[str, Look]) -> list[Picture]:
    """Tokens and latent steps per problem, latent against text; nothing where one is missing."""
    task = cost_task(rows)
    if task is None:
        return []
    own = [row for row in rows if row["task"] == task]
    drawn = plot("rounds", "per problem")
    drawn.xaxis.ticker = sorted({row["rounds"] for row in own})
    entries: dict[str, list[Any]] = {}
    for name in ("latent", "text"):
        chosen, colour = deepest([r for r in own if system_name(r) == name]), looks[name].colour
        for what, dash in (("tokens", "dashed"), ("latent_steps", "dotted"), ("seconds", "solid")):
            if name == "text" and what == "latent_steps":
                continue
            scale, unit = (1000, "milliseconds") if what == "seconds" else (1, what)
            label = f"{name}: {unit.replace('_', ' ')}"
            columns = {
                "x": [r["rounds"] for r in chosen],
                "y": [round(scale * r[what], 3) for r in chosen],
                "what": [label] * len(chosen),
            }
            entries[label] = line(drawn, columns, colour, dash)
    legend(drawn, entries)
    caption = f"{text(task)}: what an answer costs, in latent space and in text."
    return [Picture("cost", caption, drawn)]


def training(metrics: Metrics) -> list[Picture]:
    """Per run: loss by stage, and by depth in the outer stage; gradient norms by link."""
    found = []
    for number, (run, stages) in enumerate(sorted(metrics.items())):
        if any(stages.values()):
            name = f" of {text(run)}" if len(metrics) > 1 else ""
            caption = f"Training{name}: loss; of the outer stage by its number of rounds."
            found.append(Picture(f"loss-{number}", caption, _losses(stages)))
        outer = stages.get("outer") or []
        if outer and outer[0]["gradient_norms"]:
            caption = f"Training{name}: gradient norm of each outer link, before clipping."
            found.append(Picture(f"gradients-{number}", caption, _norms(outer)))
    return found


def _losses(stages: Mapping[str, list[Row]]) -> Any:
    drawn = plot("optimizer step", "loss", y_axis_type="log")
    entries: dict[str, list[Any]] = {}
    for stage, lines in stages.items():
        depths = sorted({one["rounds"] for one in lines}) if stage == "outer" else [None]
        for depth in depths:
            own = [one for one in lines if depth in (None, one["rounds"]) and one["loss"] > 0]
            label = stage if depth is None else f"{stage}, {depth} rounds"
            columns = {"x": [one["step"] for one in own], "y": [one["loss"] for one in own]}
            colour = COLOURS[len(entries) % len(COLOURS)]
            entries[label] = line(drawn, columns | {"what": [label] * len(own)}, colour)
    legend(drawn, entries)
    return drawn


def _norms(lines: list[Row]) -> Any:
    drawn = plot("optimizer step", "gradient norm", y_axis_type="log")
    entries = {}
    for i, link in enumerate(lines[0]["gradient_norms"]):
        seen = [(one["step"], one["gradient_norms"].get(link, 0)) for one in lines]
        kept = [(step, norm) for step, norm in seen if norm > 0]
        columns = {"x": [s for s, _ in kept], "y": [n for _, n in kept]}
        columns |= {"link": [text(link)] * len(kept)}
        dash = DASHES[i // len(COLOURS) % len(DASHES)]
        entries[link] = line(drawn, columns, COLOURS[i % len(COLOURS)], dash)
    legend(drawn, entries)
    return drawn
