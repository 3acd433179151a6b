"""The grader of rows that the library reasoning-gym generated: the score of its own scorer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from rmas_train.config import Config
from rmas_train.data.rows import Table
from rmas_train.errors import ConfigError, DataError
from rmas_train.evaluation.graders import Grade
from rmas_train.support.reading import parse_json, short

Entry = dict[str, Any]
# Scorers that were read and only compare texts and numbers, as the library's default one does.
# Others may evaluate the text as Python, with eval or by way of sympy.
READ = {
    "chain_sum",
    "color_cube_rotation",
    "decimal_chain_sum",
    "dice",
    "family_relationships",
    "gsm_symbolic",
    "needle_haystack",
    "number_format",
    "path_star",
    "products",
    "word_sorting",
    "zebra_puzzles",
}


def _library(name: str) -> Any:
    """A module of the library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            "reasoning_gym (a recipe and a grader) needs the library reasoning-gym; install it: "
            "pip install 'rmas_train[reasoning]'."
        ) from error


def library() -> Any:
    """The library itself."""
    return _library("reasoning_gym")


def datasets() -> Mapping[str, tuple[type, type]]:
    """Name -> classes of the data set and of its settings."""
    found: Mapping[str, tuple[type, type]] = _library("reasoning_gym.factory").DATASETS
    return found


@cache
def scorer(name: str) -> Callable[[str, Entry], float]:
    """The data set's ``score_answer``."""
    found: Callable[[str, Entry], float] = library().get_score_answer_fn(name)
    return found


def compares_only(name: str) -> bool:
    """Whether a scorer runs nothing of the text that it scores."""
    default = _library("reasoning_gym.dataset").ProceduralDataset.score_answer
    return name in READ or getattr(datasets()[name][0], "score_answer", None) is default


def read_answer(text: str, gold: str) -> str:
    """The first lines of a text, as many as the gold answer has."""
    lines = text.strip().splitlines()[: len(gold.strip().splitlines())]
    return "\n".join(lines).strip()


class ReasoningGrader:
    """Right: the scorer of the data set that made the row gives 1.

    The row's column ``entry`` is the library's entry, as JSON.
    """

    def __init__(self, config: Config) -> None:
        library()
        self._runs_code = config.allow_code_execution

    def grade(self, row: Mapping[str, Any], text: str) -> Grade:
        entry = self._entry(row, f"line {row.get('_line', '?')}")
        read = read_answer(text, row["answer"])
        return Grade(bool(read) and _score(read, entry) == 1.0, bool(read), read or None)

    def check(self, table: Table) -> None:
        table.require_answers()
        for i, row in enumerate(table.rows):
            self._entry(row, table.where(i))
            if not self.grade(row, row["answer"]).right:
                raise DataError(
                    f"{table.where(i)}: the scorer of reasoning-gym refuses the answer "
                    f"{row['answer']!r}; build the rows anew with the version that is installed."
                )

    def _entry(self, row: Mapping[str, Any], where: str) -> Entry:
        entry = entry_of(row, where)
        name = entry["metadata"]["source_dataset"]
        if not (self._runs_code or compares_only(name)):
            raise ConfigError(
                f"data.grader=reasoning_gym: the scorer of {name} ({where}) may run the decoder's "
                "text as Python; if you want that, add allow_code_execution=true."
            )
        return entry


def _score(text: str, entry: Entry) -> float:
    """The library's score; 0 for a text that its scorer cannot read."""
    try:
        return scorer(entry["metadata"]["source_dataset"])(text, entry)
    except Exception:  # of more than a hundred scorers
        return 0.0


def entry_of(row: Mapping[str, Any], where: str) -> Entry:
    """The library's entry in a row.

    Raises:
        DataError: there is none, or it is of a data set that the library does not have.
    """
    text = row.get("entry")
    try:
        entry: Entry = parse_json(text) if isinstance(text, str) else {}
        if entry["metadata"]["source_dataset"] in datasets():
            return entry
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f"{where}: column 'entry' is {short(text)}; data.grader=reasoning_gym needs the JSON of an "
        "entry of reasoning-gym, with its metadata.source_dataset."
    )
