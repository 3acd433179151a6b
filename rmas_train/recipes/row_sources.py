"""The source of a recipe's rows: a set on the hub, its cache, or files with the same columns."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rmas_train.data.files import READERS, Placed, read_rows
from rmas_train.errors import DataError
from rmas_train.support.output import one_line

TIMEOUT = 20.0  # seconds for the hub to answer at all


@dataclass(frozen=True)
class SetCard:
    """What the hub says about a set at the time of the request."""

    revision: str | None
    licence: str | list[str] | None


@dataclass(frozen=True)
class RowSource:
    """Rows with their places, and facts about them for the manifest.

    Attributes:
        revision: the hub's commit that was read; None for a file.
        licence: as the set's card gave it; None if no card was seen.
    """

    name: str
    rows: Iterator[Placed]
    split: str | None = None
    revision: str | None = None
    licence: str | list[str] | None = None
    sha256: str | None = None

    def describe(self) -> dict[str, Any]:
        facts = {
            key: getattr(self, key) for key in ("name", "split", "revision", "licence", "sha256")
        }
        if self.licence is None:
            facts["licence_note"] = "unverified: no card was seen at build; look it up"
        return facts


def open_source(
    hub: str,
    config: str | None,
    split: str,
    revision: str | None,
    file: str | None,
    patterns: Sequence[str] = (),
) -> RowSource:
    """The rows of a file or folder if one is given, otherwise of the set on the hub.

    Where the hub does not answer, its cache on this machine is read.

    Args:
        hub, config, split, revision: of the set.
        file: a file of rows, or a folder with some, in place of the hub.
        patterns: of the set's files, as ``data/test-*.parquet``; empty: the hub's own list, and in
            a folder the files whose names hold the split's.

    Raises:
        DataError: no such file; or the hub cannot be reached (names the option for a file).
    """
    if file is not None:
        return folder_source(Path(file), patterns, split)
    card = check_hub(hub, revision)
    if card is not None and not patterns:
        return hub_source(hub, config, split, revision, card)
    wanted = patterns or [f"*{split}*"]
    folder = fetched(hub, revision, wanted, is_online=card is not None)
    if folder is None:
        raise DataError(
            f"{hub}: the hub could not be reached, or has no such set"
            f"{f' at revision {revision}' if revision else ''}, and its cache here does not have "
            "it; give its rows with source=<folder, or file.jsonl, .json, .parquet, .csv>, or set "
            "HF_TOKEN if the set is gated."
        )
    found = folder_source(folder, patterns, split)
    name = hub if config is None else f"{hub}/{config}"
    licence = card.licence if card else None
    return replace(found, name=name, split=split, revision=folder.name, licence=licence)


def folder_source(path: Path, patterns: Sequence[str], split: str) -> RowSource:
    """Rows of a file, or of the files of a folder in the order of the patterns.

    Raises:
        DataError: there is none; names what is there.
    """
    if not path.is_dir():
        return RowSource(path.name, read_rows(path), sha256=file_sha256(path))
    every = sorted(p for p in path.rglob("*") if p.suffix in READERS and p.is_file())
    files = [p for pattern in patterns for p in every if p in set(path.glob(pattern))]
    if not patterns:
        files = [p for p in every if split in p.stem]
    if not files:
        wanted = " or ".join(patterns) or f"file with '{split}' in its name"
        seen = ", ".join(str(p.relative_to(path)) for p in every[:8]) or "no file of rows"
        raise DataError(
            f"{path}: no {wanted} there, but {seen}; give the file itself with source=, or name "
            "split and files."
        )
    rows = itertools.chain.from_iterable(read_rows(p) for p in dict.fromkeys(files))
    return RowSource(path.name, rows, split, sha256=file_sha256(files[0]))


def fetched(
    hub: str, revision: str | None, patterns: Sequence[str], is_online: bool
) -> Path | None:
    """The folder of a set's files in the hub's cache, downloaded if the hub answers.

    Returns:
        a folder whose name is the commit; None: they are not to be had.
    """
    from huggingface_hub import snapshot_download

    from rmas_train.support.hub_errors import HUB_ERRORS

    try:
        return Path(
            snapshot_download(
                hub,
                repo_type="dataset",
                revision=revision,  # without one, the cache notes what `main` was
                allow_patterns=list(patterns),
                local_files_only=not is_online,
            )
        )
    except HUB_ERRORS:
        return None


def check_hub(hub: str, revision: str | None) -> SetCard | None:
    """Commit and licence of a set; None if the hub does not answer or has no such set."""
    from huggingface_hub import HfApi

    from rmas_train.support.hub_errors import HUB_ERRORS

    try:
        info = HfApi().dataset_info(hub, revision=revision, timeout=TIMEOUT)
    except HUB_ERRORS:
        return None
    data = info.card_data.to_dict() if info.card_data else {}
    return SetCard(info.sha, data.get("license"))


def hub_source(
    hub: str, config: str | None, split: str, revision: str | None, card: SetCard
) -> RowSource:
    """A set on the hub, row by row, at the commit that was found for it."""
    from datasets import load_dataset

    commit = card.revision or revision

    def rows() -> Iterator[Placed]:
        try:
            stream = load_dataset(hub, config, split=split, revision=commit, streaming=True)
            for number, row in enumerate(stream):
                yield f"{hub}, split {split}, row {number}", dict(row)
        except Exception as error:  # of many libraries, from the network to the file's format
            raise DataError(
                f"{hub}, config {config}, split {split}: {type(error).__name__}: "
                f"{one_line(error)}; check config, split and network, and start again."
            ) from error

    name = hub if config is None else f"{hub}/{config}"
    return RowSource(name, rows(), split, commit, card.licence)


def file_sha256(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path}: no such file in {Path.cwd()}; check the path.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
