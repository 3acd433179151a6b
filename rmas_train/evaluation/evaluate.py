"""An evaluation: every benchmark times every system, at several depths; one record per question."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rmas_train.config import Config
from rmas_train.data.rows import is_within_reach
from rmas_train.errors import ConfigError
from rmas_train.evaluation.benchmark import Benchmark, WithinReach
from rmas_train.evaluation.graders import Grade
from rmas_train.evaluation.statistics import wilson
from rmas_train.links.modules import LinkSet
from rmas_train.recursion import Team
from rmas_train.registry import SYSTEMS
from rmas_train.systems.base import Answer, AnsweringSystem, Ingredients, SystemEntry
from rmas_train.tools.calls import Toolbox


@dataclass(frozen=True)
class Trial:
    """One system on one benchmark: answered once, scored at one or more depths.

    Attributes:
        depths: rounds; several where the system's answers depend on none.
    """

    benchmark: Benchmark
    entry: SystemEntry
    system: AnsweringSystem
    depths: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """What a trial gave at one depth.

    Attributes:
        row: of ``results.json``.
        records: of ``answers.jsonl``, one per question.
    """

    row: dict[str, Any]
    records: list[dict[str, Any]]


def plan_trials(
    config: Config,
    team: Team,
    links: Mapping[str, LinkSet],
    benchmarks: Sequence[Benchmark],
    tools: Toolbox | None = None,
    single_prompt: Mapping[str, Any] | None = None,
) -> list[Trial]:
    """Everything that ``evaluation.systems`` and ``evaluation.benchmarks`` ask for.

    Args:
        config: of the run.
        team: agents, prompts, topology.
        links: ``trained``, and ``start`` and ``untrained`` where there are such.
        benchmarks: what is asked.
        tools: what the decoder may call, the same for every system.
        single_prompt: see ``Ingredients``.
    """
    names = dict.fromkeys(("latent", *config.evaluation.systems))
    entries = [entry for name in names for entry in named(name, team)]
    entries = sorted(dict.fromkeys(entries), key=lambda entry: entry.look.order)
    trials = []
    for benchmark, depths in asked(config, benchmarks):
        ingredients = Ingredients(config, team, links, benchmark.rows, tools, single_prompt)
        built = [(entry, entry.build(ingredients)) for entry in entries]
        for entry, system in built:
            if system is not None and not system.uses_rounds:
                trials.append(Trial(benchmark, entry, system, tuple(depths)))
        for depth in depths:
            for entry, system in built:
                if system is not None and system.uses_rounds:
                    trials.append(Trial(benchmark, entry, system, (depth,)))
    return trials


def named(name: str | None, team: Team) -> list[SystemEntry]:
    """The systems of a name in ``evaluation.systems``."""
    found = SYSTEMS.get(str(name))
    return [found] if isinstance(found, SystemEntry) else found(team)


def asked(
    config: Config, benchmarks: Sequence[Benchmark]
) -> Iterator[tuple[Benchmark, Sequence[int]]]:
    """What is asked at which depths: everything at each, or what is within its reach alone."""
    for benchmark in benchmarks:
        if config.evaluation.beyond_reach:
            yield benchmark, config.eval_rounds
            continue
        for depth in config.eval_rounds:
            within = WithinReach(benchmark, depth)
            if within.rows:
                yield within, [depth]


def run_trial(trial: Trial) -> list[Outcome]:
    """Answer every question once and grade the answers; an outcome for each depth."""
    rows = trial.benchmark.rows
    began = time.perf_counter()
    answers = trial.system.answer(rows, trial.depths[0])
    if len(answers) != len(rows):
        raise ConfigError(
            f"evaluation.systems={trial.entry.name}: gave {len(answers)} answers for {len(rows)} "
            "rows; give one for each row, in their order."
        )
    seconds = (time.perf_counter() - began) / len(answers)
    grades = [
        trial.benchmark.grade(row, answer.text) for row, answer in zip(rows, answers, strict=True)
    ]
    costs = {
        "tokens": sum(a.tokens for a in answers) / len(answers),
        "latent_steps": sum(a.latent_steps for a in answers) / len(answers),
        "tool_calls": sum(not c.refused for a in answers for c in a.calls) / len(answers),
        "seconds": seconds,
    }
    outcomes = []
    for depth in trial.depths:
        who = describe(trial, depth)
        score = score_of(rows, grades, depth)
        records = [
            who | record_of(row, answer, grade)
            for row, answer, grade in zip(rows, answers, grades, strict=True)
        ]
        outcomes.append(Outcome(who | score | costs, records))
    return outcomes


def describe(trial: Trial, depth: int) -> dict[str, Any]:
    """The columns that say what was evaluated."""
    return {
        "task": trial.benchmark.name,
        "system": trial.entry.system,
        "control": trial.entry.control,
        "rounds": depth,
        "latent_length": trial.system.latent_length,
    }


def record_of(row: Mapping[str, Any], answer: Answer, grade: Grade) -> dict[str, Any]:
    """One question of ``answers.jsonl``; tool calls where there are some."""
    record = {
        "line": row.get("_line"),
        "answer": row["answer"],
        "text": answer.text,
        "right": grade.right,
        "read": grade.read,
        "tokens": answer.tokens,
        "latent_steps": answer.latent_steps,
    }
    return record | ({"calls": [asdict(call) for call in answer.calls]} if answer.calls else {})


def score_of(
    rows: Sequence[Mapping[str, Any]], grades: Sequence[Grade], depth: int
) -> dict[str, Any]:
    """Accuracy with its interval, and split by reach where the rows say ``rounds_needed``."""
    right = [grade.right for grade in grades]
    says = [row.get("rounds_needed") is not None for row in rows]
    known = [(row, one) for row, one, known in zip(rows, right, says, strict=True) if known]
    pairs = [(is_within_reach(row, depth), is_right) for row, is_right in known]
    return {
        "n": len(right),
        "unreadable": sum(not grade.readable for grade in grades),
        **_accuracy("", right),
        **_accuracy("_within_reach", [is_right for within, is_right in pairs if within]),
        **_accuracy("_beyond_reach", [is_right for within, is_right in pairs if not within]),
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
