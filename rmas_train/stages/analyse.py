"""Stage analyse: what was asked for about a system, on its test rows.

Analyses that look at calls (``see``) share one unroll; the others (``run``) make their own.
"""

from __future__ import annotations

from pathlib import Path

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
    analyses = {name: ANALYSES.get(name)(config) for name in config.analyses}
    results = {name: one.run(bench) for name, one in analyses.items() if hasattr(one, "run")}
    watching = {name: one for name, one in analyses.items() if name not in results}
    if watching:
        for batch in bench.batches():
            for call in bench.unroll(batch):
                for one in watching.values():
                    one.see(call)
    results |= {name: one.result() for name, one in watching.items()}
    if not runtime.is_main:
        return
    out = stage_folder(config, "analyse", loaded.agents)
    for name in config.analyses:
        record = {"links": str(folder), "rounds": config.rounds, "rows": len(rows)}
        found = {"result": finite(results[name]), "environment": environment()}
        write_json(out / f"{name}.json", record | found)
        say(f"analysis {name}: {out / f'{name}.json'}")
