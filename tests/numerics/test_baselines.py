"""Baselines beside naive statements of what they do."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny import make_links, make_rows, make_team
from transformers import DynamicCache

from rmas_train.agents.prompts import Prompt
from rmas_train.config import Config, EvaluationConfig
from rmas_train.engine.decoding import Decoding
from rmas_train.engine.inputs import embed_prompts
from rmas_train.engine.kv_cache import new_cache
from rmas_train.registry import SYSTEMS
from rmas_train.systems.alone import Alone
from rmas_train.systems.base import SAMPLE, Ingredients, NotApplicable
from rmas_train.systems.budget import Budget, most_voted
from rmas_train.systems.latentmas import realignment
from rmas_train.systems.mixture import MixtureOfAgents, numbered

PROMPTS = {"single": {"user": "<<question>> go"}, "moa": {"user": "<<question>> <<proposals>> so"}}


def given(team, prompts=PROMPTS, **options):
    config = Config(latent_length=3, evaluation=EvaluationConfig(max_new_tokens=4))
    links = {"trained": make_links(team).requires_grad_(False)}
    return Ingredients(config, team, links, make_rows(4), prompts=prompts, **options)


def built(name, ingredients):
    entries = SYSTEMS.get(name)
    entries = entries(ingredients.team) if callable(entries) else [entries]
    return {entry.control: entry.build(ingredients) for entry in entries}


def alone(team, name, text):
    return Alone(Prompt(team.agents[name], {"user": text}), 4)


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_mixture_is_every_agent_on_every_answer_of_the_layer_before(team, rounds):
    rows, names = make_rows(4), list(team.agents)
    found = built("moa", given(team))[None].answer(rows, rounds)
    for row, answer in zip(rows, found, strict=True):
        said, tokens, read, asked = None, 0, 0, row
        for layer in range(rounds):
            text = PROMPTS["moa" if layer else "single"]["user"]
            own = [alone(team, name, text).answer([asked])[0] for name in names]
            tokens += sum(a.tokens for a in own)
            read += sum(a.prompt_tokens for a in own)
            said = "\n".join(f"{i}. {a.text.strip()}" for i, a in enumerate(own, 1))
            asked = row | {"proposals": said}
        (last,) = alone(team, "solver", PROMPTS["moa"]["user"]).answer([asked])
        assert answer.text == last.text
        assert answer.tokens == tokens + last.tokens
        assert answer.prompt_tokens == read + last.prompt_tokens


def test_a_looped_model_reads_its_own_states_before_it_writes(team):
    """Naive: one growing sequence, without a cache, for each question."""
    ingredients, rows = given(team), make_rows(3)
    links = ingredients.links["trained"]
    for name, system in built("looplm", ingredients).items():
        agent = team.agents[name]
        prompt = Prompt(agent, PROMPTS["single"])
        for rounds in (1, 2):
            for row, answer in zip(rows, system.answer(rows, rounds), strict=True):
                batch = embed_prompts(agent, prompt.encode([row], 1, first=True), {})
                with torch.no_grad():
                    for _ in range(3 * rounds):
                        state = new_cache(agent, None).read(batch)[:, -1:]
                        batch = batch.extend(links.inner[name](state).to(agent.dtype))
                    ids = []
                    while len(ids) < 4 and (not ids or ids[-1] not in agent.end_ids):
                        state = new_cache(agent, None).read(batch)[:, -1]
                        ids.append(int(agent.logits(state).argmax()))
                        batch = batch.extend(agent.embed(torch.tensor([ids[-1:]])))
                assert answer.latent_steps == 3 * rounds and answer.tokens == len(ids)
                assert answer.text == agent.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_budget_is_votes_over_as_many_answers_as_fit_into_the_latent_steps(team, rounds):
    rows, systems = make_rows(4), built("budget", given(team))
    assert set(systems) == set(team.agents)
    steps = 3 * (3 * rounds - 1)  # three agents in a row; the decoder's last call writes
    for system in systems.values():
        for row, answer in zip(rows, system.answer(rows, rounds), strict=True):
            texts, spent, wanted = [], 0, 1
            while len(texts) < wanted:
                sample = row | {SAMPLE: f"0 vote {len(texts)}"}
                (one,) = system.agent.answer([sample])
                wanted = 1 + steps // one.tokens if not texts else wanted
                texts.append(one.text)
                spent += one.tokens
            votes = Counter(text.strip() for text in texts if text.strip())
            assert answer.tokens == spent
            assert not votes or votes[answer.text.strip()] == max(votes.values())


def test_a_budget_is_read_by_the_grader(team):
    agent = replace(alone(team, "solver", "<<question>>"), decoding=Decoding(temperature=5.0))
    budget = Budget(agent, lambda rounds: 40 * rounds, lambda row, text: "same")
    rows = make_rows(3)
    first = agent.answer([row | {SAMPLE: "0 vote 0"} for row in rows])
    assert [a.text for a in budget.answer(rows, 1)] == [a.text for a in first]
    assert most_voted(["a", None, "b", "b"]) == 2 and most_voted([None, None]) == 0


def test_what_cannot_be_says_why(team):
    for name in ("single", "looplm", "budget", "moa"):
        for system in built(name, given(team, prompts={})).values():
            assert isinstance(system, NotApplicable) and "single.yaml" in system.why
    one_prompt = {"single": PROMPTS["single"]}
    assert "moa.yaml" in built("moa", given(team, prompts=one_prompt))[None].why
    silent = replace(given(team), config=Config(stage="eval", latent_length=0))
    for name in ("looplm", "budget", "thinking", "text_capped"):
        for system in built(name, silent).values():
            assert "latent_length is 0" in system.why
    assert "start" in built("start", given(team))["start"].why
    assert "single row" in built("mean", replace(given(team), rows=make_rows(1)))["mean"].why


def test_a_mixture_of_one_agent_is_that_agent_on_its_own_answer(team):
    agent, reader = alone(team, "solver", "<<question>>"), alone(team, "solver", "<<proposals>>")
    rows = make_rows(2)
    found = MixtureOfAgents([agent], [reader], reader).answer(rows, 1)
    for row, answer in zip(rows, found, strict=True):
        said = numbered(agent.answer([row]))
        assert reader.answer([{"proposals": said}])[0].text == answer.text


def one_model(agents):
    """Three roles of one model."""
    return make_team({name: replace(agents["solver"], name=name) for name in agents})


def naive_latentmas(team, row, steps, most):
    """The library's cache, handed from role to role; one row, one position at a time."""
    agent = team.agents["solver"]
    model = agent.model
    w_in, w_out = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    gram = w_out.T @ w_out + 1e-5 * torch.eye(w_out.shape[1], dtype=w_out.dtype)
    matrix = torch.linalg.inv(gram) @ w_out.T @ w_in
    norm = w_in.norm(dim=1).mean()
    cache, names = DynamicCache(), ["planner", "critic", "solver"]

    def read(embeds):
        out = model.base_model(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
        return out.last_hidden_state[0, -1]

    for name in names:
        (prompt,) = team.prompts[name].encode([row], 1, first=True)
        state = read(agent.embed(torch.tensor([prompt.ids])))
        for _ in range(steps if name != "solver" else 0):
            z = state @ matrix
            state = read((z * norm / z.norm())[None, None])
    ids = []
    while len(ids) < most:
        ids.append(int(agent.logits(state).argmax()))
        if ids[-1] in agent.end_ids:
            break
        state = read(agent.embed(torch.tensor([ids[-1:]])))
    return agent.tokenizer.decode(ids, skip_special_tokens=True), len(ids)


@torch.no_grad()
def test_latentmas_hands_over_keys_and_values(agents64):
    team, rows = one_model(agents64), make_rows(4)
    rows[1]["question"] += " one two three"  # padding between the prompts of the others
    found = built("latentmas", replace(given(team), rows=rows))[None].answer(rows)
    for row, answer in zip(rows, found, strict=True):
        assert (answer.text, answer.tokens) == naive_latentmas(team, row, 3, 4)
        assert answer.latent_steps == 6
    agent = team.agents["solver"]
    hidden = torch.randn(5, agent.width, dtype=torch.float64)
    norms = realignment(agent)(hidden).norm(dim=-1)
    mean = agent.model.get_input_embeddings().weight.norm(dim=1).mean()
    torch.testing.assert_close(norms, mean.expand(5), rtol=1e-6, atol=0)


def test_latentmas_needs_one_model(team):
    system = built("latentmas", given(team))[None]
    assert isinstance(system, NotApplicable) and "3 models" in system.why
