"""Stage analyse: what was asked for about a system, on its test rows.

Analyses that look at calls (``see``) share one unroll; the others (``run``) make their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rmas_train.analysis.bench import Bench
from rmas_train.config import Config
from rmas_train.data.rows import is_within_reach
from rmas_train.links.folder import find_links
from rmas_train.registry import ANALYSES
from rmas_train.reporting.link_table import finite
from rmas_train.runs.evaluated import read_all_links
from rmas_train.runs.load import Loaded
from rmas_train.runs.session import environment, stage_folder
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import write_json
from rmas_train.support.output import say


@torch.no_grad()
def run_analyses(config: Config, loaded: Loaded, runtime: Runtime) -> None:
    """Write ``run_dir/analyse/<name>.json`` for each of ``analyses``."""
    folder = find_links(Path(config.run or config.run_dir))
    links = read_all_links(loaded, folder)
    rows = loaded.test.rows
    if not config.evaluation.beyond_reach:
        rows = [row for row in rows if is_within_reach(row, config.rounds)]
    rows = rows[: config.evaluation.max_rows]
    valid = None if loaded.tables.valid is None else loaded.tables.valid.rows
    bench = Bench(config, loaded.team, links["trained"], rows, links.get("start"), valid)
    out = stage_folder(config, "analyse", loaded.agents) if runtime.is_main else None
    about = {"links": str(folder), "rounds": config.rounds, "rows": len(rows)}

    def write(name: str, result: Any) -> None:
        if out is not None:
            found = {"result": finite(result), "environment": environment()}
            write_json(out / f"{name}.json", about | found)
            say(f"analysis {name}: {out / f'{name}.json'}")

    analyses = {name: ANALYSES.get(name)(config) for name in config.analyses}
    watching = {name: one for name, one in analyses.items() if not hasattr(one, "run")}
    for name, one in analyses.items():
        if name not in watching:  # each is written as soon as it is there
            write(name, one.run(bench))
    if watching:
        for batch in bench.batches():
            for call in bench.unroll(batch):
                for one in watching.values():
                    one.see(call)
    for name, one in watching.items():
        write(name, one.result())
