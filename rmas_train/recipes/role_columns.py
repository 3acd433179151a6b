"""The columns with each agent's text, for each style, and the prompts that ask for them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rmas_train.agents.prompt_files import check_marks, split_marks
from rmas_train.errors import ConfigError, DataError, did_you_mean
from rmas_train.recipes.writing import Request
from rmas_train.support.reading import parse_yaml, short

# In the order in which they are written: a later text may read the earlier ones.
STYLES = {
    "sequential": ("plan", "refined_plan"),
    "mixture": ("hie_math_expert", "hie_code_expert", "hie_science_expert", "hie_summarizer"),
    "distillation": ("distill_expert", "distill_learner"),
    "deliberation": ("deliberation_reflector", "deliberation_toolcaller"),
}
# The column of the agent that answers; its text must keep the source's final answer.
ANSWERING = {
    "sequential": "answer",
    "mixture": "hie_summarizer",
    "distillation": "distill_learner",
    "deliberation": "deliberation_toolcaller",
}
GIVEN = ("question", "reference", "answer_field", "task")  # what every prompt may name


@dataclass(frozen=True)
class RolePrompt:
    """A writer's prompt for one column; ``<<name>>`` stands for a column written before."""

    column: str
    user: str
    system: str | None
    sha256: str

    def request(self, values: Mapping[str, str]) -> Request:
        """The request for one row; a mark inside a value stays ordinary text."""
        return Request(fill(self.user, values), fill(self.system, values) if self.system else None)


def fill(text: str, values: Mapping[str, str]) -> str:
    return "".join(values[p.value] if p.kind == "column" else p.value for p in split_marks(text))


def role_columns(style: str, rewrites: bool) -> tuple[str, ...]:
    """The columns that the writer fills; with ``rewrites`` also the sequential solver's answer.

    Raises:
        ConfigError: unknown style.
    """
    if style not in STYLES:
        raise ConfigError(f"style={style}: no such style. {did_you_mean(style, STYLES)}")
    return (*STYLES[style], *(("answer",) if rewrites and style == "sequential" else ()))


def load_prompts(
    columns: Sequence[str], style: str, folders: Sequence[Path]
) -> dict[str, RolePrompt]:
    """``<style>/<column>.yaml`` from the first folder that has it.

    Raises:
        DataError: no folder has it, it is malformed, or it names a column that is written later.
    """
    prompts: dict[str, RolePrompt] = {}
    for column in columns:
        found = [f / style / f"{column}.yaml" for f in folders]
        path = next((p for p in found if p.is_file()), None)
        if path is None:
            raise DataError(f"{found[0]}: no prompt for column {column}; write one.")
        prompts[column] = read_prompt(path, column, (*GIVEN, *prompts))
    return prompts


def read_prompt(path: Path, column: str, known: Sequence[str]) -> RolePrompt:
    """A prompt file with ``user`` and optionally ``system``.

    Raises:
        DataError: malformed, or a mark that is not among ``known``.
    """
    data = path.read_bytes()
    try:
        texts = parse_yaml(data.decode())
    except ValueError as error:
        raise DataError(f"{path}: not valid YAML ({error}); fix the file.") from error
    if not isinstance(texts, dict) or not isinstance(texts.get("user"), str):
        raise DataError(f"{path}: no text under `user`; write what the writer is asked.")
    for key, value in texts.items():
        if key not in ("user", "system") or not isinstance(value, str):
            raise DataError(f"{path}: {short(key)}: {short(value)}; only texts user and system.")
        check_marks(f"{path}: {key}", "user", value)
        for part in split_marks(value):
            if part.kind != "text" and part.value not in known:
                raise DataError(f"{path}: unknown mark {part.value}. Known: {', '.join(known)}.")
    sha256 = hashlib.sha256(data).hexdigest()
    return RolePrompt(column, texts["user"], texts.get("system"), sha256)
