"""Stage analyse: one unroll over the test rows, shown to every analysis that was asked for."""

from __future__ import annotations

from pathlib import Path

import torch

from rmas_train.channels import LatentChannel
from rmas_train.config import Config
from rmas_train.links.folder import find_links
from rmas_train.recursion import Recursion
from rmas_train.registry import ANALYSES
from rmas_train.runs.evaluated import read_links
from rmas_train.runs.load import Loaded
from rmas_train.runs.session import environment, stage_folder
from rmas_train.runs.starting_links import drawn_links
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import write_json
from rmas_train.support.output import say


@torch.no_grad()
def run_analyses(config: Config, loaded: Loaded, runtime: Runtime) -> None:
    """Write ``run_dir/analyse/<name>.json`` for each of ``analyses``."""
    folder = find_links(Path(config.run or config.run_dir))
    links = read_links(loaded, folder, drawn_links(loaded))
    analyses = {name: ANALYSES.get(name)(config) for name in config.analyses}
    team, size = loaded.team, config.evaluation.batch_size
    recursion = Recursion(team, LatentChannel.of(team, links, config.latent_length))
    rows = loaded.test.rows[: config.evaluation.max_rows]
    for begin in range(0, len(rows), size):
        for call in recursion.unroll(rows[begin : begin + size], config.rounds):
            for analysis in analyses.values():
                analysis.see(call)
    if not runtime.is_main:
        return
    out = stage_folder(config, "analyse", loaded.agents)
    for name, analysis in analyses.items():
        record = {"links": str(folder), "rounds": config.rounds, "rows": len(rows)}
        found = {"result": analysis.result(), "environment": environment()}
        write_json(out / f"{name}.json", record | found)
        say(f"analysis {name}: {out / f'{name}.json'}")
