"""Stage one: each agent's inner link learns to turn a hidden state into the next input embedding.

Loss, for every position t whose next token belongs to the agent's own text (paper Eq. 5, as the
released code reads it): 1 - cos(inner(h_t), e(y_{t+1})), mean over valid tokens. The agents are
independent terms of one sum: each is divided by its own count, clipped by itself, and AdamW works
per parameter, so training them together equals training each alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import tokenise_whole
from rmas_train.config import Config, DataConfig
from rmas_train.data.rows import Row, Table
from rmas_train.engine.inputs import embed_ids, pad_left, read_whole
from rmas_train.engine.rollout import at_least_float32, rollout
from rmas_train.errors import ConfigError
from rmas_train.links.link_set import LinkSet
from rmas_train.objectives.base import Objective
from rmas_train.recursion import Team
from rmas_train.runs.load import Loaded
from rmas_train.runs.tables import role_sequences


class InnerObjective(Objective):
    """Cosine regression of every agent's inner link; one term per agent.

    Args:
        team: frozen agents with prompts; of some agents only, where ranks share them out.
        links: the inner links of all agents.
        table: rows with the role texts; or agent -> its own table, of which row i is taken modulo
            its length.
        data: which column holds whose text.
        inner_states: ``teacher_forced`` regresses the states of the given text; ``rollout`` the
            agent's own rolled-out states (detached: the states are data, the link is trained).
        latent_length: steps of that rollout.
    """

    def __init__(
        self,
        team: Team,
        links: LinkSet,
        table: Table | Mapping[str, Table],
        data: DataConfig,
        inner_states: str = "teacher_forced",
        latent_length: int = 0,
    ) -> None:
        super().__init__(links)
        missing = [n for n in team.topology.agents if n not in data.role_texts]
        if missing:
            raise ConfigError(
                f"stage=inner needs a text that {missing[0]} should write; set "
                f"data.role_texts.{missing[0]}=<column>."
            )
        links.train_only({f"inner.{n}" for n in links.inner})
        self._team, self._data = team, data
        self._tables = dict.fromkeys(links.inner, table) if isinstance(table, Table) else table
        self._rollout_length = latent_length if inner_states == "rollout" else None

    @classmethod
    def from_config(cls, config: Config, loaded: Loaded, links: LinkSet) -> Self:
        """Of all agents that ``loaded.team`` has, with their own rows."""
        states = config.training.inner.inner_states
        tables = loaded.tables.inner
        return cls(loaded.team, links, tables, config.data, states, config.latent_length)

    def count(self, rows: Sequence[int]) -> Tensor:
        counts = []
        for name in self.links.inner:
            if name not in self._team.agents:
                counts.append(0)
                continue
            agent = self._team.agents[name]
            column = self._data.role_texts[name]
            texts = [str(row[column]) for row in self._rows(name, rows)]
            lengths = [len(ids) for ids in tokenise_whole(agent, texts)]
            counts.append(sum(map(self._used, lengths)))
        return torch.tensor(counts)

    def forward(self, rows: Sequence[int], rounds: int = 1) -> Tensor:  # noqa: ARG002
        terms = {n: self._term(a, rows) for n, a in self._team.agents.items() if rows}
        device = next(iter(self.links.parameters())).device
        every = [terms.get(n, self._nothing(n)) for n in self.links.inner]
        return torch.stack([term.to(device) for term in every])

    def _nothing(self, name: str) -> Tensor:
        """Zero with a graph: ranks that reduce together need gradients of the same links."""
        return torch.stack([p.sum() for p in self.links.inner[name].parameters()]).sum() * 0

    def expected_links(self, rounds: int = 1) -> set[str]:  # noqa: ARG002
        return set(self.groups())

    def _sequences(self, name: str, rows: Sequence[int]) -> list[tuple[list[int], list[int]]]:
        return role_sequences(self._team, self._data, name, self._rows(name, rows))

    def _rows(self, name: str, rows: Sequence[int]) -> list[Row]:
        table = self._tables[name]
        return [table.rows[i % len(table)] for i in rows]

    def _used(self, length: int) -> int:
        return length if self._rollout_length is None else min(length, self._rollout_length)

    def _term(self, agent: Agent, rows: Sequence[int]) -> Tensor:
        sequences = self._sequences(agent.name, rows)
        if self._rollout_length is None:
            states_ND, targets_N = teacher_forced_states(agent, sequences)
        else:
            inner = self.links.inner[agent.name]
            states_ND, targets_N = rolled_out_states(agent, inner, sequences, self._rollout_length)
        return cosine_loss(self.links.inner[agent.name], states_ND, agent.embed(targets_N))


def cosine_loss(link: nn.Module, states_ND: Tensor, embeds_ND: Tensor) -> Tensor:
    """Sum over N tokens of 1 - cos(link(h), e)."""
    return (1 - torch.cosine_similarity(link(states_ND), at_least_float32(embeds_ND), dim=-1)).sum()


@torch.no_grad()
def teacher_forced_states(
    agent: Agent, sequences: Sequence[tuple[list[int], list[int]]]
) -> tuple[Tensor, Tensor]:
    """States h_t that precede each target token, (N, d), and these tokens, (N,)."""
    whole = [p + t for p, t in sequences]
    own_BL, _ = pad_left([[0] * len(p) + [1] * len(t) for p, t in sequences], 0)
    next_is_own = own_BL[:, 1:].bool()
    hidden_BLD = read_whole(agent, embed_ids(agent, whole))
    tokens_N = pad_left(whole, agent.pad_id)[0][:, 1:][next_is_own].to(agent.device)
    return at_least_float32(hidden_BLD[:, :-1][next_is_own.to(agent.device)]), tokens_N


@torch.no_grad()
def rolled_out_states(
    agent: Agent,
    inner: nn.Module,
    sequences: Sequence[tuple[list[int], list[int]]],
    latent_length: int,
) -> tuple[Tensor, Tensor]:
    """States of the agent's own rollout beside the target tokens of the same index."""
    hidden_BMD, _ = rollout(
        agent, inner, embed_ids(agent, [p for p, _ in sequences]), latent_length
    )
    states, tokens = [], []
    for i, (_, target) in enumerate(sequences):
        used = min(len(target), latent_length)
        states.append(hidden_BMD[i, :used])
        tokens += target[:used]
    return torch.cat(states), torch.tensor(tokens, device=agent.device)
