"""rmas_train: train recursive multi-agent systems and judge them honestly.

python -m rmas_train                      # inner, outer, eval and report on the shipped relay
system = rmas_train.load("outputs/relay") # the trained system, ready to answer
system = rmas_train.train("my.yaml")      # the same from Python

The names below are imported when they are first used: torch takes seconds, and ``--help`` needs
none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmas_train.api import evaluate as evaluate
    from rmas_train.api import load as load
    from rmas_train.api import train as train
    from rmas_train.compose import config_from as config_from
    from rmas_train.config import Config as Config
    from rmas_train.recursion import Call as Call
    from rmas_train.systems.base import Answer as Answer
    from rmas_train.systems.latent import System as System

    __version__: str

# Public name -> the module that defines it. A new name is added here, to ``__all__`` and above.
PUBLIC = {
    "Answer": "rmas_train.systems.base",
    "Call": "rmas_train.recursion",
    "Config": "rmas_train.config",
    "System": "rmas_train.systems.latent",
    "config_from": "rmas_train.compose",
    "evaluate": "rmas_train.api",
    "load": "rmas_train.api",
    "train": "rmas_train.api",
}
__all__ = [
    "Answer",
    "Call",
    "Config",
    "System",
    "__version__",
    "config_from",
    "evaluate",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    """A public name, or the version, when it is first asked for."""
    if name == "__version__":
        from rmas_train.support.version import VERSION

        value: Any = VERSION
    elif name in PUBLIC:
        value = getattr(import_module(PUBLIC[name]), name)
    else:
        raise AttributeError(f"module 'rmas_train' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
