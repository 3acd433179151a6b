"""Registries: names that a config may use, built in or added."""

import subprocess
import sys

import pytest
from launching import environment

from rmas_train import registry
from rmas_train.errors import ConfigError
from rmas_train.registry import Registry


@pytest.fixture
def colours():
    return Registry("colour", "paint.colour", {"red": "fractions:Fraction.from_float"})


def test_a_builtin_is_imported_when_it_is_asked_for(colours):
    from fractions import Fraction

    assert colours.get("red")(0.5) == Fraction(1, 2)


def test_names_are_added_by_call_and_by_decorator(colours):
    colours.register("green", 3)

    @colours.register("blue")
    class Blue:
        pass

    assert colours.names() == ["red", "green", "blue"]
    assert (colours.get("green"), colours.get("blue")) == (3, Blue)


def test_a_name_is_given_once_and_both_are_named(colours):
    class Other:
        pass

    with pytest.raises(ConfigError, match="'red' is fractions:Fraction.from_float.*Other"):
        colours.register("red", Other)
    colours.register("green", 3)
    with pytest.raises(ConfigError, match="colour 'green' is 3 already, so it cannot be 4"):
        colours.register("green", 4)


def test_a_definition_that_is_run_again_replaces_itself(colours):
    def define():
        @colours.register("blue")
        class Blue:
            pass

        return Blue

    define()
    second = define()
    assert colours.get("blue") is second


@pytest.mark.parametrize("ask", ["get", "check"])
def test_an_unknown_name_names_the_option_and_the_nearest(colours, ask):
    with pytest.raises(ConfigError, match=r"paint\.colour=rad: no such colour\. Did you mean 're"):
        getattr(colours, ask)("rad")
    with pytest.raises(ConfigError, match=r"Known: red\. A plugin's needs plugins=\["):
        getattr(colours, ask)("zebra")


def test_the_option_of_a_message_may_be_another(colours):
    with pytest.raises(ConfigError, match="^wall=rad"):
        colours.check("rad", "wall")


REGISTRIES = {n: r for n, r in vars(registry).items() if isinstance(r, Registry)}


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_builtin_is_there(kind):
    for name in REGISTRIES[kind].names():
        assert REGISTRIES[kind].get(name) is not None


def test_names_are_checked_without_importing_what_they_mean(tmp_path):
    code = (
        "import sys; from rmas_train.config import Config; Config(); "
        "print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
