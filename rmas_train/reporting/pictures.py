"""Pictures of a run, as PNG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmas_train.support.files import write_bytes
from rmas_train.support.output import printable
from rmas_train.systems.looks import Look, system_name

Row = dict[str, Any]


def plain(text: str) -> str:
    """A name from a run's files, never a formula (``$``) or a control character."""
    return printable(text).replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all; what stands beside the panels is inside it."""
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=120, bbox_inches="tight")
    plt.close(figure)
    write_bytes(path, held.getvalue())


def accuracy_picture(
    path: Path, rows: list[Row], references: dict[str, Any], looks: Mapping[str, Look]
) -> None:
    """Accuracy against rounds, one panel per task, with the ceiling and the exact lines.

    Rows of different runs come ``apart``.

    A task with one depth has bars, one for each system.
    """
    tasks = sorted({row["task"] for row in rows})
    across = min(ACROSS, len(tasks))
    down = -(-len(tasks) // across)
    size = (5.2 * across, max(4.4, 0.4 * len(looks)) * down)
    figure, panels = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for panel in panels.flat[len(tasks) :]:
        panel.set_axis_off()
    entries: dict[str, Any] = {}
    for panel, task in zip(panels.flat, tasks, strict=False):
        own, lines = [r for r in rows if r["task"] == task], references.get(task, {})
        if len({r["rounds"] for r in own}) == 1:
            _bars(panel, own, lines, looks)
        else:
            _curves(panel, own, lines, looks)
        handles, labels = panel.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    _legend(figure, entries)
    save(figure, path)


def _curves(panel: Axes, rows: list[Row], lines: dict[str, Any], looks: Mapping[str, Look]) -> None:
    _reference_lines(panel, lines, rows)
    for name, look in looks.items():
        chosen = deepest([r for r in rows if system_name(r) == name])
        if chosen:
            panel.errorbar(
                [r["rounds"] for r in chosen],
                [100 * r["accuracy"] for r in chosen],
                yerr=_intervals(chosen),
                color=look.colour,
                marker=look.marker,
                capsize=3,
                label=label_of(look),
                zorder=4 if name == "latent" else 3,  # the trained system is never hidden
            )
    title = "\n".join(textwrap.wrap(plain(rows[0]["task"]), 44))
    panel.set(title=title, xlabel="rounds", ylim=(0, 103), ylabel=ACCURACY)
    panel.set_xticks(sorted({r["rounds"] for r in rows}))


def _bars(panel: Axes, rows: list[Row], lines: dict[str, Any], looks: Mapping[str, Look]) -> None:
    """One bar for each system, the first one on top; exact values as lines across."""
    found = {name: deepest([r for r in rows if system_name(r) == name]) for name in looks}
    names = [name for name in looks if found[name]]
    chosen = [found[name][0] for name in names]
    panel.barh(
        range(len(names)),
        [100 * r["accuracy"] for r in chosen],
        xerr=_intervals(chosen),
        color=[looks[name].colour for name in names],
        capsize=3,
        height=0.7,
    )
    depth = chosen[0]["rounds"]
    for name, value in lines.get(str(depth), {}).items():
        if name in EXACT:
            panel.axvline(100 * value, linestyle=EXACT[name][0], **BLACK, label=EXACT[name][1])
    panel.set_yticks(range(len(names)), [label_of(looks[name]) for name in names])
    panel.invert_yaxis()
    rounds = "1 round" if depth == 1 else f"{depth} rounds"
    panel.set(title=f"{plain(rows[0]['task'])}, {rounds}", xlim=(0, 103), xlabel=ACCURACY)


def _intervals(rows: list[Row]) -> list[list[float]]:
    """Below and above each accuracy."""
    below = [100 * (r["accuracy"] - r["ci95"][0]) for r in rows]
    return [below, [100 * (r["ci95"][1] - r["accuracy"]) for r in rows]]


ACCURACY = "accuracy, % of all test problems"
ACROSS = 4  # panels
BLACK: dict[str, Any] = {"color": "black", "linewidth": 1}
# Name in references.json -> line style, label.
EXACT = {
    "ceiling": (":", "ceiling (problems within reach)"),
    "stops": ("--", "exact: stops at its reach"),
    "best_guess": ("-.", "exact: best blind guess from there"),
    "guess_shown": ("--", "exact: a guess among what is shown"),
    "guess_any": ("-.", "exact: a guess among all answers"),
}


def label_of(look: Look) -> str:
    """A system's label, in lines that fit beside a panel."""
    return "\n".join(textwrap.wrap(plain(look.label), 34)) or " "


def _reference_lines(panel: Axes, lines: dict[str, Any], rows: list[Row]) -> None:
    depths = sorted({r["rounds"] for r in rows} & {int(d) for d in lines})
    for name, (dashes, label) in EXACT.items():
        known = [d for d in depths if name in lines[str(d)]]
        if known:
            values = [100 * lines[str(d)][name] for d in known]
            panel.plot(known, values, dashes, **BLACK, label=label)


def apart(results: Mapping[str, Any]) -> tuple[list[Row], dict[str, Any]]:
    """Rows and exact lines for pictures: runs that share a task, and are no sweep, have their own.

    A sweep's jobs are one curve, of the deepest training; runs that only lie in one folder are not.
    """
    rows, lines = list(results["rows"]), dict(results["references"])
    pairs = {(row["task"], row["run"]) for row in rows}
    tasks = [task for task, _ in pairs]
    if results["sweep"] or len(set(tasks)) == len(pairs):
        return rows, lines
    own = {(task, run): f"{run}: {task}" if tasks.count(task) > 1 else task for task, run in pairs}
    lines |= {name: lines[task] for (task, _), name in own.items() if task in lines}
    return [row | {"task": own[row["task"], row["run"]]} for row in rows], lines


def deepest(rows: list[Row]) -> list[Row]:
    """One row per depth: of the run trained deepest, with the most latent steps."""
    best: dict[int, Row] = {}
    for row in sorted(rows, key=lambda r: (r["trained_rounds"] or 0, r["latent_length"])):
        best[row["rounds"]] = row
    return [best[depth] for depth in sorted(best)]


def training_picture(path: Path, metrics: dict[str, dict[str, list[Row]]]) -> None:
    """Loss and per-link gradient norms against steps, one column per run."""
    runs = {name: stages for name, stages in metrics.items() if stages}
    names = [
        stages["outer"][0]["gradient_norms"] for stages in runs.values() if stages.get("outer")
    ]
    is_long = max(map(len, names), default=0) > 5  # the names stand beside the panel then
    size = ((8.6 if is_long else 5.2) * len(runs), 6.4)
    figure, panels = plt.subplots(
        2, len(runs), figsize=size, squeeze=False, sharex="col", layout="constrained"
    )
    for column, (name, stages) in enumerate(sorted(runs.items())):
        loss, norms = panels[0][column], panels[1][column]
        for stage, lines in stages.items():
            steps = [line["step"] for line in lines]
            loss.plot(steps, [line["loss"] for line in lines], label=f"{stage} loss")
        outer = stages.get("outer") or [{"gradient_norms": {}}]
        for i, link in enumerate(outer[0]["gradient_norms"]):
            seen = [(line["step"], line["gradient_norms"][link]) for line in outer]
            drawn = [(step, norm) for step, norm in seen if norm > 0]
            if drawn:
                dashes = ("-", "--", ":", "-.")[i // 10 % 4]  # there are ten colours
                norms.semilogy(*zip(*drawn, strict=True), dashes, label=plain(link))
        loss.set(title=plain(name), yscale="log", ylabel="loss")
        norms.set(xlabel="optimizer step", ylabel="gradient norm before clipping")
        loss.legend(fontsize=8)
        if norms.lines:
            beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
            norms.legend(fontsize=8, **(beside if is_long else {}))
    save(figure, path)


def cost_task(rows: list[Row]) -> str | None:
    """The first task that both the latent and the text system answered; None: there is none."""
    for task in sorted({row["task"] for row in rows}):
        if {"latent", "text"} <= {system_name(row) for row in rows if row["task"] == task}:
            return str(task)
    return None


def cost_picture(path: Path, rows: list[Row], task: str, looks: Mapping[str, Look]) -> None:
    """Tokens (and latent steps) and seconds per problem, latent against text, by rounds."""
    figure, panels = plt.subplots(1, 2, figsize=(10.4, 4.2), layout="constrained")
    depths = sorted({r["rounds"] for r in rows if r["task"] == task})
    for name in ("latent", "text"):
        chosen = deepest([r for r in rows if r["task"] == task and system_name(r) == name])
        colour = {"color": looks[name].colour, "marker": looks[name].marker}
        x, tokens = [r["rounds"] for r in chosen], [r["tokens"] for r in chosen]
        if name == "latent":
            steps = [r["tokens"] + r["latent_steps"] for r in chosen]
            panels[0].plot(x, steps, **colour, label="latent: tokens + latent steps")
            colour |= {"markerfacecolor": "white", "linestyle": "--"}
        panels[0].plot(x, tokens, **colour, label=f"{name}: text tokens")
        colour |= {"markerfacecolor": looks[name].colour, "linestyle": "-"}
        seconds = [1000 * r["seconds"] for r in chosen]
        panels[1].plot(x, seconds, **colour, label=plain(looks[name].label))
    titles = ("per problem", "milliseconds per problem, batched")
    for panel, title in zip(panels, titles, strict=True):
        most = max(max(line.get_ydata()) for line in panel.lines)
        panel.set(xlabel="rounds", title=f"{plain(task)}: {title}", ylim=(0, 1.15 * most or 1))
        panel.set_xticks(depths)
        panel.legend(fontsize=8)
    save(figure, path)


def sweep_picture(path: Path, rows: list[Row]) -> None:
    """Heat map: training depth by inference depth, one panel per task and latent length."""
    rows = [r for r in rows if system_name(r) == "latent"]
    panels_of = sorted({(r["task"], r["latent_length"]) for r in rows})
    trained = sorted({r["trained_rounds"] for r in rows})
    used = sorted({r["rounds"] for r in rows})
    figure, panels = plt.subplots(
        1, len(panels_of), figsize=(1.2 + 3.2 * len(panels_of), 3.6), squeeze=False
    )
    for panel, (task, length) in zip(panels[0], panels_of, strict=True):
        chosen = {
            (r["trained_rounds"], r["rounds"]): 100 * r["accuracy"]
            for r in rows
            if (r["task"], r["latent_length"]) == (task, length)
        }
        grid = [[chosen.get((t, u), float("nan")) for u in used] for t in trained]
        panel.imshow(grid, vmin=0, vmax=100, cmap="viridis", origin="lower", aspect="auto")
        for i, line in enumerate(grid):
            for j, value in enumerate(line):
                if value == value:
                    panel.text(j, i, f"{value:.0f}", ha="center", va="center", color="white")
        panel.set(title=f"{plain(task)}, latent length {length}", xlabel="rounds in evaluation")
        panel.set_xticks(range(len(used)), used)
        panel.set_yticks(range(len(trained)), trained)
    panels[0][0].set_ylabel("rounds in training")
    figure.suptitle("accuracy, %")
    figure.tight_layout()
    save(figure, path)


def _legend(figure: Figure, entries: Mapping[str, Any]) -> None:
    """Below the panels; the picture grows with it."""
    if entries:
        columns = max(2, int(figure.get_figwidth() // 2.6))  # a label needs about 2.6 inches
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            ncols=columns,
            fontsize=8,
            frameon=False,
        )
