"""What the gradient profile costs: an outer step of the relay without it, with it, and by default.

    python benchmarks/insight.py [--steps 12] [--json outputs/bench/insight.json]

Steps with and without the profile alternate in one process, on the same rows, at three rounds; the
ratio is of their medians. At the default interval the share is that of one step in
``training.outer.profile_every``. The profile holds the health of messages (norm, variation) too.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

from rmas_train.compose import compose
from rmas_train.objectives.base import build_objective
from rmas_train.runs.load import load_run
from rmas_train.runs.session import environment
from rmas_train.runs.starting_links import starting_links
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import write_json

ROUNDS, ROWS = 3, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--json", type=Path, default=Path("outputs/bench/insight.json"))
    options = parser.parse_args()
    config = compose(["experiment=relay", "stage=outer"])
    loaded = load_run(config, Runtime(config.runtime))
    links, _ = starting_links(loaded)
    objective = build_objective(config, loaded, links)
    profile = objective.profile
    assert profile is not None
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for step in range(options.steps):
        rows = list(range(step * ROWS, (step + 1) * ROWS))
        for is_on in (False, True) if step % 2 else (True, False):
            profile.is_on = is_on
            began = time.perf_counter()
            (objective(rows, ROUNDS).sum() / objective.count(rows).sum()).backward()
            if is_on:
                profile.collect(lambda x: x)
            seconds[is_on].append(time.perf_counter() - began)
            links.zero_grad()
    plain, profiled = (median(seconds[key][1:]) for key in (False, True))
    every = config.training.outer.profile_every
    found = {
        "seconds_per_step": plain,
        "ratio": profiled / plain,
        "share_at_default_interval": (profiled / plain - 1) / every,
        "profile_every": every,
        "steps": options.steps,
        "environment": environment(),
    }
    write_json(options.json, found)
    print(
        f"step {plain:.3f} s; profiled {found['ratio']:.3f} times; by default "
        f"{100 * found['share_at_default_interval']:.2f}% more"
    )


if __name__ == "__main__":
    main()
