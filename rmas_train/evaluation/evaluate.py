"""Stage eval: the trained system beside its controls, on the test rows, at several depths."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rmas_train.config import Config
from rmas_train.data.rows import Table, read_answer
from rmas_train.engine.answer import generate
from rmas_train.engine.sequences import embed_prompts
from rmas_train.evaluation.statistics import wilson
from rmas_train.links.linkset import LinkSet
from rmas_train.recursion import Team
from rmas_train.systems.controls import shuffled
from rmas_train.systems.latent import Answer, System, answers_of, open_sessions
from rmas_train.systems.text import answer_in_text
from rmas_train.tools.calls import Toolbox


@dataclass(frozen=True)
class Variant:
    """One thing to evaluate: a system, with a control or none, at one depth."""

    system: str  # latent, text or decoder_alone
    control: str | None
    rounds: int
    latent_length: int
    answer: Callable[[], list[Answer]]


def variants(
    config: Config,
    team: Team,
    links: dict[str, LinkSet],
    table: Table,
    tools: Toolbox | None = None,
) -> list[Variant]:
    """Everything that ``evaluation.controls`` asks for.

    Args:
        config: of the run.
        team: agents, prompts, topology.
        links: ``trained``, and ``start`` and ``untrained`` where there are such.
        table: test rows.
        tools: what the decoder may call, the same in every variant.
    """
    rows, length, wanted = table.rows, config.latent_length, config.evaluation.controls
    batch, limit = config.evaluation.batch_size, config.evaluation.max_new_tokens
    scramble = shuffled(len(rows), config.seed)

    def latent(control: str | None, depth: int, m: int, of: str, deliver: Any = None) -> Variant:
        system = System(team, links[of], depth, m, limit, config.evaluation.decoding, tools)
        run = lambda: system.answer(rows, batch_size=batch, deliver=deliver)  # noqa: E731
        return Variant("latent", control, depth, m, run)

    def text(depth: int) -> Variant:
        def run() -> list[Answer]:
            sessions = open_sessions(tools, len(rows))
            written = answer_in_text(
                team,
                rows,
                depth,
                max_new_tokens=limit,
                batch_size=batch,
                translations=config.data.translations,
                decoding=config.evaluation.decoding,
                interrupts=sessions,
            )
            return answers_of(written, 0, sessions)

        return Variant("text", None, depth, 0, run)

    found = []
    for depth in config.eval_rounds:
        found.append(latent(None, depth, length, "trained"))
        for control in ("start", "untrained"):
            if control in wanted and control in links:
                found.append(latent(control, depth, length, control))
        if "null" in wanted:
            found.append(latent("null", depth, 0, "trained"))
        if "shuffled" in wanted and len(rows) > 1:
            found.append(latent("shuffled", depth, length, "trained", scramble))
        if "text" in wanted:
            found.append(text(depth))
        if "decoder_alone" in wanted:
            run = lambda: decoder_alone(team, table, batch, limit, tools)  # noqa: E731
            found.append(Variant("decoder_alone", None, depth, 0, run))
    return found


def decoder_alone(
    team: Team,
    table: Table,
    batch_size: int,
    max_new_tokens: int,
    tools: Toolbox | None = None,
) -> list[Answer]:
    """The decoder with no message at all, as in a first round."""
    name = team.topology.decoder
    agent, answers = team.agents[name], []
    for begin in range(0, len(table), batch_size):
        chosen = table.rows[begin : begin + batch_size]
        prompts = team.prompts[name].encode(list(chosen), 1, first=True)
        sessions = open_sessions(tools, len(prompts))
        batch = embed_prompts(agent, prompts, {})
        texts = generate(agent, batch, None, max_new_tokens, sessions)
        answers += answers_of(texts, 0, sessions)
    return answers


def evaluate_variant(
    config: Config, table: Table, variant: Variant
) -> tuple[dict[str, Any], list[Answer]]:
    """One row of ``results.json`` (docs/results.md) and the answers."""
    began = time.perf_counter()
    answers = variant.answer()
    seconds = (time.perf_counter() - began) / len(answers)
    right = [
        read_answer(config.data, a.text) == read_answer(config.data, row["answer"])
        for a, row in zip(answers, table.rows, strict=True)
    ]
    return score(config, table, variant, right) | {
        "tokens": sum(a.tokens for a in answers) / len(answers),
        "latent_steps": sum(a.latent_steps for a in answers) / len(answers),
        "tool_calls": sum(not c.refused for a in answers for c in a.calls) / len(answers),
        "seconds": seconds,
    }, answers


def score(config: Config, table: Table, variant: Variant, right: list[bool]) -> dict[str, Any]:
    """Accuracy with its interval, and split by reach where the rows say ``rounds_needed``."""
    within: list[bool] = []
    beyond: list[bool] = []
    for i, is_right in enumerate(right):
        needed = table.rounds_needed(i)
        if needed is not None:
            (within if needed <= variant.rounds else beyond).append(is_right)
    return {
        "task": config.data.name,
        "system": variant.system,
        "control": variant.control,
        "rounds": variant.rounds,
        "latent_length": variant.latent_length,
        "n": len(right),
        **_accuracy("", right),
        **_accuracy("_within_reach", within),
        **_accuracy("_beyond_reach", beyond),
    }


def _accuracy(suffix: str, right: list[bool]) -> dict[str, Any]:
    if not right:
        return {f"accuracy{suffix}": None, f"ci95{suffix}": None, f"n{suffix}": 0}
    low, high = wilson(sum(right), len(right))
    return {
        f"accuracy{suffix}": sum(right) / len(right),
        f"ci95{suffix}": [low, high],
        f"n{suffix}": len(right),
    }
