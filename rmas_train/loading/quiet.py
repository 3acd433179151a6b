"""The library's own words kept out of a run's output: what is wrong is said by our errors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, whose control characters would be in logs, and no second report."""
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"  # it would load an unpinned revision
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that the library imports
            yield
    finally:
        transformers_logging.set_verbosity(before)
