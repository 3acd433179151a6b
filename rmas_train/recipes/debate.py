"""Labelled data from a task description: dimensions, boundary samples, asymmetric debate, a judge.

After BARRED (arXiv 2604.25203), as far as its public summaries say. The domain is split into
dimensions, each with values. A sample is written for a drawn dimension, value and label. The label
is kept only if a debate confirms it; a rejected sample is refined with the debate's feedback. In
BARRED an advocate always defends the sample's label, and judges decide by themselves and may change
their minds. Nobody argues for another label.

Here two debaters argue for different labels, and a judge decides. The asymmetry: the proponent
knows the dimension, and why the sample was written to deserve the label. The opponent sees only the
task and the sample. The judge sees task, sample and both sides under the letters A and B. The judge
is not told which label is intended, nor who wrote the sample. Both orders are judged, and a sample
stays only if every verdict is the intended label.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rmas_train.errors import DataError
from rmas_train.recipes.debate_task import MARKS, Settings, Task
from rmas_train.recipes.journal import Scribe
from rmas_train.recipes.role_columns import RolePrompt, fill
from rmas_train.recipes.writing import Written

LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")
SAMPLE = re.compile(r"SAMPLE:\s*(?P<sample>.+?)\s*REASON:\s*(?P<reason>.+)", re.DOTALL)
VERDICT = re.compile(r"VERDICT:\s*(?P<label>[^\n]+?)[\s.*]*$")


@dataclass(frozen=True)
class Candidate:
    """A sample that was written to deserve ``label``, and the debate about it."""

    dimension: str
    value: str
    label: str
    other: str
    sample: str = ""
    reason: str = ""
    said: tuple[tuple[str, str], ...] = ()
    verdicts: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        return [text for side, text in self.said if side == "proponent"]


class Debate:
    """Makes candidates for a task, and keeps those whose label survives the debate.

    Attributes:
        counts: number of candidates, kept, refined, and dropped by reason.
    """

    def __init__(
        self, task: Task, settings: Settings, prompts: Mapping[str, RolePrompt], scribe: Scribe
    ) -> None:
        self.task, self.settings, self.prompts, self.scribe = task, settings, prompts, scribe
        self.counts: Counter[str] = Counter()
        self._given = {
            "description": task.description.strip(),
            "labels": ", ".join(task.labels),
            "samples": "\n".join(f"- {sample.strip()}" for sample in task.samples),
        }

    def plan(self, seed: int) -> list[Candidate]:
        """Ask for dimensions and their values; draw a dimension, value and label per candidate.

        Raises:
            DataError: the writer's answer contains no list.
        """
        (outcome,) = self._ask("dimensions", [{"count": str(self.settings.dimensions)}])
        dimensions = self._list(outcome, self.settings.dimensions, "dimensions")
        count = str(self.settings.values)
        asked = [{"count": count, "dimension": dimension} for dimension in dimensions]
        outcomes = self._ask("values", asked)
        values = {
            d: self._list(o, self.settings.values, f"values of '{d}'")
            for d, o in zip(dimensions, outcomes, strict=True)
        }
        rng = random.Random(f"{seed}/candidates")
        candidates = []
        for _ in range(self.settings.candidates):
            dimension = rng.choice(dimensions)
            label, other = rng.sample(self.task.labels, 2)
            candidates.append(Candidate(dimension, rng.choice(values[dimension]), label, other))
        return candidates

    def run(self, candidates: Sequence[Candidate], first: int = 0) -> list[Candidate]:
        """The candidates whose label every verdict confirms, after refinement where needed.

        Args:
            candidates: candidates of one chunk, written and debated together.
            first: number of the first one; the numbers make equal draws different.
        """
        self.counts["candidates"] += len(candidates)
        asked = [self._about(c) for c in candidates]
        outcomes = self._ask("sample", asked, range(first, first + len(asked)))
        live = self._written(candidates, outcomes)
        kept: list[Candidate] = []
        for refinement in range(self.settings.refinements + 1):
            judged = self._judge(self._argue(live))
            kept += [c for c in judged if self._survives(c)]
            lost = [c for c in judged if not self._survives(c)]
            if refinement == self.settings.refinements or not lost:
                break
            self.counts["refined"] += len(lost)
            asked = [self._about(c) | {"feedback": _feedback(c)} for c in lost]
            live = self._written(lost, self._ask("refine", asked))
        self.counts["label_not_confirmed"] += len(lost)
        return kept

    def row(self, candidate: Candidate) -> dict[str, Any]:
        """A kept candidate in the columns of the sequential style."""
        values = self._given | {"sample": candidate.sample}
        return {
            "question": fill(self.task.question, values),
            "plan": candidate.arguments[-1],
            "refined_plan": candidate.verdicts[0],
            "answer": f"\\boxed{{{candidate.label}}}",
            "answer_field": candidate.label,
            "task": "qa",
            "dimension": candidate.dimension,
            "value": candidate.value,
            "reason": candidate.reason,
        }

    def _argue(self, live: list[Candidate]) -> list[Candidate]:
        """``rounds`` times: the proponent argues, then the opponent."""
        for _ in range(self.settings.rounds):
            for side in ("proponent", "opponent"):
                asked = []
                for c in live:
                    label = c.label if side == "proponent" else c.other
                    said = "\n\n".join(f"For '{_side(c, s)}': {text}" for s, text in c.said)
                    known = self._about(c) | {"label": label, "transcript": said or "(nothing yet)"}
                    asked.append({k: v for k, v in known.items() if k in MARKS[side]})
                spoken = self._keep(side, live, self._ask(side, asked))
                live = [replace(c, said=(*c.said, (side, text))) for c, text in spoken]
        return live

    def _judge(self, live: list[Candidate]) -> list[Candidate]:
        """Every verdict of both orders and all repeats."""
        for repeat in range(self.settings.repeats):
            for order in (("proponent", "opponent"), ("opponent", "proponent")):
                asked = [self._sides(c, order) for c in live]
                outcomes = self._ask("judge", asked, [repeat] * len(asked))
                spoken = self._keep("judge", live, outcomes)
                live = [replace(c, verdicts=(*c.verdicts, text)) for c, text in spoken]
        return live

    def _survives(self, candidate: Candidate) -> bool:
        return all(verdict_of(text) == _plain(candidate.label) for text in candidate.verdicts)

    def _sides(self, c: Candidate, order: tuple[str, str]) -> dict[str, str]:
        values = {"sample": c.sample}
        for letter, side in zip("ab", order, strict=True):
            values[f"label_{letter}"] = _side(c, side)
            values[f"side_{letter}"] = "\n\n".join(text for s, text in c.said if s == side)
        return values

    def _about(self, c: Candidate) -> dict[str, str]:
        names = ("dimension", "value", "label", "sample", "reason")
        return {name: getattr(c, name) for name in names} | {"feedback": ""}

    def _written(self, live: Sequence[Candidate], outcomes: list[Written]) -> list[Candidate]:
        """Candidates with the sample written for them; unreadable samples are counted."""
        found = []
        for candidate, text in self._keep("sample", live, outcomes):
            match = SAMPLE.search(text)
            if match is None:
                self.counts["sample: unreadable"] += 1
                continue
            new = replace(candidate, sample=match["sample"], reason=match["reason"].strip())
            found.append(replace(new, said=(), verdicts=()))
        return found

    def _keep(
        self, what: str, live: Sequence[Candidate], outcomes: list[Written]
    ) -> list[tuple[Candidate, str]]:
        kept = []
        for candidate, outcome in zip(live, outcomes, strict=True):
            if outcome.text is None:
                self.counts[f"{what}: {outcome.dropped}"] += 1
            else:
                kept.append((candidate, outcome.text))
        return kept

    def _ask(
        self, name: str, asked: Sequence[dict[str, str]], attempts: Sequence[int] = ()
    ) -> list[Written]:
        """Write samples at a temperature, so that equal dimensions, values and labels differ."""
        heat = self.settings.sample_temperature if name in ("sample", "refine") else None
        prompt, requests = self.prompts[name], []
        for values, attempt in zip(asked, attempts or [0] * len(asked), strict=True):
            request = prompt.request(self._given | values)
            requests.append(replace(request, attempt=attempt, temperature=heat))
        return self.scribe.write(requests)

    def _list(self, outcome: Written, most: int, what: str) -> list[str]:
        lines = [LIST_MARK.sub("", line).strip() for line in (outcome.text or "").splitlines()]
        found = list(dict.fromkeys(line for line in lines if line))[:most]
        if not found:
            raise DataError(
                f"the writer gave no {what} ({outcome.dropped or 'an empty list'}); try another "
                "writer or a larger max_new_tokens."
            )
        return found


def verdict_of(text: str) -> str | None:
    """The label at the end of a verdict; None if it cannot be read (it then confirms nothing)."""
    match = VERDICT.search(text.strip())
    return _plain(match["label"]) if match else None


def _plain(label: str) -> str:
    return label.strip().strip("'\"*`.").strip().casefold()


def _side(c: Candidate, side: str) -> str:
    return c.label if side == "proponent" else c.other


def _feedback(c: Candidate) -> str:
    """The verdicts for another label than the intended one."""
    return "\n\n".join(v for v in c.verdicts if verdict_of(v) != _plain(c.label))
