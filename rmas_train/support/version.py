"""The version of this package, which files name and which identities compare."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """Of the installed distribution; ``0+unknown`` in a source tree that was never installed."""
    try:
        return version("rmas_train")
    except PackageNotFoundError:
        return "0+unknown"


VERSION = installed_version()
