"""From the command line and YAML files to one ``Config``: Hydra ends here."""

from rmas_train.compose.compose import (
    compose,
    config_dir,
    from_file,
    groups,
    is_hydra,
    normalise,
    to_config,
    to_dict,
    to_yaml,
)

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
