"""rmas_train: train recursive multi-agent systems and judge them honestly.

python -m rmas_train                      # inner, outer, eval and report on the shipped relay
system = rmas_train.load("outputs/relay") # the trained system, ready to answer

The names below are imported when they are first used: torch takes seconds, and ``--help`` needs
none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmas_train.api import load as load
    from rmas_train.compose import compose as compose
    from rmas_train.config import Config as Config
    from rmas_train.systems.latent import Answer as Answer
    from rmas_train.systems.latent import System as System

    __version__: str

# Public name -> the module that defines it. A new name is added here, to ``__all__`` and above.
PUBLIC = {
    "Answer": "rmas_train.systems.latent",
    "Config": "rmas_train.config",
    "System": "rmas_train.systems.latent",
    "compose": "rmas_train.compose",
    "load": "rmas_train.api",
}
__all__ = ["Answer", "Config", "System", "__version__", "compose", "load"]


def __getattr__(name: str) -> Any:
    """A public name, or the version, when it is first asked for."""
    if name == "__version__":
        value: Any = _version()
    elif name in PUBLIC:
        value = getattr(import_module(PUBLIC[name]), name)
    else:
        raise AttributeError(f"module 'rmas_train' has no attribute '{name}'")
    if name != "compose":  # the package of this name keeps its place, and can be called as well
        globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """Of the installed distribution; of a bare source tree it cannot be known."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rmas_train")
    except PackageNotFoundError:
        return "0+unknown"
