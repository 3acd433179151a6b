"""Prompt files of ours from a user's own copy of the release's ``prompts.py``.

The release's text is not part of this project. Its file is parsed, never run (``parsed_python``),
and its functions are asked for the prompt of each agent, in a first and in a later round. Where a
text depends on the row (the code interface, the last line of a question with options), the prompt
file gets a column that is computed from the row (``agents/row_texts``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rmas_train.errors import ConfigError, DataError, did_you_mean
from rmas_train.release.parsed_python import Assumed, PythonFile, Test, Text, read_python
from rmas_train.support.files import new_folder, write_text

TASKS = ("math", "code", "choice")
# Options of a line like "B) 12", as the release looks for them.
LETTERED = r"(?mi)^\s*[A-D]\s*[\.\):\-]\s+"
# What a row has, besides the question: the kind of program that is asked for, and its name.
COLUMNS = {"question": "question", "task_type": "type", "fn_name": "fn_name"}


@dataclass(frozen=True)
class Ask:
    """A function of the release and what it is given, besides the row.

    Attributes:
        name: of the function.
        row: which of the row's texts it takes.
        given: other arguments.
    """

    name: str
    row: tuple[str, ...] = ("question",)
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Role:
    """Where an agent's prompts are made.

    Attributes:
        user: of a call that receives messages.
        first: of a call that receives none; None: there is none.
        slots: name of a slot's constant -> the agent whose message goes there.
        system: what ``get_system_prompt`` is given.
    """

    user: Ask
    first: Ask | None
    slots: Mapping[str, str]
    system: str = "chain"


CODE = ("question", "task_type", "fn_name")


def roles_of(style: str, task: str, bugs: bool) -> dict[str, Role]:
    """Agent -> where its prompts are made; ``bugs``: with the release's known one.

    The bug: from round 2 on, the planner of a code task is asked for a plan in mathematics.
    """
    if style == "sequential":
        return _sequential(task, bugs)
    about = {"mas_task": task}
    if style == "mixture":
        experts = {}
        for name in ("math", "code", "science"):
            given = about | {"hie_role": f"hie_{name}_expert"}
            experts[name] = Role(
                Ask("build_hie_expert_prompt_with_feedback_slot", CODE, given),
                Ask("build_hie_expert_prompt", CODE, given),
                {"HIE_FEEDBACK_SLOT": "summarizer"},
            )
        slots = {f"HIE_{name.upper()}_EXPERT_SLOT": name for name in experts}
        summarizer = Ask("build_hie_summarizer_prompt_with_slots", CODE, about)
        return experts | {"summarizer": Role(summarizer, None, slots)}
    names = {"distillation": ("expert", "learner"), "deliberation": ("reflector", "toolcaller")}
    prefix = {"distillation": "distill", "deliberation": "deliberation"}[style]
    first, last = names[style]
    return {
        first: Role(
            Ask(f"build_{prefix}_{first}_prompt_with_feedback_slot", CODE, about),
            Ask(f"build_{prefix}_{first}_prompt", CODE, about),
            {f"{prefix.upper()}_FEEDBACK_SLOT": last},
            system=style,
        ),
        last: Role(
            Ask(f"build_{prefix}_{last}_prompt_with_slot", CODE, about),
            None,
            {f"{prefix.upper()}_{first.upper()}_SLOT": first},
            system=style,
        ),
    }


def _sequential(task: str, bugs: bool) -> dict[str, Role]:
    kind, row = ("code", CODE) if task == "code" else ("math", ("question",))
    # Questions with options are asked with the release's second form of the last line.
    args = {"args": {"choice_old_prompt": 2 if task == "choice" else 0, "solver_pre_question": 0}}
    later_kind, later_row = ("math", ("question",)) if bugs else (kind, row)
    return {
        "planner": Role(
            Ask(f"build_{later_kind}_planner_prompt_with_feedback_slot", later_row),
            Ask(f"build_{kind}_planner_prompt", row),
            {"FEEDBACK_SLOT": "solver"},
        ),
        "critic": Role(
            Ask(f"build_{kind}_refiner_prompt_with_slot", row), None, {"PLANNER_SLOT": "planner"}
        ),
        "solver": Role(
            Ask(f"build_{kind}_solver_prompt_with_slots", row, args),
            None,
            {"REFINED_SLOT": "critic"},
        ),
    }


STYLES = ("sequential", "mixture", "distillation", "deliberation")


def convert_prompts(
    source: Path, folder: Path, style: str, task: str, *, bugs: bool = False
) -> list[Path]:
    """Write a prompt file for each agent of a style; an existing folder is not touched.

    Args:
        source: a copy of the release's ``prompts.py``. Deliberation's system prompt is read from
            the file beside it that it names.
        folder: for the prompt files, as ``data.prompts`` names it.
        style: one of ``STYLES``.
        task: one of ``TASKS``.
        bugs: with the release's known bugs, to reproduce its numbers.

    Raises:
        ConfigError: unknown style or task, or the folder is there.
        DataError: the file is not what is known of the release; names the line.
    """
    for given, known in ((style, STYLES), (task, TASKS)):
        if given not in known:
            raise ConfigError(f"prompts convert: no {given}. {did_you_mean(given, known)}")
    if os.path.lexists(folder):
        raise ConfigError(f"{folder}: is there already; name another folder, or remove it.")
    file = read_python(source)
    texts = {n: _texts(file, n, role) for n, role in roles_of(style, task, bugs).items()}
    with new_folder(folder) as work:
        for name, own in texts.items():
            write_text(work / f"{name}.yaml", _as_yaml(own))
    return [folder / f"{name}.yaml" for name in texts]


def _texts(file: PythonFile, agent: str, role: Role) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    made: dict[str, Any] = {"system": _system(file, role.system)}
    for key, ask in (("user_first", role.first), ("user", role.user)):
        if ask is not None:
            name = f"{agent}_{'first' if key == 'user_first' else 'line'}"
            made[key], own = _prompt(file, ask, role.slots, name)
            columns |= own
    return made | ({"columns": columns} if columns else {})


def _system(file: PythonFile, design: str) -> str:
    found = list(file.every("get_system_prompt", {"mas_design": design, "mas_role": None}))
    return found[0][1]


def _prompt(
    file: PythonFile, ask: Ask, slots: Mapping[str, str], name: str
) -> tuple[str, dict[str, Any]]:
    """A prompt with marks, and the columns that it names and that depend on the row."""
    row = {argument: Text(COLUMNS[argument]) for argument in ask.row}
    variants = list(file.every(ask.name, row | dict(ask.given)))
    marks = {}
    for constant, sender in slots.items():
        if constant not in file.constants:
            raise DataError(f"{file.path}: has no {constant}; give the release's prompts.py.")
        marks[str(file.constants[constant])] = f"<<message:{sender}>>"
    texts = [_marked(text, marks) for _, text in variants]
    if len(set(texts)) == 1:
        return texts[0], {}
    return _merged(file, ask, [assumed for assumed, _ in variants], texts, name)


def _marked(text: str, marks: Mapping[str, str]) -> str:
    for slot, mark in marks.items():
        text = text.replace(slot, mark)
    return text


# What stays in the prompt itself: the question and the slots.
FIXED = re.compile(r"(<<question>>|<<message:[a-z]+>>)")


def _merged(
    file: PythonFile, ask: Ask, assumed: Sequence[Assumed], texts: Sequence[str], name: str
) -> tuple[str, dict[str, Any]]:
    """One prompt for all rows: where the texts differ, a column of its own."""
    pieces = [FIXED.split(text) for text in texts]
    if len({tuple(own[1::2]) for own in pieces}) != 1:
        raise DataError(
            f"{file.path}: {ask.name} puts question or messages in another order for some rows; "
            "such a prompt has no file of ours."
        )
    merged, columns = "", {}
    for i, own in enumerate(zip(*pieces, strict=True)):
        if len(set(own)) == 1:
            merged += own[0]
            continue
        before, after = _around(own)
        middles = [text[len(before) : len(text) - len(after)] for text in own]
        column = f"{name}_{i // 2 + 1}"
        columns[column] = [
            {"when": [_test(file, test, answer) for test, answer in one.items()], "text": text}
            for one, text in zip(assumed, middles, strict=True)
        ]
        merged += f"{before}<<{column}>>{after}"
    return merged, columns


def _around(texts: Sequence[str]) -> tuple[str, str]:
    """What all texts begin with, and what they end with after that; a mark is not cut."""
    before = _common(texts)
    before = before[: before.rindex("<<")] if before.count("<<") > before.count(">>") else before
    after = _common([text[len(before) :][::-1] for text in texts])[::-1]
    after = after[after.index(">>") + 2 :] if after.count(">>") > after.count("<<") else after
    return before, after


def _common(texts: Sequence[str]) -> str:
    """The longest text that all begin with."""
    count = 0
    for letters in zip(*texts, strict=False):
        if len(set(letters)) > 1:
            break
        count += 1
    return texts[0][:count]


def _test(file: PythonFile, test: Test, answer: bool) -> dict[str, Any]:
    if test.kind == "search":
        if test.value != LETTERED:
            raise DataError(
                f"{file.path}: looks for {test.value} in a question; only lines with an option's "
                "letter are known here."
            )
        return {"column": test.column, "options": answer}
    if test.kind == "given":
        return {"column": test.column, "given": answer}
    return {"column": test.column, test.kind: test.value, "is": answer}


class _Lines(yaml.SafeDumper):
    """Texts of several lines as blocks."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Lines.add_representer(str, _block)


def _as_yaml(texts: Mapping[str, Any]) -> str:
    head = "# Converted from a copy of the release's prompts.py; its text belongs to its authors.\n"
    return head + yaml.dump(
        dict(texts), Dumper=_Lines, sort_keys=False, allow_unicode=True, width=2**20
    )
