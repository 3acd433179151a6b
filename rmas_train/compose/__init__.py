"""From the command line and YAML files to one ``Config``: Hydra ends here.

The package can be called as its function, because ``rmas_train.compose`` names both.
"""

import sys
from types import ModuleType

from rmas_train.compose.compose import compose
from rmas_train.compose.folders import config_dir, groups
from rmas_train.compose.nodes import to_config, to_dict, to_yaml
from rmas_train.compose.saved import from_file
from rmas_train.compose.typed import is_hydra, normalise
from rmas_train.config import Config

__all__ = [
    "compose",
    "config_dir",
    "from_file",
    "groups",
    "is_hydra",
    "normalise",
    "to_config",
    "to_dict",
    "to_yaml",
]


class _Callable(ModuleType):
    """``rmas_train.compose([...])``; an imported submodule would hide a function of its name."""

    def __call__(self, overrides: list[str]) -> Config:
        return compose(overrides)


sys.modules[__name__].__class__ = _Callable
