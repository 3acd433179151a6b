"""Pictures of a run, as PNG."""

from __future__ import annotations

import io
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
    """Write a picture, whole or not at all."""
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=120)
    plt.close(figure)
    write_bytes(path, held.getvalue())


def accuracy_picture(
    path: Path, rows: list[Row], references: dict[str, Any], looks: Mapping[str, Look]
) -> None:
    """Accuracy against rounds, one panel per task, with the ceiling and the exact lines."""
    tasks = sorted({row["task"] for row in rows})
    figure, panels = plt.subplots(
        1, len(tasks), figsize=(5.2 * len(tasks), 4.4), sharey=True, squeeze=False
    )
    for panel, task in zip(panels[0], tasks, strict=True):
        _reference_lines(panel, references.get(task, {}), [r for r in rows if r["task"] == task])
        for name, look in looks.items():
            chosen = _deepest([r for r in rows if r["task"] == task and system_name(r) == name])
            if chosen:
                x, y = [r["rounds"] for r in chosen], [100 * r["accuracy"] for r in chosen]
                below = [100 * (r["accuracy"] - r["ci95"][0]) for r in chosen]
                above = [100 * (r["ci95"][1] - r["accuracy"]) for r in chosen]
                order = 4 if name == "latent" else 3  # the trained system is never hidden
                panel.errorbar(
                    x,
                    y,
                    yerr=[below, above],
                    color=look.colour,
                    marker=look.marker,
                    capsize=3,
                    label=plain(look.label),
                    zorder=order,
                )
        panel.set(title=plain(task), xlabel="rounds", ylim=(0, 103))
        panel.set_xticks(sorted({r["rounds"] for r in rows if r["task"] == task}))
    panels[0][0].set_ylabel("accuracy, % of all test problems")
    _finish(figure, panels[0][0], path)


def _reference_lines(panel: Axes, lines: dict[str, Any], rows: list[Row]) -> None:
    depths = sorted({r["rounds"] for r in rows} & {int(d) for d in lines})
    styles = {"ceiling": ":", "stops": "--", "best_guess": "-."}
    labels = {
        "ceiling": "ceiling (problems within reach)",
        "stops": "exact: stops at its reach",
        "best_guess": "exact: best blind guess from there",
    }
    for name, dashes in styles.items():
        values = [100 * lines[str(d)][name] for d in depths]
        if values:
            panel.plot(depths, values, dashes, color="black", linewidth=1, label=labels[name])


def _deepest(rows: list[Row]) -> list[Row]:
    """One row per depth: of the run trained deepest, with the most latent steps."""
    best: dict[int, Row] = {}
    for row in sorted(rows, key=lambda r: (r["trained_rounds"] or 0, r["latent_length"])):
        best[row["rounds"]] = row
    return [best[depth] for depth in sorted(best)]


def training_picture(path: Path, metrics: dict[str, dict[str, list[Row]]]) -> None:
    """Loss and per-link gradient norms against steps, one column per run."""
    runs = {name: stages for name, stages in metrics.items() if stages}
    figure, panels = plt.subplots(
        2, len(runs), figsize=(5.2 * len(runs), 6.4), squeeze=False, sharex="col"
    )
    for column, (name, stages) in enumerate(sorted(runs.items())):
        for stage, lines in stages.items():
            panels[0][column].plot(
                [line["step"] for line in lines],
                [line["loss"] for line in lines],
                label=f"{stage} loss",
            )
        outer = stages.get("outer") or [{"gradient_norms": {}}]
        for link in outer[0]["gradient_norms"]:
            seen = [(line["step"], line["gradient_norms"][link]) for line in outer]
            drawn = [(step, norm) for step, norm in seen if norm > 0]
            if drawn:
                panels[1][column].semilogy(*zip(*drawn, strict=True), label=plain(link))
        panels[0][column].set(title=plain(name), yscale="log", ylabel="loss")
        panels[1][column].set(xlabel="optimizer step", ylabel="gradient norm before clipping")
        panels[0][column].legend(fontsize=8)
        panels[1][column].legend(fontsize=8)
    figure.tight_layout()
    save(figure, path)


def cost_picture(path: Path, rows: list[Row], looks: Mapping[str, Look]) -> None:
    """Tokens (and latent steps) and seconds per problem, latent against text, by rounds."""
    figure, panels = plt.subplots(1, 2, figsize=(10.4, 4.2))
    task = sorted({row["task"] for row in rows})[0]
    for name in ("latent", "text"):
        chosen = _deepest([r for r in rows if r["task"] == task and system_name(r) == name])
        look = looks[name]
        x = [r["rounds"] for r in chosen]
        if name == "latent":
            total = [r["tokens"] + r["latent_steps"] for r in chosen]
            panels[0].plot(
                x,
                total,
                color=look.colour,
                marker=look.marker,
                label="latent: tokens + latent steps",
            )
        panels[0].plot(
            x,
            [r["tokens"] for r in chosen],
            color=look.colour,
            marker=look.marker,
            linestyle="--" if name == "latent" else "-",
            label=f"{name}: text tokens",
        )
        panels[1].plot(
            x,
            [1000 * r["seconds"] for r in chosen],
            color=look.colour,
            marker=look.marker,
            label=plain(look.label),
        )
    for panel, title in zip(
        panels, ("per problem", "milliseconds per problem, batched"), strict=True
    ):
        panel.set(xlabel="rounds", title=f"{plain(task)}: {title}", ylim=(0, None))
        panel.set_xticks(sorted({r["rounds"] for r in rows}))
        panel.legend(fontsize=8)
    figure.tight_layout()
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


def _finish(figure: Any, panel: Axes, path: Path) -> None:
    handles, labels = panel.get_legend_handles_labels()
    columns = max(2, int(figure.get_figwidth() // 2.6))  # a label needs about 2.6 inches
    rows = -(-len(labels) // columns)
    figure.legend(handles, labels, loc="lower center", ncols=columns, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.02 + 0.05 * rows, 1, 1))
    save(figure, path)
