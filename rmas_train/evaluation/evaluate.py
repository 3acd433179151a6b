"""An evaluation: every benchmark times every system, at several depths; one record per question."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from rmas_train.config import Config
from rmas_train.errors import ConfigError, OutOfMemoryError
from rmas_train.evaluation.parts import Part
from rmas_train.evaluation.records import Record, Records
from rmas_train.links.link_set import LinkSet
from rmas_train.recursion import Team
from rmas_train.registry import SYSTEMS
from rmas_train.support.output import say
from rmas_train.systems.base import (
    SAMPLE,
    Answer,
    AnsweringSystem,
    Built,
    Ingredients,
    NotApplicable,
    SystemEntry,
)
from rmas_train.systems.controls import GROUP, stretches
from rmas_train.tools.calls import SecondTry, Toolbox


@dataclass(frozen=True)
class Judge:
    """Has every system answer parts of benchmarks.

    Attributes:
        config: of the run; ``evaluation.systems`` says which systems.
        team: agents, prompts, topology.
        links: ``trained``, and ``start`` and ``untrained`` where there are such.
        tools: what the decoder may call, the same for every system.
        prompts, kept: see ``Ingredients``.
    """

    config: Config
    team: Team
    links: Mapping[str, LinkSet]
    tools: Toolbox | None = None
    prompts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    def entries(self) -> list[SystemEntry]:
        """The systems, in the order of tables."""
        names = dict.fromkeys(("latent", *self.config.evaluation.systems))
        entries = [entry for name in names for entry in _named(name, self.team)]
        return sorted(dict.fromkeys(entries), key=lambda entry: entry.look.order)

    def answer(self, part: Part, records: Records | None = None) -> Iterator[list[Record]]:
        """New records of every trial on a part, one after the other.

        Args:
            part: what is asked.
            records: that are there already; they are not made again.
        """
        for trial in self.trials(part):
            yield _answer(trial, records)

    def trials(self, part: Part) -> list[Trial]:
        """Every system that has answers, at every depth, for every sample."""
        found = []
        for entry, system in self._systems(part):
            if isinstance(system, NotApplicable) or system is None:
                continue
            every = [(depth,) for depth in part.depths]
            for depths in every if system.uses_rounds else [part.depths]:
                samples = range(self.config.evaluation.samples)
                found += [Trial(part, entry, system, depths, sample) for sample in samples]
        return found

    def not_applicable(self, part: Part) -> list[dict[str, Any]]:
        """Systems that have no answers to a part: columns of a results row, and ``why``."""
        return [
            {
                "task": part.benchmark.name,
                "system": entry.system,
                "control": entry.control,
                "why": system.why,
            }
            for entry, system in self._systems(part)
            if isinstance(system, NotApplicable)
        ]

    def _systems(self, part: Part) -> Iterator[tuple[SystemEntry, Built]]:
        def read(row: Mapping[str, Any], text: str) -> str | None:
            return part.benchmark.grade(row, text).read

        given = Ingredients(
            self.config,
            self.team,
            self.links,
            part.rows,
            self._tools(read),
            self.prompts,
            part.first,
            read,
            kept=self.kept,
        )
        for entry in self.entries():
            yield entry, entry.build(given)

    def _tools(self, read: Callable[[Mapping[str, Any], str], str | None]) -> Toolbox | None:
        """The tools, with the second try where the options give one."""
        options = self.config.evaluation
        if not options.retry_tokens:
            return self.tools
        again = SecondTry(options.retry_text, options.retry_tokens, read)
        return replace(self.tools or Toolbox(), second_try=again)


@dataclass(frozen=True)
class Trial:
    """One system on one part: answered once, for one or more depths.

    Attributes:
        depths: rounds; several where the system's answers depend on none.
        sample: which of the texts that are drawn for each question.
    """

    part: Part
    entry: SystemEntry
    system: AnsweringSystem
    depths: tuple[int, ...]
    sample: int = 0

    @property
    def mixes_rows(self) -> bool:
        """Whether an answer depends on the rows beside its own."""
        return bool(getattr(self.system, "mixes_rows", False))

    def about(self, row: int, depth: int) -> Record:
        """What identifies a record, and what it is of."""
        part = self.part
        return {
            "task": part.benchmark.name,
            "system": self.entry.system,
            "control": self.entry.control,
            "rounds": depth,
            "latent_length": self.system.latent_length,
            "index": part.first + row,
            "sample": self.sample,
            "hash": part.hashes[row],
            "group": self._group(row) if self.mixes_rows else None,
        }

    def _group(self, row: int) -> str:
        """First and last row among which a row is mixed."""
        first = self.part.first
        groups = stretches(len(self.part.rows), GROUP)
        begin, end = next((b, e) for b, e in groups if b <= row < e)
        return f"{first + begin}-{first + end - 1}"


def _answer(trial: Trial, records: Records | None) -> list[Record]:
    """The records that are missing, for all depths at once."""
    rows = trial.part.rows
    missing = [i for i in range(len(rows)) if not _is_there(trial, i, records)]
    if missing and trial.mixes_rows:
        missing = list(range(len(rows)))
    return run_trial(trial, missing) if missing else []


def _is_there(trial: Trial, row: int, records: Records | None) -> bool:
    if records is None:
        return False
    return all(records.get(trial.about(row, depth)) is not None for depth in trial.depths)


def run_trial(trial: Trial, chosen: Sequence[int]) -> list[Record]:
    """Answer these rows of a part once and grade the answers; a record for each row and depth."""
    rows = [{**trial.part.rows[i], SAMPLE: trial.sample} for i in chosen]
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    answers = answers_that_fit(trial, rows)
    if len(answers) != len(rows):
        raise ConfigError(
            f"evaluation.systems={trial.entry.name}: gave {len(answers)} answers for {len(rows)} "
            "rows; give one for each row, in their order."
        )
    costs: Record = {"seconds": (time.perf_counter() - began) / len(answers)}
    if on_gpu:
        costs["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    found = []
    for i, row, answer in zip(chosen, rows, answers, strict=True):
        record = graded(trial, row, answer) | costs
        found += [trial.about(i, depth) | record for depth in trial.depths]
    return found


def answers_that_fit(trial: Trial, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """Answers to these rows; in halves, and these in halves, where the device's memory is full.

    Raises:
        OutOfMemoryError: a single row is too much, or the rows have to stay together.
    """
    try:
        return trial.system.answer(rows, trial.depths[0])
    except torch.OutOfMemoryError as error:
        if len(rows) < 2 or trial.mixes_rows:
            raise OutOfMemoryError(
                f"evaluation.systems={trial.entry.name}: out of memory with {len(rows)} row(s); "
                "lower evaluation.batch_size, latent_length or evaluation.max_new_tokens."
            ) from error
    half = (len(rows) + 1) // 2
    say(f"out of memory with {len(rows)} rows; going on with {half} (evaluation.batch_size)")
    torch.cuda.empty_cache()
    return [a for part in (rows[:half], rows[half:]) for a in answers_that_fit(trial, part)]


def graded(trial: Trial, row: Mapping[str, Any], answer: Answer) -> Record:
    """What was written, what it cost, and the grade; tool calls where there are some."""
    grade = trial.part.benchmark.grade(row, answer.text)
    record = {
        "line": row.get("_line"),
        "answer": row["answer"],
        "text": answer.text,
        "right": grade.right,
        "readable": grade.readable,
        "read": grade.read,
        "tokens": answer.tokens,
        "latent_steps": answer.latent_steps,
        "prompt_tokens": answer.prompt_tokens,
    }
    if isinstance(row.get("question"), str):
        record["question"] = row["question"]
    if grade.score is not None:
        record["score"] = grade.score
    if answer.retried:
        record["retried"] = True
    return record | ({"calls": [asdict(call) for call in answer.calls]} if answer.calls else {})


def _named(name: str | None, team: Team) -> Iterable[SystemEntry]:
    """The systems of a name in ``evaluation.systems``."""
    found = SYSTEMS.get(str(name))
    entries: Iterable[SystemEntry] = [found] if isinstance(found, SystemEntry) else found(team)
    return entries
