"""Stage two: the whole system unrolled; cross-entropy on the final answer trains every outer link.

In the last round the decoder is teacher-forced on the answer after its prompt. The gradient is
exact: through all rounds, all latent steps and the frozen agents (paper Eq. 6), unless
``clip_message`` bounds it or ``backward`` drops terms. The answer reaches no slot, so no message
depends on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rmas_train.agents.prompts import tokenise
from rmas_train.config import OuterConfig
from rmas_train.data.rows import Table
from rmas_train.engine.answer import answer_loss
from rmas_train.engine.gradient import Gradient
from rmas_train.engine.prefix import PrefixCache
from rmas_train.errors import TargetLeakWarning
from rmas_train.links.linkset import LinkSet
from rmas_train.objectives.message_clip import MessageClip
from rmas_train.recursion import EXACT, Backward, Team, unroll


def backward_of(stage: OuterConfig) -> Backward:
    """How the options say that gradients go back."""
    gradient = Gradient(stage.gradient, stage.gradient_steps or 1)
    return Backward(gradient, stage.gradient_rounds, stage.recompute == "agent")


class OuterObjective(nn.Module):
    """Cross-entropy on answer tokens after an unroll; one term.

    Args:
        team: frozen agents with prompts.
        links: all links.
        table: rows with an ``answer``.
        rounds: the largest depth; links that no gradient can reach at it are frozen here.
        latent_length: latent steps per rollout, 1 or more.
        train_inner: train the inner links too.
        clip_message: bound on a row's gradient at each of its messages, see ``MessageClip``; 0:
            none, the gradient is exact.
        backward: how gradients go back, see there; the default is exact.
        prefix_cache: bytes of frozen prefixes to keep over steps; 0: none.
        role_texts: agent -> column with the text that it reads instead of rolling out (the
            release's teacher forcing); its first ``latent_length`` tokens are sent.
    """

    def __init__(
        self,
        team: Team,
        links: LinkSet,
        table: Table,
        rounds: int,
        latent_length: int,
        *,
        train_inner: bool = False,
        clip_message: float = 0.0,
        backward: Backward = EXACT,
        prefix_cache: int = 0,
        role_texts: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.links = links
        self._team, self._table = team, table
        self._latent_length, self._train_inner = latent_length, train_inner
        self._clip = MessageClip(clip_message) if clip_message else None
        self._backward = backward
        self._cache = PrefixCache(prefix_cache) if prefix_cache else None
        self._role_texts = role_texts or {}
        if self._team.topology.decoder in self._role_texts and rounds > 1:
            warnings.warn(
                f"from round 2 on, the messages of {team.topology.decoder} hold states of the text "
                "that the loss asks for (training.outer.feedback=gold_answer, as in the release): "
                "a target leak that does not exist at inference.",
                TargetLeakWarning,
                stacklevel=2,
            )
        links.train_only(self.expected_links(rounds))

    def groups(self) -> dict[str, nn.Module]:
        return dict(self.links.trainable())

    def expected_links(self, rounds: int) -> set[str]:
        """Links that a gradient can reach at this depth."""
        topology, last = self._team.topology, self._backward.rounds
        names = {f"outer.{key}" for key in topology.live_edges(rounds, last)}
        # With hidden states on the edges, z feeds the next latent step only.
        feeds_z = self._latent_length > 1 and self._backward.gradient.links_latents
        if self._train_inner and (self._team.edge_input == "inner" or feeds_z):
            names |= {f"inner.{agent}" for agent in topology.rolling_agents(rounds, last)}
        return names

    def count(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor([sum(map(len, self._answers(rows)))])

    def forward(self, rows: Sequence[int], rounds: int) -> Tensor:
        chosen = [self._table.rows[i] for i in rows]
        deliver = self._clip.deliver if self._clip else None
        unrolled = unroll(
            self._team,
            self.links,
            chosen,
            rounds,
            self._latent_length,
            deliver=deliver,
            backward=self._backward,
            cache=self._cache,
            texts={name: self._texts(name, rows) for name in self._role_texts},
        )
        turn, every = unrolled.turn, self._answers(rows)
        losses = []
        for part in turn.parts(None):
            answers = [every[i] for i in part]
            batch, prefix = turn.open(part, unrolled.inbox, answers)
            losses.append(answer_loss(turn.agent, batch, prefix, answers))
        loss = torch.stack(losses).sum()
        if self._clip and loss.requires_grad:
            self._clip.measure(loss)
        return loss[None]

    def _answers(self, rows: Sequence[int]) -> list[list[int]]:
        """Answer token ids with the end token, per row."""
        return self._tokens(self._team.topology.decoder, "answer", rows)

    def _texts(self, name: str, rows: Sequence[int]) -> list[list[int]]:
        """Token ids of what an agent reads instead of rolling out."""
        texts = self._tokens(name, self._role_texts[name], rows)
        return [ids[: self._latent_length] for ids in texts]

    def _tokens(self, name: str, column: str, rows: Sequence[int]) -> list[list[int]]:
        agent = self._team.agents[name]
        texts = [str(self._table.rows[i][column]) for i in rows]
        return [[*ids, agent.end_id] for ids in tokenise(agent, texts, plain=True)]
