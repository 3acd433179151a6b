"""Python modules of the user's that add names to the registries: ``plugins: [my_module]``.

Importing runs code, so only the person at the keyboard can ask for it: in a typed option, in a file
of ``--config`` or ``--config-dir``, or from Python. A saved run's config alone never does.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmas_train.errors import ConfigError

MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def import_plugins(names: Any) -> None:
    """Import each module; the folder that the command was started in is searched as well.

    Raises:
        ConfigError: not names of modules, or one that cannot be imported, with its reason.
    """
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise ConfigError(f"plugins={names}: give a list of modules, as in plugins=[my_module].")
    for name in names:
        if not isinstance(name, str) or not MODULE.fullmatch(name):
            raise ConfigError(
                f"plugins: '{name}' is no module's name; write my_module for my_module.py, with "
                "dots for folders."
            )
        _import(name)


def _import(name: str) -> None:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # behind the installed libraries, so that it can hide none of them
    importlib.invalidate_caches()  # the file may have been written a moment ago
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:  # it is the user's code and may raise anything
        reason = f"{type(error).__name__}: {error}".rstrip(". ")
        raise ConfigError(
            f"plugins: {name} cannot be imported ({reason}); mend it, or start the command in its "
            "folder, or install it."
        ) from error
