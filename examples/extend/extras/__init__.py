"""Seven additions to rmas_train, a file each; importing the package registers all of them."""

from extras import analysis, benchmark, callback, link, objective, system

__all__ = ["analysis", "benchmark", "callback", "link", "objective", "system"]
