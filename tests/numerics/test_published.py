"""Every family of conf/agents/ at toy width, as it is published: config, weights, chat template."""

import json
import sys
import warnings
from pathlib import Path

import pytest
import torch
from naive import own_text
from safetensors.torch import load_file
from tiny import SEQUENTIAL, make_links, make_rows
from transformers import AutoModelForCausalLM, Gemma3ForConditionalGeneration

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import Prompt, tokenise_whole
from rmas_train.config import AgentConfig
from rmas_train.engine.answer import generate
from rmas_train.engine.loading import load_agent
from rmas_train.engine.prompt_batch import UnrollPrefixes, make_prompt_batch
from rmas_train.objectives.outer import OuterObjective
from rmas_train.planning.shapes import check_shape, read_shape, shape_agent, weight_bytes
from rmas_train.recursion import Team
from rmas_train.topology import build_topology

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import replica_agents  # noqa: E402

SHAPES = (
    *("gemma3_4b", "qwen3_5_4b", "llama3_2_1b", "qwen3_1_7b", "qwen2_5_math_1_5b"),
    *("biomistral_7b", "deepseek_r1_distill_qwen_1_5b", "qwen2_5_coder_3b"),
)
COMPOSITE = ("gemma3_4b", "qwen3_5_4b")
TEXTS = ["one two three four", "red green blue note go so", "user assistant system Today Date"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    for name in SHAPES:
        family = replica_agents.family_of(name)
        tokenizer = replica_agents.make_tokenizer(family, TEXTS * 20, 400)
        model = replica_agents.make_model(ROOT / "shapes" / name / "config.json", tokenizer, 0)
        replica_agents.save_as_published(model, root / name)
        tokenizer.save_pretrained(root / name)
        more = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("two")[0])
        ends = json.dumps({"eos_token_id": [tokenizer.eos_token_id, more]})
        (root / name / "generation_config.json").write_text(ends)
    return root


def load(published, name) -> Agent:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_agent("planner", AgentConfig(model=str(published / name)))


@pytest.mark.parametrize("name", SHAPES)
def test_it_loads_plans_and_ends_where_the_library_ends(published, name):
    agent = load(published, name)
    assert agent.attends_to_blocks
    settings = AgentConfig(model=str(published / name))
    shape = read_shape("planner", settings)
    check_shape("planner", shape, settings)
    planned = weight_bytes(shape_agent("planner", shape, settings), shape, settings)
    assert planned == sum(p.numel() * p.element_size() for p in agent.model.parameters())
    model = AutoModelForCausalLM.from_pretrained(published / name)
    prompt = Prompt(agent, {"system": "be red", "user": "<<question>> go"})
    encoded = prompt.encode(make_rows(4), 1, first=True)
    for one in encoded:
        batch, prefix = make_prompt_batch(agent, [one], UnrollPrefixes(), {}).embed([0])
        (text,) = generate(agent, batch, prefix, 12)
        out = model.generate(torch.tensor([one.ids]), do_sample=False, max_new_tokens=12)
        new = out[0, len(one.ids) :]
        assert text.tokens == len(new)
        assert text.text == agent.tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("name", SHAPES)
def test_a_step_trains_through_it(published, name, table):
    agents = {n: load(published, name) for n in SEQUENTIAL.order}
    agents = {
        n: Agent(n, a.model, a.tokenizer, a.source, attends_to_blocks=a.attends_to_blocks)
        for n, a in agents.items()
    }
    topology = build_topology(SEQUENTIAL, agents)
    prompts = {
        n: Prompt(a, {"user": f"<<question>> note <<message:{topology.sources(n)[0]}>> go"})
        for n, a in agents.items()
    }
    team = Team(agents, prompts, topology)
    links = make_links(team)
    objective = OuterObjective(team, links, table(make_rows(3)), 2, 2)
    objective([0, 1, 2], 2).sum().backward()
    grads = [p.grad for n, p in links.named_parameters() if n.startswith("outer")]
    assert all(g is not None and g.isfinite().all() for g in grads)
    assert all(g.norm() > 0 for g in grads if g.dim() == 2)
    assert tokenise_whole(agents["solver"], ["one two"]) == [own_text(agents["solver"], "one two")]


@pytest.mark.parametrize("layout", ["language_model.model.", "model.language_model."])
def test_composite_gemma_loads_as_its_text_model(published, tmp_path, layout):
    from safetensors.torch import save_file

    folder = tmp_path / "gemma"
    folder.mkdir()
    for file in (published / "gemma3_4b").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    (embedding,) = (k for k in tensors if k.endswith("embed_tokens.weight"))
    before = embedding.removesuffix("embed_tokens.weight")
    renamed = {
        layout + k.removeprefix(before) if k.startswith(before) else k: v
        for k, v in tensors.items()
    }
    assert any("vision" in key for key in renamed)
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    agent = load_agent("planner", AgentConfig(model=str(folder)))
    whole = Gemma3ForConditionalGeneration.from_pretrained(published / "gemma3_4b").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(agent.model(ids).logits, whole(input_ids=ids).logits)


def test_a_text_part_that_lacks_a_tensor_is_refused(published, tmp_path):
    from safetensors.torch import save_file

    from rmas_train.errors import AgentError

    folder = tmp_path / "gemma"
    folder.mkdir()
    for file in (published / "gemma3_4b").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    gone = next(k for k in tensors if "layers.1" in k and "down_proj" in k and "vision" not in k)
    save_file({k: v for k, v in tensors.items() if k != gone}, folder / "model.safetensors")
    with pytest.raises(AgentError, match=r"model\.safetensors: 1 tensors are missing"):
        load_agent("planner", AgentConfig(model=str(folder)))
