"""The vocabulary read-out: from a hidden state to the embedding of the text that it would write.

A hidden state after the final norm is made to be read by the output head; it is no embedding. The
*expected embedding* under the agent's own next-token distribution is one: a mean of rows that some
agent knows how to read. As a thought it goes back into the agent (Soft Thinking, arXiv 2505.15778;
LatentMAS's realignment, arXiv 2511.20639, solves for a linear map with the same aim). As a message
it is taken over the strings that source and target share, with the *target's* embeddings:

    p(s | h) = softmax over shared s of logit_source(s | h) / temperature
    message(h) = sum over s of p(s | h) * e_target(s)

Exact gradient. Softmax and mean are in float32 or more; logits are in the agent's dtype, as the
agent itself has them. Where vectors are many, probabilities are computed again in backward, so that
little of the width of a vocabulary is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rmas_train.agents.agent import Agent
from rmas_train.config import LinksConfig
from rmas_train.engine.recompute import recompute
from rmas_train.engine.rollout import at_least_float32
from rmas_train.links.link_set import LinkSet
from rmas_train.links.modules import Link
from rmas_train.links.vocabulary import shared_tokens
from rmas_train.topology import Topology

BLOCK_BYTES = 2**26  # of one block of float32 probabilities, or of embeddings


@dataclass(frozen=True)
class Readout:
    """Hidden states (..., d_source) -> expected embeddings (..., d_target).

    Attributes:
        agent: whose hidden states, and next-token distribution.
        table: embeddings (S, d_target) of the S strings, in their agent's dtype.
        ids: the agent's token ids (S,) of these strings; None: all of its own, in order.
        temperature: of the distribution.
        top_k: only so many of the likeliest strings; None: all.
    """

    agent: Agent
    table: Tensor
    ids: Tensor | None = None
    temperature: float = 1.0
    top_k: int | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        hidden_ND = hidden.reshape(-1, hidden.shape[-1])
        size = max(1, BLOCK_BYTES // (4 * self.agent.rows))
        if len(hidden_ND) <= size:  # its probabilities may stay for backward
            found_ND = self._expected(hidden_ND)[0]
        else:
            parts = hidden_ND.split(size)
            found_ND = torch.cat([recompute(self._expected, [part], [])[0] for part in parts])
        return found_ND.reshape(*hidden.shape[:-1], self.table.shape[1])

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:  # copies of a link share its agent
        return self

    def probabilities(self, hidden_ND: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of the strings, (N, S); or of the ``top_k`` likeliest, (N, k), and which these are."""
        logits_NV = self.agent.logits(hidden_ND.to(self.agent.dtype))
        if self.ids is None:
            logits_NS = logits_NV[:, : len(self.table)]
        else:
            logits_NS = logits_NV.index_select(1, self.ids)
        scaled_NS = at_least_float32(logits_NS) / self.temperature
        if self.top_k is None or self.top_k >= scaled_NS.shape[1]:
            return scaled_NS.softmax(-1), None
        best_NK, which_NK = scaled_NS.topk(self.top_k)
        return best_NK.softmax(-1), which_NK

    def _expected(self, hidden_ND: Tensor) -> tuple[Tensor]:
        p_NS, which_NK = self.probabilities(hidden_ND)
        if which_NK is not None:
            return ((p_NS[..., None] * self.table[which_NK].to(p_NS.dtype)).sum(1),)
        mean: Tensor = _Mean.apply(p_NS, self.table)
        return (mean,)


class _Mean(torch.autograd.Function):
    """p @ table in p's dtype, without a copy of the whole table in that dtype."""

    @staticmethod
    def forward(ctx: Any, p_NS: Tensor, table_SD: Tensor) -> Tensor:
        ctx.table = table_SD
        mean_ND = p_NS.new_zeros(len(p_NS), table_SD.shape[1])
        for begin, block in _blocks(table_SD, p_NS.dtype):
            mean_ND += p_NS[:, begin : begin + len(block)] @ block
        return mean_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        blocks = _blocks(ctx.table, grads[0].dtype)
        return torch.cat([grads[0] @ block.T for _, block in blocks], dim=1), None


def _blocks(table_SD: Tensor, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
    """(first row, rows in ``dtype``) of a table."""
    size = max(1, BLOCK_BYTES // (4 * table_SD.shape[1]))
    for begin in range(0, len(table_SD), size):
        yield begin, table_SD[begin : begin + size].to(dtype)


Share = Callable[[Agent, Agent], list[tuple[int, int]]]  # of source and target: pairs of ids


def shared_ids(source: Agent, target: Agent) -> list[tuple[int, int]]:
    """Token ids of the strings that both agents share."""
    return shared_tokens(source.tokenizer, target.tokenizer)


def bind_readouts(
    links: LinkSet,
    agents: Mapping[str, Agent],
    topology: Topology,
    options: LinksConfig,
    share: Share = shared_ids,
) -> None:
    """Give the links that need one their read-out; those of agents that are not here get none."""
    if options.readout == "hidden":
        return
    how: dict[str, Any] = {"temperature": options.temperature, "top_k": options.top_k}
    own: dict[int, Tensor] = {}  # by model: roles that share its weights share the table too
    for name, agent in agents.items():
        if name in links.inner:
            if id(agent.model) not in own:
                own[id(agent.model)] = own_table(agent)
            _bind(links.inner[name], Readout(agent, own[id(agent.model)], None, **how))
    for edge in topology.edges:
        both = edge.source in agents and edge.target in agents
        if options.readout == "vocabulary" and edge.key in links.outer and both:
            source, target = agents[edge.source], agents[edge.target]
            readout = shared_readout(source, target, share(source, target), **how)
            _bind(links.outer[edge.key], readout)


def shared_readout(
    source: Agent, target: Agent, pairs: Sequence[tuple[int, int]], **how: Any
) -> Readout:
    """The read-out of an edge: over the strings with these ids."""
    ids_S = torch.tensor([a for a, _ in pairs], device=source.device)
    theirs_S = torch.tensor([b for _, b in pairs], device=target.device)
    with torch.no_grad():
        table_SD = for_means(target.embed(theirs_S).to(source.device))
    return Readout(source, table_SD, ids_S, **how)


def own_table(agent: Agent) -> Tensor:
    """What the embedding module returns for every id; the weight itself where that is the same."""
    module = agent.model.get_input_embeddings()
    rows = min(agent.rows, agent.model.get_output_embeddings().weight.shape[0])
    if type(module) is torch.nn.Embedding:
        return for_means(module.weight.detach()[:rows])
    with torch.no_grad():
        return for_means(agent.embed(torch.arange(rows, device=agent.device)))


def for_means(table_SD: Tensor) -> Tensor:
    """On a CPU in float32: to convert a table at every use takes longer than the product itself."""
    return at_least_float32(table_SD) if table_SD.device.type == "cpu" else table_SD


def tables(links: LinkSet) -> list[Tensor]:
    """Embeddings that the read-outs of these links hold, each once."""
    bound = [link.bound_readout for link in links.links().values()]
    return list({id(b.table): b.table for b in bound if isinstance(b, Readout)}.values())


def _bind(link: Any, readout: Readout) -> None:
    assert isinstance(link, Link)
    if link.has_readout:
        link.bound_readout = readout
