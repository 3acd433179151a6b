"""From rows to a data folder: splits that share no question, a sample, a manifest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rmas_train.errors import ConfigError, DataError
from rmas_train.recipes.overlap import words
from rmas_train.recipes.row_sources import file_sha256
from rmas_train.support.files import new_folder, write_json, write_text
from rmas_train.support.reading import check_type, parse_json

MANIFEST = "manifest.json"
SAMPLE = 8
LIBRARIES = ("rmas_train", "torch", "transformers", "datasets", "huggingface_hub", "openai")
Row = dict[str, Any]


def question_key(question: str) -> str:
    """A key that is equal for questions that differ only in case, spacing and punctuation.

    In short questions signs count, so that ``2 + 2`` and ``2 - 2`` are two questions.
    """
    found = words(question)
    return " ".join(found) if len(found) >= 13 else "".join(question.casefold().split())


def split_rows(
    rows: Sequence[Row], seed: int, test_share: float, valid_share: float, by: str = "question"
) -> dict[str, list[Row]]:
    """Rows by split; the split of a question depends only on the seed and its text.

    Args:
        by: the column that no two splits share, such as a passage with several questions.

    Raises:
        ConfigError: shares that leave no rows to train on.
        DataError: fewer than two questions.
    """
    if not (0 < test_share < 1 and 0 <= valid_share < 1 and test_share + valid_share < 1):
        raise ConfigError(
            f"test_share={test_share} valid_share={valid_share}: give shares of 1, test above 0, "
            "that leave rows to train on."
        )
    keys = sorted(
        {question_key(r[by]) for r in rows},
        key=lambda k: hashlib.sha256(f"{seed}/{k}".encode()).digest(),
    )
    if len(keys) < 2:
        raise DataError(f"{len(keys)} {by}(s) left, too few for train and test; give more rows.")
    test = min(max(1, round(test_share * len(keys))), len(keys) - 1)
    valid = min(round(valid_share * len(keys)), len(keys) - 1 - test)
    if valid == 0 < valid_share and len(keys) > 2:
        valid = 1 if test + 1 < len(keys) else 0
    place = dict.fromkeys(keys, "train")
    place |= dict.fromkeys(keys[:test], "test") | dict.fromkeys(keys[test : test + valid], "valid")
    splits: dict[str, list[Row]] = {"train": [], "valid": [], "test": []}
    for row in rows:
        splits[place[question_key(row[by])]].append(row)
    return splits


def write_data(
    out: Path,
    rows: Sequence[Row],
    facts: Mapping[str, Any],
    seed: int,
    shares: tuple[float, float],
    by: str = "question",
) -> None:
    """Write train, valid, test and sample files and the manifest; all of them or none.

    Args:
        out: the folder; an earlier build in it is replaced, other files are refused.
        rows: rows that were kept, in the order of the source.
        facts: what the manifest says in addition to counts, hashes and versions.
        seed: seed of the split.
        shares: shares of test and of valid.
        by: the column that no two splits share.

    Raises:
        DataError: too few rows, or the folder holds files that no build made.
    """
    splits = split_rows(rows, seed, *shares, by)
    write_files(out, splits | {"sample": splits["train"][:SAMPLE]}, facts, seed)


def write_files(
    out: Path, splits: Mapping[str, Sequence[Row]], facts: Mapping[str, Any], seed: int
) -> None:
    """Write ``<name>.jsonl`` of each split that has rows, and the manifest; all of them or none.

    Args:
        out, facts, seed: see ``write_data``.
        splits: name -> rows; ``sample`` is not counted in the manifest.

    Raises:
        DataError: the folder holds files that no build made.
    """
    check_out(out)
    with new_folder(out) as folder:
        for name, part in splits.items():
            if part:
                lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in part)
                write_text(folder / f"{name}.jsonl", "".join(lines))
        counted = {name: part for name, part in splits.items() if name != "sample"}
        manifest = {
            **facts,
            "seed": seed,
            "rows": {name: len(part) for name, part in counted.items()},
            "columns": sorted({column for part in counted.values() for r in part for column in r}),
            "versions": _versions(),
            "files": {p.name: file_sha256(p) for p in sorted(folder.glob("*.jsonl"))},
        }
        write_json(folder / MANIFEST, manifest)


def check_out(out: Path) -> None:
    """Check that the folder is empty or missing, or holds an earlier build.

    Raises:
        DataError: it holds other files, which would be lost.
    """
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise DataError(f"out={out} holds files that no build made; choose another folder.")
    if out.exists() and not out.is_dir():
        raise DataError(f"out={out} is a file; choose another folder.")


def check_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a built folder, after checking that its files have not changed.

    Raises:
        DataError: no manifest, or a file that is missing or has changed.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        check_type(manifest["files"], dict[str, str], "files")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no readable manifest; build the folder anew.") from error
    for name, sha256 in manifest["files"].items():
        if Path(name).name != name:
            raise DataError(f"{path}: file name {name!r} leads elsewhere; build the folder anew.")
        if not (folder / name).is_file() or file_sha256(folder / name) != sha256:
            raise DataError(
                f"{folder / name} is missing or has changed since it was built (sha256 in "
                f"{MANIFEST}); remove the folder to build it anew, or set data.recipe=null to use "
                "the files as they are."
            )
    return manifest


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found
