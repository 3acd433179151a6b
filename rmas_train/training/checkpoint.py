"""Checkpoints: complete folders, or none. The format is in docs/checkpoints.md.

A folder is written beside its place, synced, sealed by a manifest with each file's size and sha256,
and renamed. One without a valid manifest does not exist for resume. No pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rmas_train.errors import CheckpointError
from rmas_train.support.files import new_folder, remove, write_json
from rmas_train.support.reading import check_type, parse_json, short

FORMAT = 1
MANIFEST, STATE = "manifest.json", "state.json"
TENSORS = ("links", "optimizer", "random")


class State(TypedDict):
    """Types of ``state`` in ``state.json``."""

    updates: dict[str, int]
    schedule: dict[str, Any]
    callbacks: dict[str, Any]
    world: int
    backend: str


class Fields(TypedDict):
    """Types of ``state.json``."""

    format: int
    step: int
    identity: dict[str, Any]
    state: State


class Record(Fields, total=False):
    """A field that older checkpoints do not have."""

    card: dict[str, Any]


class Manifest(TypedDict):
    """Types of ``manifest.json``: sizes and sha256 of files."""

    format: int
    files: dict[str, dict[str, Any]]


@dataclass
class Checkpoint:
    """The complete state of training.

    Attributes:
        step: optimizer steps done; also the sampler's position, which is a function of it.
        links: every parameter and buffer.
        optimizer: Adam's moments by parameter.
        random: states of the random generators by rank.
        state: plain data: updates per link, schedule, callbacks, layout.
        identity: options and fingerprints that a run must share to go on from here.
        card: what a links folder would say of these links; empty in older checkpoints.
    """

    step: int
    links: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    random: dict[str, Tensor]
    state: dict[str, Any]
    identity: dict[str, Any]
    card: dict[str, Any] = field(default_factory=dict)


def write(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write ``folder/step_<n>``; it appears whole or not at all.

    Raises:
        CheckpointError: the disk is full, or cannot be written.
    """
    path = folder / f"step_{checkpoint.step:08d}"
    try:
        with new_folder(path) as work:
            for name in TENSORS:
                tensors = getattr(checkpoint, name)
                # A copy of each: shared links have the same parameters under several names.
                plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
                save_file(plain, work / f"{name}.safetensors")
            record = {"format": FORMAT, "step": checkpoint.step, "identity": checkpoint.identity}
            write_json(work / STATE, record | {"state": checkpoint.state, "card": checkpoint.card})
            files = {file.name: _seal(file) for file in sorted(work.iterdir())}
            write_json(work / MANIFEST, {"format": FORMAT, "files": files})
    except (OSError, SafetensorError) as error:
        left = [p.name for p in list_checkpoints(folder)[:1]]
        kept = f"{folder / left[0]} is still valid" if left else "there is no earlier one"
        raise CheckpointError(
            f"{path} could not be written ({_reason(error)}); {kept}. Free space, or choose "
            "another run_dir, then go on with resume=auto."
        ) from error
    return path


def read(path: Path) -> Checkpoint:
    """A checkpoint whose every file is what its manifest says.

    Raises:
        CheckpointError: it is not; names the file and what differs.
    """
    verify(path)
    try:
        record = parse_json((path / STATE).read_text(encoding="utf-8"))
        check_type(record, Record, "")
        tensors = {name: load_file(path / f"{name}.safetensors") for name in TENSORS}
        for name in ("links", "optimizer"):
            check_finite(tensors[name], f"{name}.safetensors")
        return Checkpoint(
            step=record["step"],
            state=record["state"],
            identity=record["identity"],
            card=record.get("card", {}),
            **tensors,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({_reason(error)}); resume from another checkpoint."
        ) from error


def check_finite(tensors: dict[str, Tensor], file: str) -> None:
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{file}: key {key} holds NaN or infinite numbers")


def verify(path: Path) -> None:
    """Every file has the manifest's size and sha256.

    Raises:
        CheckpointError: names the file.
    """
    try:
        manifest = parse_json((path / MANIFEST).read_text(encoding="utf-8"))
        check_type(manifest, Manifest, "")
        files, format_ = manifest["files"], manifest["format"]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: no valid {MANIFEST} ({_reason(error)}).") from error
    if format_ != FORMAT:
        raise CheckpointError(f"{path}: format {short(format_)}, this version reads {FORMAT}.")
    if set(files) != {STATE, *(f"{name}.safetensors" for name in TENSORS)}:
        raise CheckpointError(f"{path}: {MANIFEST} lists {short(sorted(files))}.")
    for name, wanted in files.items():
        try:
            found = _seal(path / name)
        except OSError as error:
            raise CheckpointError(f"{path / name}: {_reason(error)}.") from error
        for key in ("size", "sha256"):
            if found[key] != wanted.get(key):
                raise CheckpointError(
                    f"{path / name}: {key} {str(found[key])[:16]}, the manifest says "
                    f"{str(wanted.get(key))[:16]}; the file is damaged."
                )


def list_checkpoints(folder: Path) -> list[Path]:
    """Folders of this name, newest step first; whether they are valid is not looked at."""
    return sorted(folder.glob("step_" + "[0-9]" * 8), reverse=True)


def newest(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest valid checkpoint; every newer one that is damaged is named.

    Raises:
        CheckpointError: there are checkpoints, and none is valid.
    """
    paths = list_checkpoints(folder)
    for path in paths:
        try:
            found = read(path)
            if path.name != f"step_{found.step:08d}":
                raise CheckpointError(f"{path}: is of step {found.step}, not of its name.")
            return found
        except CheckpointError as error:
            warn(f"DAMAGED CHECKPOINT, taking an earlier one: {error}")
    if paths:
        raise CheckpointError(
            f"{folder}: none of its {len(paths)} checkpoint(s) is valid; start over without "
            "resume=auto."
        )
    return None


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest ``keep``; one that is half removed has a hidden name."""
    for path in list_checkpoints(folder)[keep:]:
        going = path.with_name(f".{path.name}.tmp{os.getpid()}")
        with contextlib.suppress(OSError):
            path.rename(going)
            remove(going)


def _seal(file: Path) -> dict[str, Any]:
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return {"size": file.stat().st_size, "sha256": digest}


def _reason(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return str(strerror or error or type(error).__name__).splitlines()[0]
