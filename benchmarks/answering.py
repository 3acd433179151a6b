"""Answering: latent against text recursion, seconds, tokens, and where the curves cross.

    python benchmarks/answering.py [--out outputs/bench/answering.json]

Both sides: the same agents, rounds, batch, frozen prefixes, KV cache and greedy loop. A message of
the text system has L tokens (random agents hardly ever end a text), one of the latent system m
latent steps; both answer with L tokens. Curves over L / m; the paper's figures stand in
docs/benchmarks.md as reference.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from systems import Size, build, rows

from rmas_train.runs.session import environment
from rmas_train.support.files import write_json
from rmas_train.systems.latent import System
from rmas_train.systems.text import TextSystem

ROUNDS, BATCH = 2, 8
TEXT_LENGTHS = (4, 8, 16, 32, 64)


def timed(run: Callable[[], Any], repeats: int) -> tuple[list[float], Any]:
    found, result = [], None
    for _ in range(repeats + 1):
        began = time.perf_counter()
        result = run()
        found.append(time.perf_counter() - began)
    return found[1:], result


def measure(size: Size, length: int, repeats: int) -> dict[str, Any]:
    """Both sides at one text length."""
    team, links = build(size)
    table = rows(BATCH, size).rows
    system = System(team, links, ROUNDS, size.latent_length, max_new_tokens=length)

    def text() -> Any:
        return TextSystem(team, length, BATCH).answer(table, ROUNDS)

    latent_s, latent = timed(lambda: system.answer(table, batch_size=BATCH), repeats)
    text_s, texts = timed(text, repeats)
    tokens = sum(a.tokens for a in latent) / BATCH
    return {
        "text_length_over_m": length / size.latent_length,
        "latent": {
            "seconds": latent_s,
            "tokens": tokens,
            "steps": tokens + sum(a.latent_steps for a in latent) / BATCH,
        },
        "text": {"seconds": text_s, "tokens": sum(t.tokens for t in texts) / BATCH},
    }


def crossing(points: list[dict[str, Any]], cost: Callable[[dict[str, Any]], float]) -> float | None:
    """L / m where text begins to cost more than latent, linear between points; None: nowhere."""
    ratios = [cost(p["text"]) / cost(p["latent"]) for p in points]
    at = [p["text_length_over_m"] for p in points]
    if not ratios[0] < 1 < ratios[-1]:
        return None
    return float(np.interp(1.0, ratios, at))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/answering.json"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="larger sizes, no time limit")
    args = parser.parse_args()
    size = Size(width=512, layers=8, prompt=400) if args.full else Size()
    points = [measure(size, length, args.repeats) for length in TEXT_LENGTHS]
    for point in points:
        ratio = median(point["text"]["seconds"]) / median(point["latent"]["seconds"])
        steps = point["text"]["tokens"] / point["latent"]["steps"]
        print(
            f"L / m = {point['text_length_over_m']}: text takes {ratio:.2f} of latent's time, "
            f"{steps:.2f} of its tokens and steps"
        )
    crossings = {
        "answering_crossing_seconds": crossing(points, lambda side: median(side["seconds"])),
        "answering_crossing_steps": crossing(
            points, lambda side: float(side.get("steps", side["tokens"]))
        ),
    }
    print(json.dumps(crossings))
    setting = {"size": asdict(size), "rounds": ROUNDS, "batch": BATCH, "environment": environment()}
    write_json(args.out, crossings | {"points": points} | setting)


if __name__ == "__main__":
    main()
