"""Out of memory, said so that a user can do something about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rmas_train.errors import OutOfMemoryError

SIGNS = ("can't allocate memory", "bad_alloc")  # plain RuntimeErrors of the CPU's allocators
KNOBS = (
    "lower training.<stage>.micro_batch_size (same result), set training.outer.recompute=agent "
    "(same result, slower), lower training.outer.prefix_cache_gib, latent_length or rounds, load "
    "agents with dtype=bfloat16, or spread them with runtime.placement=per_agent or sharded; "
    "stage=plan says what fits"
)


@contextmanager
def explained_memory() -> Iterator[None]:
    """What the allocators raise becomes one line with the knobs.

    Raises:
        OutOfMemoryError: in place of theirs.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).strip()
        is_ours = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not is_ours and not any(sign in text for sign in SIGNS):
            raise
        reason = text.splitlines()[0].rstrip(".")[:160] if text else "MemoryError"
        raise OutOfMemoryError(f"out of memory ({reason}); {KNOBS}.") from error
