"""One outer step of the notes with real models, by data type and read-out, in one process.

    python benchmarks/notes_step.py --small FOLDER [--rows 16] [--repeats 5] [--threads 2]
        [--out docs/results/real/bench_step.json]

Each case loads its agents, makes its starting links and times whole steps (forward and backward of
`rows` training rows), the fastest and the median. Ratios are to the first case: agents in float32,
as `dtype: auto` gives on a CPU.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from rmas_train.compose import compose
from rmas_train.config import Config
from rmas_train.objectives.outer import OuterObjective
from rmas_train.runs.load import Loaded, load_run
from rmas_train.runs.session import environment
from rmas_train.runs.starting_links import starting_links
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import write_json

SEEN = ["links=default", "links.start_pairs=seen"]  # a start that is made in seconds
FLOAT32 = ["agents.planner.dtype=float32", "agents.solver.dtype=float32"]
CASES = {
    "float32 hidden": [*SEEN, *FLOAT32],
    "bfloat16 hidden": SEEN,
    "float32 vocabulary": ["links=vocabulary", *FLOAT32],
    "bfloat16 vocabulary": ["links=vocabulary"],
}


def load(typed: list[str]) -> tuple[Config, Loaded]:
    config = compose(typed)
    return config, load_run(config, Runtime(config.runtime))


def tokens_of(loaded: Loaded, rows: list[int]) -> int:
    """Prompt and answer tokens that the agents read in a step."""
    chosen: list[Any] = [loaded.train.rows[i] for i in rows]
    prompts = loaded.team.prompts.values()
    read = sum([len(one.ids) for p in prompts for one in p.encode(chosen, 1, first=True)])
    decoder = loaded.team.agents[loaded.team.topology.decoder]
    answers = decoder.tokenizer([row["answer"] for row in chosen], add_special_tokens=False)
    return read + sum([len(ids) for ids in answers["input_ids"]])


def measure(typed: list[str], count: int, repeats: int) -> dict[str, Any]:
    """Seconds of forward and backward, over different rows each time; the first is left out."""
    config, loaded = load(typed)
    links, _ = starting_links(loaded)
    objective = OuterObjective.from_config(config, loaded, links)
    forward, backward, tokens = [], [], 0
    for repeat in range(repeats + 1):
        rows = list(range(repeat * count, (repeat + 1) * count))
        begun = time.perf_counter()
        loss = objective(rows, config.rounds).sum()
        between = time.perf_counter()
        loss.backward()
        ended = time.perf_counter()
        if repeat:
            forward.append(between - begun)
            backward.append(ended - between)
            tokens += tokens_of(loaded, rows)
    whole = [f + b for f, b in zip(forward, backward, strict=True)]
    return {
        "seconds": median(whole),
        "fastest": min(whole),
        "forward": median(forward),
        "backward": median(backward),
        "tokens_per_second": tokens / repeats / median(whole),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", required=True, help="folder with the small models")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/results/real/bench_step.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    common = ["experiment=notes", f"small={args.small}", f"runtime.threads={args.threads}"]
    found = {}
    for name, options in CASES.items():
        found[name] = measure([*common, *options], args.rows, args.repeats)
        print(name, found[name], flush=True)
    first = found[next(iter(CASES))]["fastest"]
    ratios = {name: first / one["fastest"] for name, one in found.items()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        args.out,
        {"rows": args.rows, "cases": found, "ratios": ratios, "environment": environment()},
    )
    print(args.out)


if __name__ == "__main__":
    main()
