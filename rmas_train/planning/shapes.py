"""Systems of which only shapes exist: models on the meta device, prompts that are token counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from rmas_train.agents.agent import Agent, freeze
from rmas_train.agents.prompts import EncodedPrompt
from rmas_train.config import AgentConfig, Config, LinksConfig
from rmas_train.data.rows import Table
from rmas_train.engine.inputs import Batch
from rmas_train.engine.kv_cache import KVCache, is_recurrent
from rmas_train.links.link_set import LinkSet, draw_links
from rmas_train.links.readout import bind_readouts
from rmas_train.loading import shape as loading_shape
from rmas_train.loading.model_files import find_source, quiet
from rmas_train.loading.quantised import bits_of
from rmas_train.recursion import Team
from rmas_train.runs.load import Loaded
from rmas_train.runs.tables import Tables
from rmas_train.topology import Topology


@dataclass(frozen=True)
class Tokens:
    """Lengths of the longest row.

    Attributes:
        prefix, suffix: before and after the slots of a prompt.
        answer: with its end token.
    """

    prefix: int
    suffix: int
    answer: int


class CountedPrompt:
    """A prompt of given length.

    ``ragged``: all rows but the first lack one token, so that masks are counted (recurrent layers
    read masks back from the device, which meta cannot do).
    """

    def __init__(self, sources: Sequence[str], tokens: Tokens, ragged: bool) -> None:
        self._sources, self._tokens, self._ragged = sources, tokens, ragged

    def encode(self, rows: Sequence[Any], round_: int, first: bool) -> list[EncodedPrompt]:  # noqa: ARG002
        found = []
        for i in range(len(rows)):
            prefix = max(1, self._tokens.prefix - (self._ragged and i > 0))
            slots = [] if first else [(source, prefix) for source in self._sources]
            found.append(EncodedPrompt([1] * (prefix + self._tokens.suffix), slots))
        return found


class CountedTokenizer:
    """Texts that are numbers stand for as many tokens; shapes need no words."""

    pad_token_id = eos_token_id = 0

    def get_added_vocab(self) -> dict[str, int]:
        return {}

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1] * int(text) for text in texts]}


def read_shape(name: str, config: AgentConfig) -> Any:
    """A language model's configuration, without its weights."""
    return loading_shape.read_shape(find_source(name, config), config)


def layer_unit(shape: Any) -> int:
    """Layers after which the pattern of layer types repeats."""
    kinds = getattr(shape, "layer_types", None) or ["full_attention"]
    return next(
        p
        for p in range(1, len(kinds) + 1)
        if all(kind == kinds[i % p] for i, kind in enumerate(kinds))
    )


def shape_agent(
    name: str, shape: Any, config: AgentConfig, layers: int | None = None, device: str = "meta"
) -> Agent:
    """An agent with all or with so many layers; elsewhere than on meta its weights are random."""
    shape = deepcopy(shape)
    if layers is not None:
        shape.num_hidden_layers = layers
        if kinds := getattr(shape, "layer_types", None):
            shape.layer_types = [kinds[i % len(kinds)] for i in range(layers)]
    try:
        with torch.device(device), quiet():
            model = AutoModelForCausalLM.from_config(
                shape,
                dtype=getattr(torch, config.on("cpu").dtype),
                attn_implementation=config.attention,
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what a family makes of sizes that do not fit together
        source = find_source(name, config)
        raise source.error(loading_shape.explain(source, error, "config.json")) from error
    return freeze(Agent(name, model, CountedTokenizer(), config.model, template="none"))


def check_shape(name: str, shape: Any, config: AgentConfig) -> None:
    """Two tokens go through its first layers, so its sizes fit together.

    Raises:
        AgentError: they do not; names the agent.
    """
    agent = shape_agent(name, shape, config, layer_unit(shape))
    embeds_BLD = torch.zeros(1, 2, agent.width, dtype=agent.dtype, device="meta")
    real_BL = torch.ones(1, 2, dtype=torch.bool, device="meta")
    try:
        with torch.no_grad():
            batch = Batch(embeds_BLD, real_BL, real_BL.long(), full=True)
            agent.logits(KVCache(agent).read(batch))
    except Exception as error:  # what a family makes of sizes that do not fit together
        source = find_source(name, config)
        raise source.error(loading_shape.explain(source, error, "config.json")) from error


def count_parameters(name: str, config: AgentConfig) -> int:
    """Of a whole agent, from its configuration alone."""
    agent = shape_agent(name, read_shape(name, config), config)
    return sum(p.numel() for p in agent.model.parameters())


def weight_bytes(agent: Agent, shape: Any, config: AgentConfig) -> int:
    """Memory of an agent's weights; of quantised ones, the linear layers but the last."""
    bits = bits_of(shape, config.quantization)
    total = sum(p.numel() * p.element_size() for p in agent.model.parameters())
    if bits is None:
        return total
    linear = [m.weight for m in agent.model.base_model.modules() if isinstance(m, torch.nn.Linear)]
    return total - sum(int(w.numel() * (w.element_size() - bits / 8)) for w in linear)


def shape_team(
    agents: Mapping[str, Agent],
    topology: Topology,
    options: LinksConfig,
    tokens: Mapping[str, Tokens],
) -> Team:
    prompts: Any = {}
    for name, agent in agents.items():
        sources = [e.source for e in topology.incoming(name)]
        prompts[name] = CountedPrompt(sources, tokens[name], ragged=not is_recurrent(agent))
    return Team(dict(agents), prompts, topology, options.edge_input, options.message_update)


def shape_rows(config: Config, tokens: Mapping[str, Tokens], count: int) -> Table:
    """Rows of the longest answers and role texts, as numbers of tokens."""
    end = 1  # the end-of-text token, which every text gets
    role = str(max(1, config.latent_length))
    columns = dict.fromkeys(config.data.role_texts.values(), role)
    columns["answer"] = str(tokens[config.topology.decoder].answer - end)
    return Table(Path("shapes"), [dict(columns) for _ in range(count)])


def shape_loaded(
    config: Config,
    topology: Topology,
    agents: Mapping[str, Agent],
    tokens: Mapping[str, Tokens],
    rows: int,
) -> Loaded:
    """A run of which only shapes are loaded, for ``build_objective``."""
    team = shape_team(agents, topology, config.links, tokens)
    table = shape_rows(config, tokens, rows)
    return Loaded(config, team, Tables(table, table, dict.fromkeys(agents, table)), {}, {})


def shape_links(config: LinksConfig, topology: Topology, agents: Mapping[str, Agent]) -> LinkSet:
    widths = {name: agent.width for name, agent in agents.items()}
    with torch.device("meta"):
        links = draw_links(config, topology, widths, dict.fromkeys(widths, 1.0), seed=0)
    bind_readouts(links, agents, topology, config, share=_all_rows)
    return links


def _all_rows(source: Agent, target: Agent) -> list[tuple[int, int]]:
    """Without tokenizers: as if every string of the smaller vocabulary were shared."""
    return [(i, i) for i in range(min(source.rows, target.rows))]
