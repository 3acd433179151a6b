"""The task of a debate, its sizes, and the prompts with what each side may know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rmas_train.data.files import read_rows
from rmas_train.errors import ConfigError, DataError, did_you_mean
from rmas_train.recipes.role_columns import RolePrompt, read_prompt
from rmas_train.support.reading import check_type, parse_yaml

TASK_MARKS = ("description", "labels", "samples")
SAMPLE_MARKS = (*TASK_MARKS, "dimension", "value", "label", "sample", "reason", "feedback")
MARKS = {
    "dimensions": (*TASK_MARKS, "count"),
    "values": (*TASK_MARKS, "count", "dimension"),
    "sample": SAMPLE_MARKS,
    "refine": SAMPLE_MARKS,
    "proponent": ("description", "labels", "sample", "label", "dimension", "reason", "transcript"),
    "opponent": ("description", "labels", "sample", "label", "transcript"),
    "judge": ("description", "labels", "sample", "label_a", "side_a", "label_b", "side_b"),
}
QUESTION = "<<description>>\n\n<<sample>>\n\nAnswer with one of: <<labels>>."


@dataclass(frozen=True)
class Task:
    """The meaning of the labels, and a few samples without labels.

    Attributes:
        question: the question to the agents, with the marks description, sample, labels.
    """

    description: str
    labels: list[str]
    samples: list[str]
    question: str = QUESTION


@dataclass(frozen=True)
class Settings:
    """Sizes of the debate; larger sizes need more requests."""

    dimensions: int = 4
    values: int = 4
    candidates: int = 100
    rounds: int = 2
    repeats: int = 1
    refinements: int = 1
    sample_temperature: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.sample_temperature <= 2:
            raise ConfigError(f"sample_temperature={self.sample_temperature}: give 0 to 2.")
        for name, value in vars(self).items():
            least = 0 if name in ("refinements", "sample_temperature") else 1
            if value < least:
                raise ConfigError(f"{name}={value}: give {least} or more.")


def read_task(path: Path) -> Task:
    """``task.yaml``: description, labels, samples (a list, or a JSONL file beside it), question.

    Raises:
        DataError: names the key that is missing or wrong.
    """
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and isinstance(data.get("samples"), str):
            data["samples"] = _samples(path.parent / data["samples"])
        data = {"question": QUESTION, **data} if isinstance(data, dict) else data
        check_type(data, Task, "")
    except OSError as error:
        raise DataError(f"task={path}: {error.strerror}; give a task.yaml.") from error
    except ValueError as error:
        raise DataError(f"task={path}: {error}; see data_recipes/debate/task.yaml.") from error
    task = Task(**data)
    labels = {label.strip().casefold() for label in task.labels}
    if len(labels) < 2 or len(labels) < len(task.labels) or "" in labels:
        raise DataError(f"task={path}: labels {task.labels}; give two or more different ones.")
    if not task.description.strip() or not any(s.strip() for s in task.samples):
        raise DataError(f"task={path}: a description and at least one sample are needed.")
    return task


def _samples(path: Path) -> list[str]:
    found = []
    for where, row in read_rows(path):
        if not isinstance(row.get("sample"), str):
            raise DataError(f"{where}: no text column 'sample'. {did_you_mean('sample', row)}")
        found.append(row["sample"])
    return found


def load_debate_prompts(folder: Path) -> dict[str, RolePrompt]:
    """The seven prompts; each may use only the marks that its reader is allowed to see.

    Raises:
        DataError: a prompt is missing or malformed, or shows a side what it must not see.
    """
    for name in MARKS:
        if not (folder / f"{name}.yaml").is_file():
            raise DataError(f"{folder / f'{name}.yaml'}: no such prompt; write one.")
    return {name: read_prompt(folder / f"{name}.yaml", name, MARKS[name]) for name in MARKS}
