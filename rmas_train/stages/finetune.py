"""Stages lora and sft: a single agent, trained on the rows that the outer links learn from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmas_train.agents.prompt_files import SINGLE
from rmas_train.agents.prompts import make_prompt
from rmas_train.config import Config
from rmas_train.engine.loading import load_agent
from rmas_train.errors import ConfigError, DataError
from rmas_train.runs.finetuned import IDENTITY, MODEL, agent_of, finetuned_identity, is_finished
from rmas_train.runs.load import Loaded
from rmas_train.runs.session import set_aside, stage_folder
from rmas_train.stages.train import outer_sampler
from rmas_train.support.files import new_folder, remove, write_json, write_text
from rmas_train.support.output import say
from rmas_train.support.reading import parse_json

METHODS = ("lora", "sft")


def check_finetune(config: Config, world: int) -> None:
    """What cannot be trained is told before anything is loaded.

    Raises:
        ConfigError: several processes, an unknown agent, quantised weights, or no peft.
    """
    options, name = config.finetune, agent_of(config)
    asked = [m for m in METHODS if config.stage in (m, "pipeline") and _is_asked(config, m)]
    if not asked:
        return
    if world > 1:
        raise ConfigError(
            f"{asked[0]} with {world} processes: this baseline is trained by one; run "
            f"stage={asked[0]} with one process first."
        )
    if name not in config.agents:
        raise ConfigError(
            f"finetune.agent={name}: no such agent; choose one of {', '.join(config.agents)}."
        )
    if config.agents[name].adapter is not None:
        raise ConfigError(
            f"{asked[0]} with agents.{name}.adapter={config.agents[name].adapter}: an agent with "
            "an adapter cannot be trained once more; choose another finetune.agent."
        )
    if "sft" in asked and config.agents[name].quantization is not None:
        raise ConfigError(
            f"sft with agents.{name}.quantization={config.agents[name].quantization}: quantised "
            "weights cannot be trained; use lora, or leave quantization out."
        )
    batch, micro = batch_sizes(config)
    if batch % micro:
        raise ConfigError(
            f"finetune.micro_batch_size={options.micro_batch_size} does not divide the batch of "
            f"{batch} rows; choose a divisor."
        )
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{asked[0]} needs the package peft: pip install peft") from error


def _is_asked(config: Config, method: str) -> bool:
    return config.stage == method or method in config.evaluation.systems


def batch_sizes(config: Config) -> tuple[int, int]:
    """Rows per step and per forward."""
    batch = config.finetune.batch_size or config.training.outer.batch_size
    return batch, config.finetune.micro_batch_size or batch


def run_finetune(config: Config, loaded: Loaded, method: str) -> None:
    """Train; writes ``run_dir/<method>``, or nothing where the same is there."""
    folder, identity = Path(config.run_dir) / method, finetuned_identity(loaded, method)
    if SINGLE not in loaded.baseline_prompts:
        if config.stage == method:
            raise DataError(
                f"stage={method}: no file {config.data.prompts}/{SINGLE}.yaml; write the prompt of "
                "an agent that is given everything and answers alone."
            )
        return  # the evaluation says that it is not applicable
    if is_finished(folder, identity):
        say(f"{folder}: the same {method} is there")
        return
    resume = config.resume == "auto" and _identity_of(folder) == identity
    if not resume and (place := set_aside(Path(config.run_dir), method)):
        say(f"starting over; what was there is in {place} (resume=auto goes on)")
    stage_folder(config, method, loaded.agents)
    write_json(folder / IDENTITY, identity)
    _train(config, loaded, method, folder, resume)


def _train(config: Config, loaded: Loaded, method: str, folder: Path, resume: bool) -> None:
    from rmas_train.stages import answer_trainer as by

    name, options = agent_of(config), config.finetune
    wanted = config.agents[name]
    place = loaded.team.agents[name].device
    plain = wanted if method == "lora" else replace(wanted, dtype="float32")
    agent = load_agent(name, plain, place)
    prompt = make_prompt(agent, loaded.baseline_prompts[SINGLE], f"{SINGLE}.yaml", [])
    batch, micro = batch_sizes(config)
    steps = options.steps or config.training.outer.steps
    model = by.trainable(agent, method, options.rank, options.alpha, config.seed)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    say(f"{method} of {name}: {count:,} numbers are trained, {steps} steps of {batch} rows")
    arguments: dict[str, Any] = {
        "max_steps": steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch // micro,
        "learning_rate": options.lr if options.lr is not None else by.LEARNING_RATES[method],
        "warmup_steps": options.warmup_steps,
        "lr_scheduler_type": "cosine",
        "save_steps": options.save_every,
        "logging_steps": 10,
        "seed": config.seed,
    }
    checkpoints = folder / "checkpoints"
    has_some = any(checkpoints.glob("checkpoint-*"))
    examples = by.Examples(prompt, rows_in_order(config, loaded, steps * batch))
    log = by.finetune(model, examples, arguments, checkpoints, resume and has_some)
    write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in log))
    kept = loaded.team.agents[name].dtype
    with new_folder(folder / MODEL) as work:
        (model if method == "lora" else model.to(kept)).save_pretrained(str(work))
        if method == "sft":
            agent.tokenizer.save_pretrained(str(work))
    write_json(folder / "trained.json", {"agent": name, "trainable_parameters": count})
    remove(checkpoints)


def rows_in_order(config: Config, loaded: Loaded, count: int) -> list[Mapping[str, Any]]:
    """The rows of the outer stage's steps, one step after the other, again if there are too few."""
    sampler, steps = outer_sampler(config, loaded), config.training.outer.steps
    order = [i for step in range(steps) for i in sampler.rows(step)]
    rows = loaded.train.rows
    return [rows[order[i % len(order)]] for i in range(count)]


def _identity_of(folder: Path) -> Any:
    try:
        return parse_json((folder / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
