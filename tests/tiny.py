"""Builders of tiny agents, teams and rows."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3_5TextConfig,
    Qwen3Config,
)

from rmas_train.agents.agent import Agent, freeze
from rmas_train.agents.prompts import Prompt
from rmas_train.config import EdgeConfig, LinksConfig, TopologyConfig
from rmas_train.links.link_set import LinkSet, draw_links
from rmas_train.recursion import Team
from rmas_train.topology import Topology, build_topology

WORDS = "one two three four five six seven eight nine ten red green blue note go so"
CHAT = (
    "{% for m in messages %}<|s|>{{ m.role }} {{ m.content }}<|e|>{% endfor %}"
    "{% if add_generation_prompt %}<|s|>assistant{% endif %}"
)
NO_SYSTEM_CHAT = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + CHAT.replace("m.content", "m.content | trim")
)
TINY = {
    "planner": (Qwen3Config, {"hidden_size": 24, "head_dim": 12}, "alpha beta gamma"),
    "critic": (LlamaConfig, {"hidden_size": 32, "head_dim": 16}, "delta epsilon"),
    "solver": (Qwen2Config, {"hidden_size": 28}, "zeta eta theta iota kappa"),
}
FAMILIES = {
    "qwen3": (Qwen3Config, {"head_dim": 12}),
    "llama": (LlamaConfig, {"head_dim": 16}),
    "qwen2": (Qwen2Config, {}),
    "mistral": (MistralConfig, {"sliding_window": 6}),
    "gemma3": (
        Gemma3TextConfig,
        {
            "head_dim": 12,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 12,
        },
    ),
    "qwen3_5": (
        Qwen3_5TextConfig,
        {
            "head_dim": 16,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_key_heads": 1,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),
}
SEQUENTIAL = TopologyConfig(
    name="sequential",
    order=["planner", "critic", "solver"],
    edges=[
        EdgeConfig(source="planner", target="critic"),
        EdgeConfig(source="critic", target="solver"),
        EdgeConfig(source="solver", target="planner", next_round=True),
    ],
    decoder="solver",
)


def make_tokenizer(
    extra: str = "", chat: str = CHAT, spaces: str = "byte"
) -> PreTrainedTokenizerFast:
    """A real tokenizer; ``spaces``: ``byte`` (GPT-2's alphabet) or ``visible`` (sentencepiece)."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=spaces == "visible"))
    if spaces == "byte":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
        alphabet = [chr(i) for i in range(32, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|p|>", "<|s|>", "<|e|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator([f" {WORDS} {extra} user assistant system"] * 5, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|e|>",
        pad_token="<|p|>",
        extra_special_tokens=["<|s|>"],
        chat_template=chat,
        padding_side="left",
    )


def make_agent(name: str, chat: str = CHAT) -> Agent:
    """A frozen random model of the family that ``TINY`` gives this name."""
    config_class, sizes, extra = TINY[name]
    tokenizer = make_tokenizer(extra, chat, "visible" if name == "critic" else "byte")
    return random_agent(name, config_class, sizes, tokenizer)


def make_family(family: str, name: str, tokenizer=None, **options) -> Agent:
    """The same of any family; ``options`` of its config, and a tokenizer of one's own."""
    config_class, sizes = FAMILIES[family]
    tokenizer = tokenizer or make_tokenizer(name)
    return random_agent(name, config_class, {"hidden_size": 24} | sizes | options, tokenizer)


def random_agent(name: str, config_class: type, sizes: dict, tokenizer) -> Agent:
    torch.manual_seed(len(name))
    options = {
        "vocab_size": len(tokenizer),
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "initializer_range": 0.2,
    }
    config = config_class(**options | sizes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return freeze(Agent(name, model, tokenizer, f"tiny/{name}"))


def make_team(agents: dict[str, Agent], edge_input: str = "inner") -> Team:
    prompts = {}
    topology = build_topology(SEQUENTIAL, agents)
    for name, agent in agents.items():
        source = topology.incoming(name)[0].source
        prompts[name] = Prompt(agent, {"user": f"<<question>> note <<message:{source}>> go"})
    return Team(agents, prompts, topology, edge_input)


def make_links(team: Team, topology: Topology | None = None, seed: int = 1, **options) -> LinkSet:
    """Random links with non-zero last layers."""
    widths = {n: a.width for n, a in team.agents.items()}
    config = LinksConfig(init="default", **options)
    return draw_links(config, topology or team.topology, widths, dict.fromkeys(widths, 1.0), seed)


def make_rows(count: int, first: int = 0) -> list[dict]:
    words = WORDS.split()
    return [
        {
            "question": " ".join(words[(i * 7 + k) % 13] for k in range(1 + i % 4)),
            "answer": f" {words[i % 10]}",
            "rounds_needed": 1 + i % 2,
            "plan": f" {words[(i + 1) % 10]} so",
            "refined_plan": f" {words[(i + 2) % 10]}",
            "solution": f" {words[i % 10]}",
            "feedback": "" if i % 2 else " two",
        }
        for i in range(first, first + count)
    ]


def write_rows(path: Path, count: int, first: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in make_rows(count, first)))


def write_workspace(folder):
    """Data and prompts of a tiny task."""
    write_rows(folder / "data" / "train.jsonl", 24)
    write_rows(folder / "data" / "test.jsonl", 6, first=100)
    prompts = folder / "prompts"
    prompts.mkdir()
    for name, source in (("planner", "solver"), ("critic", "planner"), ("solver", "critic")):
        text = {"user": f"<<question>> note <<message:{source}>> go"}
        (prompts / f"{name}.yaml").write_text(json.dumps(text))


class ExactRMSNorm(torch.nn.Module):
    """RMSNorm in its input's precision; transformers' own falls back to float32 inside."""

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = torch.nn.Parameter(weight, requires_grad=False), eps

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


def exact_norm(norm) -> torch.nn.Module:
    """The same norm in its input's precision, or itself where it computes something else."""
    weight = getattr(norm, "weight", None)
    eps = getattr(norm, "variance_epsilon", None) or getattr(norm, "eps", None)
    if weight is None or eps is None:
        return norm
    x = torch.randn(3, weight.shape[0], dtype=weight.dtype)
    for gain in (weight, 1 + weight):  # Gemma's families add one
        exact = ExactRMSNorm(gain.detach().clone(), eps)
        with torch.no_grad():
            if torch.allclose(exact(x), norm(x), rtol=1e-4, atol=1e-4):
                return exact
    return norm


def in_float64(agent: Agent) -> Agent:
    """The agent in true float64, for finite differences."""
    model = agent.model.double()
    random = torch.get_rng_state()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm") and not isinstance(child, ExactRMSNorm):
                setattr(parent, name, exact_norm(child))
    torch.set_rng_state(random)
    return freeze(agent)
