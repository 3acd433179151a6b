"""Whether a message that somebody's own code gave can go into the slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rmas_train.engine.inputs import LatentMessage, Message, TextMessage
from rmas_train.errors import ConfigError


def check_message(message: Any, before: Message, rows: int, where: str) -> Message:
    """A message for ``rows`` rows that an intervention gave in place of ``before``.

    Raises:
        ConfigError: it is none, or has other rows, latent steps or width; names ``where``.
    """
    if not isinstance(message, Message):
        raise ConfigError(
            f"{where} gave {type(message).__name__}; give a Message, as message.with_tensors([...])"
        )
    if isinstance(message, LatentMessage) and isinstance(before, LatentMessage):
        _check_vectors(message.vectors, before.vectors, where)
    if isinstance(message, LatentMessage):
        _check_counts(message.counts, message.vectors, where)
    if isinstance(message, TextMessage) and not _are_texts(message.texts, rows):
        raise ConfigError(f"{where} gave {message.texts!r}; give a text for each of {rows} rows.")
    return message


def _check_vectors(vectors: Any, before: Tensor, where: str) -> None:
    wanted = tuple(before.shape)
    if not isinstance(vectors, Tensor) or not vectors.is_floating_point():
        kind = vectors.dtype if isinstance(vectors, Tensor) else type(vectors).__name__
        raise ConfigError(f"{where} gave vectors of {kind}; give a tensor of float32.")
    if tuple(vectors.shape) != wanted:
        raise ConfigError(
            f"{where} changed the shape of the vectors (rows, latent steps, width) from {wanted} "
            f"to {tuple(vectors.shape)}; keep it, and multiply by 0 what is not to arrive, or say "
            "in counts how many of a row's vectors do."
        )


def _check_counts(counts: Sequence[int] | None, vectors: Tensor, where: str) -> None:
    rows, steps, _ = vectors.shape
    if counts is None:
        return
    fits = len(counts) == rows and all(isinstance(c, int) and 0 <= c <= steps for c in counts)
    if not fits:
        raise ConfigError(
            f"{where} gave counts={list(counts)!r}; give one for each of {rows} rows, from 0 to "
            f"{steps}."
        )


def _are_texts(texts: Any, rows: int) -> bool:
    is_list = isinstance(texts, Sequence) and not isinstance(texts, str)
    return is_list and len(texts) == rows and all(isinstance(text, str) for text in texts)
