"""The prompts of every style, task and round, and the published bugs that they must not have."""

from pathlib import Path

import pytest
from tiny import make_family

from rmas_train.agents.prompt_files import read_prompt
from rmas_train.agents.prompts import make_prompt
from rmas_train.compose import compose
from rmas_train.config import DataConfig
from rmas_train.errors import DataError
from rmas_train.recursion import Team
from rmas_train.runs.tables import role_sequences
from rmas_train.support.reading import parse_yaml
from rmas_train.topology import build_topology

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "prompts" / "tasks"
SENTENCES = {p.stem: parse_yaml(p.read_text()) for p in TASKS.glob("*.yaml")}
# What cannot be part of another task's words by chance.
WHOLE = {t: [v for k, v in s.items() if k != "problem"] for t, s in SENTENCES.items()}
STYLES = ("sequential", "mixture", "distillation", "deliberation")
ROW = {"question": "How many legs have three <<beetles>>?", "answer": "18"}


@pytest.fixture(scope="module")
def agents():
    return {}


def style_team(style, task, agents) -> Team:
    config = compose(["experiment=none", f"topology={style}"]).topology
    for name in config.order:
        agents.setdefault(name, make_family("qwen3", name))
    topology = build_topology(config, config.order)
    prompts = {
        n: make_prompt(
            agents[n], read_prompt(ROOT / "prompts" / style, n, TASKS, task), n, topology.sources(n)
        )
        for n in config.order
    }
    return Team({n: agents[n] for n in config.order}, prompts, topology)


def text(team, name, round_, first=False):
    (one,) = team.prompts[name].encode([ROW], round_, first=first)
    return team.agents[name].tokenizer.decode(one.ids), [s for s, _ in one.slots]


CASES = [(style, task) for style in STYLES for task in sorted(SENTENCES)]


def test_all_four_tasks_say_the_same_things():
    assert sorted(SENTENCES) == ["choice", "code", "math", "qa"]
    assert len({tuple(sorted(s)) for s in SENTENCES.values()}) == 1


@pytest.mark.parametrize(("style", "task"), CASES)
def test_slots_question_and_task_stand_in_every_round(style, task, agents):
    """The release's planner got the mathematics prompt for code from round 2 on."""
    team = style_team(style, task, agents)
    for name in team.agents:
        for round_ in (1, 2, 3):
            for first in (True, False):
                body, slots = text(team, name, round_, first)
                assert ROW["question"] in body
                assert slots == ([] if first else team.topology.sources(name))
                said = {t for t, s in WHOLE.items() if any(v in body for v in s)}
                assert said == {task}, (name, round_, first)


@pytest.mark.parametrize(("style", "task"), CASES)
def test_the_round_is_its_own_number(style, task, agents):
    """The release's prompt said "round 2" in every later round."""
    team = style_team(style, task, agents)
    for edge in team.topology.edges:
        if edge.next_round:
            for round_ in (2, 3, 7):
                body, _ = text(team, edge.target, round_)
                said = [n for n in range(1, 10) if f"round {n}" in body]
                assert said == [round_]


@pytest.mark.parametrize(("style", "task"), CASES)
def test_no_mark_is_left_in_any_prompt_or_training_sequence(style, task, agents):
    """The release's tool-caller was trained with the literal mark of its slot in the prompt."""
    team = style_team(style, task, agents)
    row = ROW | {f"text_{n}": f"words of {n}" for n in team.agents}
    row |= {f"back_{n}": f"earlier words of {n}" for n in team.agents}
    data = DataConfig(
        role_texts={n: f"text_{n}" for n in team.agents},
        feedback_texts={e.source: f"back_{e.source}" for e in team.topology.edges if e.next_round},
    )
    for name, agent in team.agents.items():
        for first in (True, False):
            assert "<<" not in text(team, name, 2, first)[0].replace("<<beetles>>", "")
        ((prompt, target),) = role_sequences(team, data, name, [row])
        body = agent.tokenizer.decode(prompt)
        assert "<<" not in body.replace("<<beetles>>", "")
        assert agent.tokenizer.decode(target).lstrip().startswith(f"words of {name}")
        for edge in team.topology.incoming(name):
            said = f"earlier words of {edge.source}" if edge.next_round else f"of {edge.source}"
            assert said in body


@pytest.mark.parametrize("style", STYLES)
def test_what_changes_by_round_stands_behind_the_first_slot(style, agents):
    """So that the prefix is read once for all rounds."""
    team = style_team(style, "math", agents)
    for prompt in team.prompts.values():
        cuts = [prompt.encode([ROW], r, first=False)[0] for r in (2, 3)]
        a, b = (one.ids[: one.slots[0][1]] for one in cuts)
        assert a == b


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (None, r"planner\.yaml: differs by task; set data\.task, one of choice, code, math, qa"),
        ("maths", r"data\.task=maths: .*Did you mean 'math'"),
    ],
)
def test_a_task_that_is_not_there_is_named(task, message):
    with pytest.raises(DataError, match=message):
        read_prompt(ROOT / "prompts" / "sequential", "planner", TASKS, task)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("finnish: x", "task math has no finish.*Did you mean 'finnish'"),
        ("finish: 3", "key 'finish' holds 3"),
        ("finish: <<question>>", "a text without marks"),
        ("just text", "not keys with sentences"),
        ("[", "not valid YAML"),
    ],
)
def test_bad_task_files_are_named(tmp_path, content, message):
    (tmp_path / "math.yaml").write_text(content)
    (tmp_path / "solver.yaml").write_text("user: <<task:finish>>")
    with pytest.raises(DataError, match=message) as caught:
        read_prompt(tmp_path, "solver", tmp_path, "math")
    assert "\n" not in str(caught.value)
