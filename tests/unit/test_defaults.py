"""One set of defaults: the dataclasses', and no YAML file that repeats or contradicts them."""

from dataclasses import asdict

import yaml

from rmas_train.compose import compose, config_dir, to_dict
from rmas_train.config import Config, InnerConfig, OuterConfig

GIVEN = {"name", "run_dir", "agents", "topology", "data"}  # what conf/ alone can say


def test_a_composed_config_has_the_defaults_of_the_dataclasses():
    composed, default = to_dict(compose(["experiment=none"])), asdict(Config())
    assert composed.keys() == default.keys()
    for key in composed.keys() - GIVEN:
        assert composed[key] == default[key], key


def test_the_root_file_says_what_the_dataclasses_cannot():
    root = yaml.safe_load((config_dir() / "config.yaml").read_text())
    assert root.keys() == {"defaults", "name", "run_dir"}


def test_the_two_stages_learn_at_their_own_rates():
    assert (InnerConfig().lr, OuterConfig().lr) == (5e-4, 1e-4)
