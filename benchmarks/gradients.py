"""Gradient modes: cosine and norm against the exact gradient, and time per step.

    python benchmarks/gradients.py [--out docs/results/gradients.json]

On the relay (start of the outer stage and, where `scripts/gradient_report.py` has run, its end with
the exact gradient) and on a random mid-size system. One batch of training rows; the gradient of all
outer links as one vector. Times: forward and backward, median of 3, sides in turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from systems import Size, build, rows
from torch import Tensor

from rmas_train.compose import compose
from rmas_train.engine.rollout import Gradient
from rmas_train.links.folder import load_tensors
from rmas_train.links.link_set import LinkSet
from rmas_train.objectives.outer import OuterObjective
from rmas_train.objectives.outer_options import Backward
from rmas_train.runs.load import load_run
from rmas_train.runs.session import environment
from rmas_train.runs.starting_links import starting_links
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import write_json

Objective = Callable[[Backward], OuterObjective]


def modes(latent_length: int, rounds: int) -> dict[str, Backward]:
    """Every mode with k in powers of two."""
    ks = [2**i for i in range(latent_length.bit_length()) if 2**i < latent_length]
    found = {"full": Backward(), "first_step": Backward(Gradient("first_step"))}
    for mode in ("window", "parallel"):
        found |= {f"{mode} {k}": Backward(Gradient(mode, k)) for k in ks}
    found[f"parallel {latent_length}"] = Backward(Gradient("parallel", latent_length))
    return found | {f"last {k} round(s)": Backward(rounds=k) for k in range(1, rounds)}


def one_gradient(links: LinkSet, objective: OuterObjective, batch: int, rounds: int) -> Tensor:
    """The outer links' gradient as one vector; zeros where a mode gives none."""
    links.zero_grad(set_to_none=True)
    objective(list(range(batch)), rounds).sum().backward()
    parts = [
        torch.zeros(p.numel()) if p.grad is None else p.grad.flatten()
        for p in links.outer.parameters()
    ]
    return torch.cat(parts)


def compare(
    links: LinkSet, make: Objective, batch: int, rounds: int, latent_length: int
) -> dict[str, Any]:
    """Per mode: cosine to the exact gradient, norm over its norm, seconds."""
    found: dict[str, dict[str, Any]] = {}
    exact = None
    for name, backward in modes(latent_length, rounds).items():
        objective, seconds = make(backward), []
        for _ in range(4):
            began = time.perf_counter()
            gradient = one_gradient(links, objective, batch, rounds)
            seconds.append(time.perf_counter() - began)
        exact = gradient if exact is None else exact
        found[name] = {
            "cosine": torch.cosine_similarity(gradient, exact, dim=0).item(),
            "norm_ratio": (gradient.norm() / exact.norm()).item(),
            "seconds": median(seconds[1:]),
        }
    return found


def relay(setting: str, latent_length: int, links_folder: Path | None, batch: int) -> Any:
    typed = [f"experiment={setting}", f"latent_length={latent_length}", "rounds=3"]
    config = compose(typed)
    loaded = load_run(config, Runtime(config.runtime))
    links, _ = starting_links(loaded)
    if links_folder is not None:
        load_tensors(links_folder, links)

    def make(backward: Backward) -> OuterObjective:
        table = loaded.train
        return OuterObjective(loaded.team, links, table, 3, latent_length, backward=backward)

    return compare(links, make, batch, 3, latent_length)


def random_system(batch: int) -> Any:
    size = Size()
    team, links = build(size)
    table, length = rows(batch, size), size.latent_length

    def make(backward: Backward) -> OuterObjective:
        return OuterObjective(team, links, table, 2, length, backward=backward)

    return compare(links, make, batch, 2, length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/gradients.json"))
    parser.add_argument("--runs", type=Path, default=Path("outputs/gradients"))
    args = parser.parse_args()
    found = {"random, m = 16, R = 2": random_system(4)}
    for setting in ("relay_scrambled", "relay_dialect"):
        outer = args.runs / setting / "full_clip_message_3" / "outer"
        for when, folder in (("start", outer / "start"), ("trained", outer / "links")):
            if folder.is_dir():
                found[f"{setting}, m = 2, R = 3, {when}"] = relay(setting, 2, folder, 64)
    found["relay_scrambled, m = 8, R = 3, fresh start"] = relay("relay_scrambled", 8, None, 64)
    for name, of in found.items():
        print(name)
        for mode, numbers in of.items():
            print(f"  {mode}: " + ", ".join(f"{k} {v:.3g}" for k, v in numbers.items()))
    write_json(args.out, {"systems": found, "environment": environment()})


if __name__ == "__main__":
    main()
