"""A saved config from somebody else: what it may ask for, on values as they are after parsing."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from planted import ROOT

from rmas_train.__main__ import main
from rmas_train.compose import compose, reach, saved, to_dict
from rmas_train.compose.stamp import STAMP, wanted_stamp
from rmas_train.config import Config, describe
from rmas_train.errors import ConfigError

TABLES = (reach.FREE, reach.READ, reach.INSIDE, reach.LIMITS, set(reach.TYPED), reach.RECIPE)


@pytest.fixture(scope="module")
def ordinary() -> str:
    """A config of the three tiny agents, as JSON."""
    typed = ["data.recipe=null", "data.folder=data", "data.prompts=prompts"]
    return json.dumps(to_dict(compose(typed)))


@pytest.fixture
def theirs(ordinary, tmp_path, monkeypatch):
    """Writes somebody's run folder, with changes to an ordinary config; gives what to type."""
    monkeypatch.chdir(tmp_path)

    def write(change=None, text=None) -> list[str]:
        folder = tmp_path / "theirs"
        folder.mkdir(exist_ok=True)
        plain = json.loads(ordinary)
        for key, value in (change or {}).items():
            *path, last = key.split(".")
            place = plain
            for name in path:
                place = place[name]
            place[last] = value
        (folder / "config.yaml").write_text(text or yaml.safe_dump(plain))
        return ["stage=eval", f"run={folder}"]

    return write


def refused(typed: list[str], *needles: str) -> str:
    with pytest.raises(ConfigError) as error:
        compose(typed)
    text = str(error.value)
    assert len(text.splitlines()) == 1 and "config.yaml: " in text
    for needle in needles:
        assert needle in text
    return text


def test_every_option_has_been_thought_about():
    """A new option belongs into a table of compose/reach.py, after a look at what it reaches."""
    for key, _, _ in describe(Config):
        found = [table for table in TABLES if key in table]
        if key != "agents":
            assert len(found) == 1, f"{key} stands in {len(found)} tables of compose/reach.py"
    known = {key for key, _, _ in describe(Config)}
    assert set().union(*TABLES) <= known, "options that are gone"


def test_the_walk_over_a_config_finds_every_option():
    found = {pattern for _, pattern, _, _ in reach.options(compose([]))}
    assert found == {key for key, _, _ in describe(Config)} - {"agents"}


def test_an_option_that_nobody_has_thought_about_is_refused(theirs, monkeypatch):
    for key, value in (("latent_length", 5), ("tools.max_calls", 7)):
        monkeypatch.setattr(reach, "FREE", reach.FREE - {key})
        typed = theirs({key: value})
        refused(typed, f"{key} is set there", "not among the options", f"add {key}={value}")
        assert compose([*typed, f"{key}={value}"])
    monkeypatch.setattr(reach, "FREE", reach.FREE - {"agents.<name>.dtype"})
    refused(theirs({"agents.critic.dtype": "bfloat16"}), "agents.critic.dtype is set")


def test_an_option_of_a_recipe_that_nobody_has_thought_about_is_refused():
    """Those that build.py scripts have are either allowed, or name something outside."""
    outside = "source evaluation writer writer_model writer_revision key_env journal task out seed"
    outside = {*outside.split(), "debate_prompts", "role_prompts", "hub", "files"}
    found = set()
    for path in [*ROOT.glob("data_recipes/*/build.py"), *ROOT.glob("rmas_train/recipes/*.py")]:
        found |= set(re.findall(r'add(?:_argument)?\(\s*"--(\w+)"', path.read_text()))
    free = {key.rsplit(".", 1)[1] for key in reach.RECIPE_FREE}
    assert found == free | outside and not free & outside


PLANTED = "HF_TOKEN"
ASKS = {
    "trust_remote_code": ({"agents.critic.trust_remote_code": True}, "agents.critic.trust_remote_"),
    "plugins": ({"plugins": ["evil_module"]}, "plugins"),
    "code": ({"allow_code_execution": True}, "allow_code_execution"),
    "search": ({"tools.search_url": "https://evil.example/s"}, "tools.search_url"),
    "search key": ({"tools.search_key_variable": PLANTED}, "tools.search_key_variable"),
    "packages": ({"tools.python_packages": True}, "tools.python_packages"),
    "memory": ({"tools.memory_mib": 10**6}, "tools.memory_mib"),
    "time": ({"tools.python_seconds": 3000.0}, "tools.python_seconds"),
    "processes": ({"tools.processes": 4000}, "tools.processes"),
    "files": ({"tools.file_mib": 10**6}, "tools.file_mib"),
    "time of tests": ({"data.test_seconds": 3000.0}, "data.test_seconds"),
    "judge": ({"evaluation.judge": "https://evil.example/v1"}, "evaluation.judge"),
    "judge key": ({"evaluation.judge_key_variable": PLANTED}, "evaluation.judge_key_variable"),
    "textgrad": (
        {"evaluation.textgrad_url": "https://evil.example/v1", "evaluation.textgrad_model": "evil"},
        "evaluation.textgrad_url",
    ),
    "textgrad key": (
        {"evaluation.textgrad_key_variable": PLANTED},
        "evaluation.textgrad_key_variable",
    ),
    "test": ({"data.test": "/etc/passwd"}, "data.test"),
    "train": ({"data.train": "../../secrets.jsonl"}, "data.train"),
    "inner files": ({"data.inner_files": {"critic": "/etc/passwd"}}, "data.inner_files"),
    "recipe": ({"data.recipe": "relay"}, "data.recipe"),
}
OPTIONS = {
    "key_env": PLANTED,
    "writer": "http://evil.example/v1",
    "source": "/root/private.jsonl",
    "journal": "/root/journal.jsonl",
    "evaluation": "/root/private.jsonl",
    "task": "/root/task.yaml",
    "writer_model": "x",
    "out": "elsewhere",
    "role_prompts": "/root",
    "train": "--writer=http://evil.example",
    "style": "a b",
    "rows": [1],
    "writer=http://evil.example": 1,
    "unknown": 1,
}


@pytest.mark.parametrize("name", ASKS)
def test_what_reaches_outside_has_to_be_typed(theirs, name):
    change, key = ASKS[name]
    refused(theirs(change), f"{key}", " is set there, which ", "if you trust it, add ")


@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_a_recipe_have_to_be_typed(theirs, option):
    """With them a recipe sends a variable or a file to a stranger, or writes elsewhere."""
    change = {"data.recipe": "s1k", "data.recipe_options": {option: OPTIONS[option]}}
    refused(theirs(change), f"data.recipe_options.{option} is set there", "reach files or hosts")


def test_typing_the_recipe_or_another_option_does_not_allow_the_rest(theirs):
    change = {"data.recipe": "s1k", "data.recipe_options": {"key_env": PLANTED}}
    typed = [*theirs(change), "data.recipe=s1k", "data.recipe_options={ngram: 8}"]
    refused(typed, "data.recipe_options.key_env is set there")


@pytest.mark.parametrize(
    "hub",
    [{"--writer=http://evil.example/": "x"}, {"set": "--key_env=HF_TOKEN"}, {"a/../b/c": "x"}],
)
def test_hub_ids_are_no_options(theirs, hub):
    refused(theirs({"data.recipe": "s1k", "data.hub": hub}), "data.hub.", "reach files or hosts")


def test_what_the_message_says_can_be_pasted(theirs):
    change = {
        "data.recipe": "s1k",
        "data.recipe_options": {"source": "it's $HOME.jsonl", "key_env": "MY_API_KEY"},
        "agents.critic.trust_remote_code": True,
    }
    typed = theirs(change)
    for _ in range(4):
        words = shlex.split(refused(typed).split(" add ", 1)[1].removesuffix(" to this command."))
        assert len(words) == 1
        typed += words
    config = compose(typed)
    assert config.data.recipe_options["source"] == "it's $HOME.jsonl"


def test_data_that_are_there_need_no_recipe(theirs, tmp_path):
    """The ordinary case: a run of one's own, whose data its recipe has made."""
    change = {"data.recipe": "relay", "data.recipe_options": {"train": 40, "source": "rows.jsonl"}}
    typed = theirs(change)
    refused(typed, "data.recipe_options.source is set")
    data = compose([*typed, "data.recipe=relay", "data.recipe_options.source=rows.jsonl"]).data
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / STAMP).write_text(json.dumps(wanted_stamp(data, 0)))
    assert compose(typed).data.recipe == "relay"
    refused([*typed, "seed=1"], "data.recipe_options.source is set")  # it would be made again


def test_narrower_limits_and_files_of_the_folder_are_fine(theirs):
    change = {"tools.memory_mib": 128, "tools.processes": 4, "data.test": "sub/test.jsonl"}
    assert compose(theirs(change | {"tracking": ["wandb"]})).tools.memory_mib == 128


@pytest.mark.parametrize("experiment", ["relay_mixture", "mixture", "sequential_light"])
def test_own_runs_of_the_shipped_experiments_need_nothing_typed(tmp_path, monkeypatch, experiment):
    monkeypatch.chdir(tmp_path)
    config = compose([f"experiment={experiment}"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_dict(config)))
    Path(config.data.folder).mkdir(parents=True)
    stamp = json.dumps(wanted_stamp(config.data, config.seed))
    Path(config.data.folder, STAMP).write_text(stamp)
    assert compose(["stage=eval", f"run={tmp_path}"]).agents == config.agents


# `{...}` is where an ordinary value may stand.
HIDDEN = {
    "plain": "'${oc.env:PLANTED}'",
    "hexadecimal": '"\\x24{oc.env:PLANTED}"',
    "unicode": '"\\u0024\\x7boc.env:PLANTED}"',
    "long unicode": '"\\U00000024{oc.env:PLANTED}"',
    "over two lines": '"$\\\n  {oc.env:PLANTED}"',
    "tagged": "!!str ${oc.env:PLANTED}",
    "block": "|-\n          ${oc.env:PLANTED}",
    "node": '"\\x24{data.name}"',
    "escaped": "'\\${oc.env:PLANTED}'",
    "inside": "'a/${oc.env:PLANTED}/b'",
    "nested": "'${oc.decode:${oc.env:PLANTED}}'",
}
PLACES = {
    "a text": "name: {}\n",
    "a list": "tools:\n  names:\n    - {}\n",
    "a value of a dictionary": "data:\n  role_texts:\n    critic: {}\n",
    "a key": "data:\n  role_texts:\n    ? {}\n    : x\n",
    "a merge": "x: &x\n  recipe: {}\ndata:\n  <<: *x\n",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_interpolations_are_refused_after_parsing(theirs, hidden, place):
    path = Path(theirs(text=PLACES[place].format(HIDDEN[hidden]))[1].removeprefix("run="))
    for read in (saved.saved_values, saved.from_file):
        with pytest.raises(ConfigError, match=r"theirs/config.yaml: .* holds '\$\{'"):
            read(path / "config.yaml")


def test_an_interpolation_shows_nothing_of_the_environment(theirs, monkeypatch, capsys):
    monkeypatch.setenv("PLANTED", "planted-value")
    assert main(theirs(text='name: "\\x24{oc.env:PLANTED}"\n')) == 2
    text = "".join(capsys.readouterr())
    assert len(text.splitlines()) == 1 and "planted-value" not in text and "name holds" in text


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("!!binary JHtvYy5lbnY6WH0=", "bytes"),
        ("2020-01-01", "date"),
        ("!!set {a, b}", "set"),
        ("!!omap [a: 1]", "tuple"),
    ],
)
def test_values_that_no_run_writes_are_refused(theirs, value, kind):
    refused(theirs(text=f"data:\n  recipe_options:\n    a: {value}\n"), f"a {kind}; a run writes")
