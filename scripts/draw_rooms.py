"""Draw the rooms of the package from its imports, or print them as a Markdown table.

python scripts/draw_rooms.py docs/architecture.svg
python scripts/draw_rooms.py --table

A room is a folder or a loose file of the package. Floors are those that tests/unit/test_layout.py
holds. An arrow goes from a room to one that it imports; it is left out where other arrows lead to
the same room anyway, so that the picture stays readable (the table has all of them).
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rmas_train"
LAYOUT_TEST = ROOT / "tests" / "unit" / "test_layout.py"
KINDS = {  # what a room is for -> colour, rooms; a room that is not named is a service
    "who may start it": ("#F4C7C3", ("stages", "api", "serving", "command")),
    "what is trained and measured": (
        "#FBE3A6",
        ("objectives", "systems", "evaluation", "analysis", "training"),
    ),
    "agents, links, unroll": (
        "#BFDDF2",
        ("agents", "engine", "links", "topology", "recursion", "channels"),
    ),
    "services": ("#D5EAD0", ()),
    "ground": ("#E6E6E6", ("errors", "support", "registry", "config", "compose", "data")),
}
WIDTH, HEIGHT, BOX = 3.0, 1.55, (1.25, 0.40)  # of a place in the grid; half of a box


def floors() -> list[str]:
    """Rooms from the ground up, without the faces of the package."""
    for node in ast.parse(LAYOUT_TEST.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS":
            groups: Any = node.value  # a list of starred tuples of names
            found = [name.value for group in groups.elts for name in group.value.elts]
            return [room for room in found if not room.startswith("__")]
    raise SystemExit(f"{LAYOUT_TEST} has no FLOORS")


def files(room: str) -> list[Path]:
    single = PACKAGE / f"{room}.py"
    return [single] if single.is_file() else sorted((PACKAGE / room).rglob("*.py"))


def lines(room: str) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files(room))


def arrows(rooms: list[str]) -> dict[str, set[str]]:
    """Room -> rooms that it imports."""
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for room in rooms:
        for path in files(room):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = []
                if isinstance(node, ast.ImportFrom) and node.module:
                    names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
                elif isinstance(node, ast.Import):
                    names = [a.name for a in node.names]
                parts = [n.split(".") for n in names if n.startswith("rmas_train.")]
                found[room] |= {p[1] for p in parts if p[1] in found} - {room}
    return found


def drawn(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without the arrows whose end other arrows reach."""

    def below(room: str) -> set[str]:
        return set().union(*({r} | below(r) for r in imports[room]))

    return {
        room: {t for t in targets if not any(t in below(o) for o in targets - {t})}
        for room, targets in imports.items()
    }


def heights(imports: dict[str, set[str]], rooms: list[str]) -> dict[str, int]:
    """Room -> row of the picture: one above the highest room that it imports."""
    found: dict[str, int] = {}
    for room in rooms:
        found[room] = max((found[r] + 1 for r in imports[room]), default=0)
    return found


Point = tuple[float, float]


def place(
    edges: dict[str, set[str]], row: dict[str, int]
) -> tuple[dict[str, Point], dict[tuple[str, str], list[str]]]:
    """Where each room stands, and by which places each arrow goes.

    A long arrow passes a place of its own in every row between; rows are ordered by the mean place
    of their neighbours, up and down in turn.
    """
    rows: dict[int, list[str]] = defaultdict(list)
    for room in row:
        rows[row[room]].append(room)
    near: dict[str, list[str]] = defaultdict(list)
    ways = {}
    for room, targets in edges.items():
        for target in sorted(targets):
            between = [f"{room}>{target}@{y}" for y in range(row[room] - 1, row[target], -1)]
            for name, y in zip(between, range(row[room] - 1, row[target], -1), strict=True):
                rows[y].append(name)
            way = ways[room, target] = [room, *between, target]
            for a, b in pairwise(way):
                near[a].append(b)
                near[b].append(a)
    size = {name: 0.35 if "@" in name else 1.0 for y in rows for name in rows[y]}
    x: dict[str, float] = {}

    def spread(names: list[str], wanted: dict[str, float]) -> None:
        """In this order, close to what is wanted, without overlap."""
        left, at = float("-inf"), []
        for name in names:
            left = max(wanted[name], left + size[name] / 2)
            at.append(left)
            left += size[name] / 2
        shift = sum(wanted[n] - a for n, a in zip(names, at, strict=True)) / len(names)
        x.update({n: a + shift for n, a in zip(names, at, strict=True)})

    for y in rows:
        spread(rows[y], {n: float(i) for i, n in enumerate(rows[y])})
    for turn in range(60):
        for y in sorted(rows, reverse=bool(turn % 2)):
            wanted = {n: sum(x[m] for m in near[n]) / (len(near[n]) or 1) for n in rows[y]}
            rows[y].sort(key=lambda n: wanted[n])
            spread(rows[y], wanted)
    where = {n: (x[n] * WIDTH, y * HEIGHT) for y in rows for n in rows[y]}
    return where, ways


def draw(path: str) -> None:
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams |= {"svg.hashsalt": "rooms", "svg.fonttype": "none"}
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
    from matplotlib.path import Path as Curve

    rooms = floors()
    imports = arrows(rooms)
    where, ways = place(drawn(imports), heights(imports, rooms))
    colour = {r: c for c, named in KINDS.values() for r in named}
    xs, ys = zip(*where.values(), strict=True)
    size = (max(xs) - min(xs) + 3.4, max(ys) - min(ys) + 2.0)
    figure, axes = plt.subplots(figsize=(size[0] * 0.62, size[1] * 0.62))
    for way in ways.values():
        points = [where[n] for n in way]
        points[0] = (points[0][0], points[0][1] - BOX[1])
        points[-1] = (points[-1][0], points[-1][1] + BOX[1] + 0.05)
        corners, codes = [points[0]], [Curve.MOVETO]
        for (x0, y0), (x1, y1) in pairwise(points):
            half = (y0 + y1) / 2
            corners += [(x0, half), (x1, half), (x1, y1)]
            codes += [Curve.CURVE4] * 3
        look: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 9, "color": "#7A7A7A"}
        axes.add_patch(FancyArrowPatch(path=Curve(corners, codes), shrinkA=0, lw=0.9, **look))
    for floor, room in enumerate(rooms, 1):
        x, y = where[room]
        box = (x - BOX[0], y - BOX[1]), 2 * BOX[0], 2 * BOX[1]
        fill = colour.get(room, KINDS["services"][0])
        style: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.12", "lw": 0.9}
        axes.add_patch(FancyBboxPatch(*box, facecolor=fill, edgecolor="#444444", **style, zorder=3))
        name = room if (PACKAGE / room).is_dir() else f"{room}.py"
        centred: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 4}
        axes.text(x, y + 0.13, name, fontsize=10, weight="bold", **centred)
        axes.text(x, y - 0.19, f"floor {floor}, {lines(room):,} lines", fontsize=7, **centred)
    handles = [Patch(facecolor=c, edgecolor="#444444", label=k) for k, (c, _) in KINDS.items()]
    axes.legend(handles=handles, loc="lower left", fontsize=8, frameon=False)
    axes.set(
        xlim=(min(xs) - 1.5, max(xs) + 1.5), ylim=(min(ys) - 0.8, max(ys) + 0.8), aspect="equal"
    )
    axes.axis("off")
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None}, dpi=110)


def table() -> str:
    rooms = floors()
    imports = arrows(rooms)
    found = ["| floor | room | files | lines | imports |", "|---|---|---|---|---|"]
    for floor, room in reversed(list(enumerate(rooms, 1))):
        name = f"`{room}/`" if (PACKAGE / room).is_dir() else f"`{room}.py`"
        below = ", ".join(sorted(imports[room], key=rooms.index)) or "nothing"
        found.append(f"| {floor} | {name} | {len(files(room))} | {lines(room):,} | {below} |")
    return "\n".join(found)


if __name__ == "__main__":
    print(table()) if sys.argv[1] == "--table" else draw(sys.argv[1])
