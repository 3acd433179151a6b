"""The stages in order: each reads the config and its predecessor's files, and writes its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmas_train.compose import to_dict
from rmas_train.config import Config, OuterConfig, TrainingConfig
from rmas_train.data.sampling import Sampler, depth_at
from rmas_train.errors import ConfigError
from rmas_train.files import write_json
from rmas_train.links.folder import find_links, load_tensors, read_card, save_links
from rmas_train.log import say
from rmas_train.runtime.runtime import Runtime
from rmas_train.stages.evaluate import evaluate_variant, variants
from rmas_train.stages.handover import (
    equal_inner,
    find_inner,
    inner_only,
    inner_options_hash,
    make_card,
    read_links,
)
from rmas_train.stages.inner import InnerObjective
from rmas_train.stages.outer import OuterObjective, backward_of
from rmas_train.stages.planning import run_plan, settle_checkpoint
from rmas_train.stages.run_folder import environment, stage_folder
from rmas_train.stages.setup import Setup, make_links, set_up
from rmas_train.training.callbacks import MetricsFile, ProgressBar, Tracker, watch
from rmas_train.training.loop import Callback, train


def run_inner(config: Config, setup: Setup, runtime: Runtime) -> None:
    """Train every agent's inner link; writes ``run_dir/inner``."""
    links, _ = make_links(setup)
    links.to(runtime.device)
    objective = InnerObjective(
        setup.team,
        links,
        setup.train,
        config.data,
        config.training.inner.inner_states,
        config.latent_length,
    )
    depths = [1] * config.training.inner.steps
    rows: list[int | None] = [None] * len(setup.train)
    sampler = Sampler(rows, depths, config.training.inner.batch_size, config.seed)
    _train(config, setup, runtime, "inner", config.training.inner, objective, sampler)
    if runtime.is_main:
        card = make_card(setup, "inner", {}, inner_options_hash(setup))
        save_links(Path(config.run_dir) / "inner" / "links", inner_only(links), card)
    runtime.barrier()


def run_outer(config: Config, setup: Setup, runtime: Runtime) -> None:
    """Train the outer links through the unrolled system; writes ``run_dir/outer``."""
    inner = find_inner(config, setup)
    links, alignment = make_links(setup)
    load_tensors(inner, inner_only(links))
    links.to(runtime.device)
    card = make_card(setup, "outer", alignment)
    folder = Path(config.run_dir) / "outer"
    if runtime.is_main:
        save_links(folder / "start", links, make_card(setup, "start", alignment))
        say(f"inner links: {inner}")
        for key, numbers in alignment.items():
            say(f"aligned start {key}: " + ", ".join(f"{k} {v:.3g}" for k, v in numbers.items()))
    stage = config.training.outer
    stage = replace(stage, checkpoint=settle_checkpoint(config, runtime.device, runtime.world))
    objective = OuterObjective(
        setup.team,
        links,
        setup.train,
        config.rounds,
        config.latent_length,
        train_inner=stage.train_inner,
        clip_message=stage.clip_message,
        backward=backward_of(stage),
        prefix_cache=int(stage.prefix_cache_gib * 2**30),
        role_texts=taught_texts(setup, stage),
    )
    for edge in setup.team.topology.edges:
        if runtime.is_main and f"outer.{edge.key}" not in objective.groups():
            say(f"edge {edge.key} gets no gradient at rounds={config.rounds}; its link is frozen.")
    depths = [
        depth_at(s, stage.steps, config.rounds, stage.depth, config.seed)
        for s in range(stage.steps)
    ]
    needed = [setup.train.rounds_needed(i) for i in range(len(setup.train))]
    sampler = Sampler(needed, depths, stage.batch_size, config.seed)
    _train(config, setup, runtime, "outer", stage, objective, sampler)
    if runtime.is_main:
        save_links(folder / "links", links, card)
    runtime.barrier()


def taught_texts(setup: Setup, stage: OuterConfig) -> dict[str, str]:
    """``latents: teacher_forced``: agent -> column of the text whose states it sends."""
    if stage.latents == "rollout":
        return {}
    decoder, data = setup.team.topology.decoder, setup.config.data
    columns = {}
    for name in setup.team.agents:
        if name != decoder:
            if name not in data.role_texts:
                raise ConfigError(
                    f"training.outer.latents=teacher_forced needs a text of {name}; set "
                    f"data.role_texts.{name}=<column>."
                )
            columns[name] = data.role_texts[name]
    return columns | ({decoder: "answer"} if stage.feedback == "gold_answer" else {})


def run_eval(config: Config, setup: Setup, runtime: Runtime) -> None:
    """Evaluate trained links and controls; writes ``run_dir/eval``."""
    folder = find_links(Path(config.run or config.run_dir))
    untrained, _ = make_links(setup, init="default")
    links = {"trained": read_links(setup, folder, untrained), "untrained": untrained}
    if (folder.parent / "start").is_dir():
        links["start"] = read_links(setup, folder.parent / "start", untrained)
    for link_set in links.values():
        link_set.to(runtime.device).requires_grad_(False)
    table = setup.test
    table.rows[:] = table.rows[: config.evaluation.max_rows]
    todo = variants(config, setup.team, links, table)
    mine = range(runtime.rank, len(todo), runtime.world)
    done = []
    for i in mine:
        row, texts = evaluate_variant(config, table, todo[i])
        say(describe_row(row))
        done.append((i, row, texts))
    done = sorted(runtime.gather(done))
    setup.assert_unchanged()
    if runtime.is_main:
        out = stage_folder(config, "eval")
        if (out / "results.json").is_file():
            say(f"{out}/results.json: an earlier evaluation is replaced.")
        write_answers(out / "answers.jsonl", done, setup)
        write_json(
            out / "results.json",
            {
                "schema": 1,
                "rows": [row for _, row, _ in done],
                "references": {config.data.name: references(config)},
                "links": str(folder),
                "trained_rounds": read_card(folder).rounds,
                "environment": environment(),
                "config": to_dict(config),
            },
        )
    runtime.barrier()


def _train(
    config: Config,
    setup: Setup,
    runtime: Runtime,
    stage: str,
    options: TrainingConfig,
    objective: Any,
    sampler: Sampler,
) -> None:
    """The loop with its callbacks; only rank 0 writes."""
    callbacks: list[Callback] = [watch(objective.expected_links)]
    if not runtime.is_main:
        train(objective, sampler, options, runtime, callbacks)
    else:
        folder = stage_folder(config, stage)
        tracker = Tracker(config.tracking, folder, to_dict(config))
        with ProgressBar(stage, options.steps) as bar:
            metrics = MetricsFile(folder / "metrics.jsonl", options.log_every, options.steps)
            train(objective, sampler, options, runtime, [metrics, bar, tracker, *callbacks])
        tracker.close()
    setup.assert_unchanged()


def references(config: Config) -> dict[str, Any]:
    """Exact lines that the data's recipe computed, by rounds; empty where it gave none."""
    path = Path(config.data.folder) / "references.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def write_answers(
    path: Path, done: Sequence[tuple[int, dict[str, Any], list[str]]], setup: Setup
) -> None:
    """What each variant answered, row by row, for whoever wants to look."""
    with path.open("w", encoding="utf-8") as file:
        for _, row, texts in done:
            variant = {k: row[k] for k in ("system", "control", "rounds", "latent_length")}
            for problem, text in zip(setup.test.rows, texts, strict=True):
                record = variant | {
                    "line": problem["_line"],
                    "answer": problem["answer"],
                    "text": text,
                }
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def describe_row(row: dict[str, Any]) -> str:
    name = row["system"] + (f" {row['control']}" if row["control"] else "")
    numbers = f"{row['accuracy']:.3f} ({row['seconds']:.4f} s each)"
    return f"eval {row['task']} {name} rounds={row['rounds']}: {numbers}"


def run(config: Config, runtime: Runtime) -> None:
    """Run ``config.stage``; ``pipeline`` is inner (unless equal links exist), outer and eval."""
    stage = config.stage
    if stage == "plan":
        if runtime.is_main:
            run_plan(config, runtime.device)
        return
    setup = set_up(config, runtime.device, runtime.is_main, runtime.barrier)
    if stage in ("inner", "pipeline"):
        twin = runtime.broadcast(equal_inner(config, setup)) if stage == "pipeline" else None
        if twin is None:
            run_inner(config, setup, runtime)
        elif runtime.is_main:
            say(f"inner links from the very same options exist: {twin}")
    if stage in ("outer", "pipeline"):
        run_outer(config, setup, runtime)
    if stage in ("eval", "pipeline"):
        run_eval(config, setup, runtime)
