"""Stage two: the whole system unrolled; cross-entropy on the final answer trains every outer link.

In the last round the decoder is teacher-forced on the answer after its prompt. The gradient is
exact: through all rounds, all latent steps and the frozen agents (paper Eq. 6), unless
``clip_message`` bounds it. The answer reaches no slot, so no message depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmas_train.agents.prompts import tokenise
from rmas_train.agents.rollout import answer_logits, at_least_float32
from rmas_train.agents.sequences import embed_batch
from rmas_train.data.rows import Table
from rmas_train.links.linkset import LinkSet
from rmas_train.recursion import Team, unroll
from rmas_train.training.gradients import MessageClip

IGNORED = -100


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
        checkpoint: run each agent call again in backward, see ``unroll``.
    """

    def __init__(
        self,
        team: Team,
        links: LinkSet,
        table: Table,
        rounds: int,
        latent_length: int,
        train_inner: bool = False,
        clip_message: float = 0.0,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.links = links
        self._team, self._table = team, table
        self._latent_length, self._train_inner = latent_length, train_inner
        self._clip = MessageClip(clip_message) if clip_message else None
        self._checkpoint = checkpoint
        links.train_only(self.expected_links(rounds))

    def groups(self) -> dict[str, nn.Module]:
        return dict(self.links.trainable())

    def expected_links(self, rounds: int) -> set[str]:
        """Links that a gradient can reach at this depth."""
        topology = self._team.topology
        names = {f"outer.{key}" for key in topology.live_edges(rounds)}
        # With hidden states on the edges, z feeds the next latent step only: one step uses no z.
        uses_z = self._team.edge_input == "inner" or self._latent_length > 1
        if self._train_inner and uses_z:
            names |= {f"inner.{agent}" for agent in topology.rolling_agents(rounds)}
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
            checkpoint=self._checkpoint,
        )
        decoder = self._team.agents[self._team.topology.decoder]
        answers = self._answers(rows)
        embeds_BLD, mask_BL = embed_batch(decoder, unrolled.prompts, unrolled.inbox, answers)
        longest = max(map(len, answers))
        logits_BAV = answer_logits(decoder, embeds_BLD, mask_BL, longest + 1)[:, :-1]
        labels_BA = torch.tensor([[IGNORED] * (longest - len(a)) + a for a in answers])
        loss = F.cross_entropy(
            at_least_float32(logits_BAV).flatten(0, 1),
            labels_BA.to(logits_BAV.device).flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        if self._clip and loss.requires_grad:
            self._clip.measure(loss)
        return loss[None]

    def _answers(self, rows: Sequence[int]) -> list[list[int]]:
        """Answer token ids with the end token, per row."""
        decoder = self._team.agents[self._team.topology.decoder]
        texts = [self._table.rows[i]["answer"] for i in rows]
        return [[*ids, decoder.end_id] for ids in tokenise(decoder, texts, plain=True)]
