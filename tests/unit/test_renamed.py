"""Options that were renamed: the old name works, with a warning that says the new one."""

import pytest
import yaml

from rmas_train.compose import compose, from_file, to_yaml
from rmas_train.compose.typed import RENAMED, rename_typed, rename_values
from rmas_train.config import Config, describe
from rmas_train.errors import ConfigError, DeprecatedOptionWarning
from rmas_train.runs.identity import FREE

OLD, NEW = "training.outer.deep", "training.outer.depth"


@pytest.fixture(autouse=True)
def renamed(monkeypatch):
    monkeypatch.setitem(RENAMED, OLD, NEW)


def test_every_new_name_is_an_option_and_no_old_one_is():
    known = {key for key, _, _ in describe(Config)}
    assert set(RENAMED.values()) <= known and not set(RENAMED) & known


def test_typed():
    with pytest.warns(DeprecatedOptionWarning, match=f"{OLD} is now called {NEW}") as told:
        assert compose([f"{OLD}=fixed"]).training.outer.depth == "fixed"
    assert len(told) == 1


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_sweeps_values_and_prefixes_stay(prefix):
    with pytest.warns(DeprecatedOptionWarning):
        assert rename_typed([f"{prefix}{OLD}=fixed,growing"]) == [f"{prefix}{NEW}=fixed,growing"]


def test_typed_under_both_names():
    with pytest.raises(ConfigError, match=f"{OLD} is the former name of {NEW}.*keep {NEW} alone"):
        compose([f"{OLD}=fixed", f"{NEW}=fixed"])


def test_a_saved_config(tmp_path):
    values = yaml.safe_load(to_yaml(Config()))
    values["agents"] = {"a": {"model": "x"}}
    values["topology"] |= {"order": ["a"], "decoder": "a"}
    values["training"]["outer"]["deep"] = values["training"]["outer"].pop("depth")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.warns(DeprecatedOptionWarning, match=NEW):
        assert from_file(tmp_path / "config.yaml").training.outer.depth == "uniform"


def test_values_in_a_file():
    values = {"training": {"outer": {"deep": "fixed"}}}
    with pytest.warns(DeprecatedOptionWarning):
        found = rename_values(values, "my.yaml")
    assert found == {"training": {"outer": {"depth": "fixed"}}}
    assert values == {"training": {"outer": {"deep": "fixed"}}}


def test_values_that_cannot_hold_it_are_left_alone():
    assert rename_values({"training": 3}, "my.yaml") == {"training": 3}


def test_a_file_that_says_both_is_refused_unless_the_new_name_was_typed():
    values = {"training": {"outer": {"deep": "fixed", "depth": "growing"}}}
    with pytest.raises(ConfigError, match="my.yaml"):
        rename_values(values, "my.yaml")
    with pytest.warns(DeprecatedOptionWarning):
        found = rename_values(values, "my.yaml", winners=[NEW])
    assert found == {"training": {"outer": {"depth": "growing"}}}


def test_recomputing_was_called_checkpoint_once():
    with pytest.warns(DeprecatedOptionWarning, match="training.outer.recompute"):
        config = compose(["training.outer.checkpoint=agent"])
    assert config.training.outer.recompute == "agent"
    assert "recompute" in FREE and "checkpoint" not in FREE
