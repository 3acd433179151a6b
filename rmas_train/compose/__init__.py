"""From the command line and YAML files to one ``Config``; nothing below knows Hydra."""

from rmas_train.compose.compose import changes, compose, config_from, searching
from rmas_train.compose.files import import_plugins
from rmas_train.compose.nodes import explain, to_config, to_dict, to_yaml
from rmas_train.compose.saved import from_file, saved_values
from rmas_train.compose.typed import (
    Typed,
    config_dir,
    folded,
    groups,
    is_hydra,
    normalise,
    read_typed,
)

__all__ = [
    "Typed",
    "changes",
    "compose",
    "config_dir",
    "config_from",
    "explain",
    "folded",
    "from_file",
    "groups",
    "import_plugins",
    "is_hydra",
    "normalise",
    "read_typed",
    "saved_values",
    "searching",
    "to_config",
    "to_dict",
    "to_yaml",
]
