"""Each agent by itself, given everything, by a prompt file of its own."""

import json
import re

import pytest

import rmas_train
from rmas_train.__main__ import main
from rmas_train.support.output import stop_log

AGENTS = ("planner", "critic", "solver")
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
        ("<<nothing>> go", r"test.jsonl.*nothing"),
        ("<<message:critic>> go", r"single.yaml: slot <<message:critic>>, but critic sends"),
    ],
)
def test_a_wrong_prompt_is_told_first(overrides, workspace, capsys, user, message):
    write_prompt(workspace, user)
    assert main([*overrides, *ASKED]) == 2
    said = capsys.readouterr()
    assert re.search(message, said.err + said.out)
    assert not (workspace / "run" / "inner").exists()


def test_a_missing_prompt_is_told_first_and_its_systems_are_not_applicable(
    overrides, workspace, capsys
):
    asked = ["evaluation.systems=[single,moa,budget]", *ASKED[1:]]
    assert main([*overrides, *asked]) == 0
    said = capsys.readouterr().out
    told = said.index("prompts/single.yaml; without it not applicable: single, moa, budget")
    assert told < said.index("inner 1/1")
    results = json.loads((workspace / "run" / "results.json").read_text())
    missing = {(one["system"], one["control"]) for one in results["not_applicable"]}
    alone = {(name, agent) for name in ("single", "budget") for agent in AGENTS}
    assert missing == {("moa", None), *alone}
    assert "not applicable: there is no single.yaml among the prompts" in said
    page = (workspace / "run" / "report" / "index.html").read_text()
    assert "Not applicable" in page and "single.yaml" in page
    rows = json.loads((workspace / "run" / "eval" / "results.json").read_text())["rows"]
    assert {row["system"] for row in rows} == {"latent"}
