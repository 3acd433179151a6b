"""The files that one question passes from the command line to the first optimizer step, in order.

    python scripts/reading_order.py          # prints them, as README.md lists them

Traced: every function call of `python -m rmas_train stage=outer` on the relay until AdamW's first
step. A file counts when one of its functions runs; module and class bodies do not count.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = f"{ROOT / 'rmas_train'}{os.sep}"
FUNCTION = 1  # CO_OPTIMIZED: set in functions, not in module and class bodies


class FirstStep(BaseException):
    """Ends the run where the trace ends."""


def trace(folder: Path) -> list[str]:
    """Files below ``rmas_train/``, in the order in which a function of each is first called."""
    sys.path.insert(0, str(ROOT))
    import torch

    from rmas_train.command.main import main

    common = ["runtime.threads=1", f"run_dir={folder / 'run'}", f"data.folder={folder / 'data'}"]
    common += ["data.recipe_options.train=200", "data.recipe_options.test=20"]
    few = ["training.inner.steps=1", "training.inner.batch_size=2", "training.outer.batch_size=4"]
    if main(["stage=inner", *common, *few]):
        raise SystemExit("stage=inner failed")
    seen: dict[str, None] = {}

    def see(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        is_ours = code.co_flags & FUNCTION and code.co_filename.startswith(PACKAGE)
        if event == "call" and is_ours and code.co_name != "<lambda>":
            seen.setdefault(code.co_filename.removeprefix(PACKAGE))

    def stop(*_: Any, **__: Any) -> None:
        sys.setprofile(None)
        raise FirstStep

    torch.optim.AdamW.step = stop  # type: ignore[method-assign]
    sys.setprofile(see)
    try:
        main(["stage=outer", *common, *few])
    except FirstStep:
        return list(seen)
    finally:
        sys.setprofile(None)
    raise SystemExit("stage=outer ended before a step")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work, contextlib.redirect_stdout(io.StringIO()):
        found = trace(Path(work))
    print(*(f"{i}. `{name}`" for i, name in enumerate(found, start=1)), sep="\n")
