"""What is typed as a value: what Hydra's grammar does not take, and one value for a list."""

import shlex

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from rmas_train.__main__ import main
from rmas_train.command.sweep import expand
from rmas_train.compose import compose, config_from
from rmas_train.compose.nodes import to_dict, unreadable
from rmas_train.errors import ConfigError


def refusal(typed):
    with pytest.raises(ConfigError) as found:
        compose(typed)
    return str(found.value)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "a=b",
            "f(x",
            "(x)",
            "f(x)",
            "東京",
            "тест",
            "日本, 語",
            "données/été",
            "'a",
            "a'b",
            "a]",
        ),
        *(r"^(?P<answer>.+)$", r"(?P<answer>\w+)", "a#b", "a'b", 'say "x"', '\\"', "'a\\'", "~a"),
        *("outputs/my run (1)", "`x`", "\U0001f600", "<x>\\", '"', "x!\\\\"),
    ],
)
def test_the_form_that_a_refusal_names_can_be_pasted(value):
    """It names option, value and remedy; what a shell makes of the remedy gives the value."""
    text = unreadable([f"++name={value}"], {})
    assert text.startswith(f"name={value}: the value cannot be read") and "++" not in text
    (typed,) = shlex.split(text.split("in a shell: ", 1)[1])
    assert OverridesParser.create().parse_override(typed).value() == value


def test_a_run_and_a_sweep_name_the_form_too():
    text = "name=a=b: the value cannot be read at '=b'; put it in quotes, in a shell: "
    text += "'name=\"a=b\"'"
    assert refusal(["experiment=relay", "name=a=b"]) == text
    assert compose(["experiment=relay", 'name="a=b"']).name == "a=b"
    with pytest.raises(ConfigError) as found:
        expand(["++rounds=1,2", "++name=a=b"])
    assert str(found.value) == text


@pytest.mark.parametrize(
    ("typed", "needles"),
    [
        (["evaluation.rounds=[1,2"], ["evaluation.rounds=[1,2:", "close every bracket", '["text"']),
        (["data.role_texts={a:b"], ["data.role_texts={a:b:", '{name: "text"}']),
        (["na me=3"], ["Unknown option 'na me'", "Did you mean 'name'"]),
        (["名前=3"], ["Unknown option '名前'"]),
        (["=3"], ["=3: options are key=value"]),
        (["~name=3"], ["~name=3: options are key=value"]),
        (["experiment=東京"], ["experiment=東京: no such choice", "relay"]),
        (["name=choice(a,b)"], ["name=choice(a,b): several values are a sweep; add -m"]),
        (["training.outer.callbacks=x"], ["no such callback. None is defined; define it"]),
    ],
)
def test_what_cannot_be_read_otherwise(typed, needles):
    text = refusal(typed)
    for needle in needles:
        assert needle in text


def test_a_reference_to_nothing_says_how_to_write_the_text():
    text = refusal(["experiment=relay", "name=${x}"])
    assert text.startswith("name: Interpolation key 'x' not found; ") and r"\${...}" in text
    assert compose(["experiment=relay", r"name=\${x}"]).name == "${x}"


def test_one_value_of_a_list_option_is_a_list_of_one(tmp_path, monkeypatch):
    typed = ["tracking=wandb", "evaluation.rounds=2", "evaluation.systems=null", "plan.devices=4"]
    config = compose(["experiment=relay", *typed, "topology.order=planner"])
    assert (config.tracking, config.evaluation.rounds) == (["wandb"], [2])
    assert (config.evaluation.systems, config.plan.devices) == (["null"], [4])
    assert config.topology.order == ["planner"]
    path = tmp_path / "my.yaml"
    path.write_text("experiment: relay\ntracking: wandb\nevaluation: {rounds: 2}\n")
    for source in (path, {"tracking": "wandb", "evaluation": {"rounds": 2}}):
        found = config_from(source)
        assert (found.tracking, found.evaluation.rounds) == (["wandb"], [2])
    assert compose(["experiment=relay", "evaluation.rounds=null"]).evaluation.rounds is None


@pytest.mark.parametrize(
    ("values", "needle"),
    [
        ({"tracking": {"a": 1}}, "tracking={a: 1}: give a list"),
        ({"topology": {"edges": "a-b"}}, "topology.edges=a-b: give a list"),
        ({"topology": {"edges": ["a-b"]}}, "topology.edges[0].source=<value>"),
        ({"data": {"role_texts": "plan"}}, "data.role_texts.<name>=<value>"),
        ({"agents": {"planner": "x"}}, "agents.planner.model=<value>"),
        ({"evaluation": 3}, "evaluation.rounds=<value>"),
        ({"rounds": [1, 2]}, "rounds=[1, 2]: give one value"),
    ],
)
def test_other_shapes_are_told_with_the_right_form(values, needle):
    with pytest.raises(ConfigError) as found:
        config_from(values)
    assert str(found.value).startswith("config: ") and needle in str(found.value)
    assert "\n" not in str(found.value) and "Config" not in str(found.value)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("seed: 1\nevaluation:\n  rounds: [1]\n  rounds: [2]\n")
    assert refusal([f"--config={path}"]).startswith(f"{path}: key 'rounds' stands twice, line 4")
    own = tmp_path / "conf" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\nrounds: 2\nrounds: 3\n")
    text = refusal([f"--config-dir={tmp_path / 'conf'}", "experiment=mine"])
    assert text.startswith(f"{own / 'mine.yaml'}: ") and "key rounds, line 3" in text
    path.write_text("evaluation: &e {max_rows: 3}\ntraining: {inner: {steps: 3}}\n")
    assert compose([f"--config={path}"]).evaluation.max_rows == 3


def test_a_sweep_over_an_interval_is_told_what_to_write(capsys):
    assert main(["-m", "data.answer_pattern='(?P<answer>x)'", "seed=interval(0,1)"]) == 2
    error = capsys.readouterr().err
    assert "seed=interval(0,1): a sweep needs values that can be listed; write seed=a,b" in error


@pytest.mark.parametrize("value", ["[1]", "[ddp]", "[]", "[[1]]"])
def test_a_list_is_no_choice_of_a_group(value):
    assert f"runtime={value}: no such choice" in refusal([f"runtime={value}"])


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        (["data.more_tests={}"], {}),
        (["data.more_tests={}", "data.more_tests.mine=test.jsonl"], {"mine": "test.jsonl"}),
        (["data.more_tests.mine=x.jsonl", "data.more_tests={}"], {}),
    ],
)
def test_an_empty_dict_empties(typed, left):
    """Before, what the experiment had put in stayed there."""
    config = compose(["experiment=notes", *typed])
    assert config.data.more_tests == left
    assert len(compose(["experiment=notes"]).data.more_tests) == 3


def test_an_empty_dict_on_a_finished_run_empties(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    saved = to_dict(compose(["experiment=notes", "stage=outer"]))
    (folder / "config.yaml").write_text(yaml.safe_dump(saved))
    typed = ["stage=eval", f"run={folder}", "data.recipe=null", "data.more_tests={}"]
    assert compose(typed).data.more_tests == {}
