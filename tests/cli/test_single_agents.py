"""Each agent by itself, given everything, by a prompt file of its own."""

import json
import re

import pytest

import rmas_train
from rmas_train.__main__ import main
from rmas_train.support.output import stop_log

ASKED = ["evaluation.systems=[single]", "training.inner.steps=1", "training.outer.steps=1"]


@pytest.fixture(autouse=True)
def logs():
    yield
    stop_log()


def write_prompt(workspace, user):
    (workspace / "prompts" / "single.yaml").write_text(json.dumps({"user": user}))


def answers(run):
    records = map(json.loads, (run / "eval" / "answers.jsonl").read_text().splitlines())
    return [r for r in records if r["system"] == "single"]


def test_each_model_answers_alone_as_the_library_generates(overrides, workspace, agent_folders):
    """Two roles of one model are one agent; the texts are those of ``generate``."""
    write_prompt(workspace, "<<question>> go")
    typed = [*overrides, *ASKED, f"agents.critic.model={agent_folders['planner']}"]
    assert main(typed) == 0
    found = answers(workspace / "run")
    assert {r["control"] for r in found} == {"planner", "solver"}
    team = rmas_train.load(workspace / "run").team
    questions = {r["line"]: r for r in found if r["control"] == "solver" and r["rounds"] == 1}
    rows = [json.loads(x) for x in (workspace / "data" / "test.jsonl").read_text().splitlines()]
    agent = team.agents["solver"]
    for line, row in enumerate(rows, 1):
        text = agent.tokenizer.apply_chat_template(
            [{"role": "user", "content": f"{row['question']} go"}],
            add_generation_prompt=True,
            tokenize=False,
        )
        ids = agent.tokenizer(text, add_special_tokens=False, return_tensors="pt")
        made = agent.model.generate(**ids, max_new_tokens=3, do_sample=False)
        own = made[0, ids["input_ids"].shape[1] :]
        assert questions[line]["text"] == agent.tokenizer.decode(own, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (None, r"evaluation.systems=\[single\]: no file .*prompts/single.yaml; write the prompt"),
        ("<<nothing>> go", r"test.jsonl.*nothing"),
        ("<<message:critic>> go", r"single.yaml: slot <<message:critic>>, but critic sends"),
    ],
)
def test_a_missing_or_wrong_prompt_is_told_first(overrides, workspace, capsys, user, message):
    if user is not None:
        write_prompt(workspace, user)
    assert main([*overrides, *ASKED]) == 2
    said = capsys.readouterr()
    assert re.search(message, said.err + said.out)
    assert not (workspace / "run" / "inner").exists()
