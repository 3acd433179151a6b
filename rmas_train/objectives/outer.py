"""Stage two: the whole system unrolled; cross-entropy on the final answer trains every outer link.

In the last round the decoder is teacher-forced on the answer after its prompt. The gradient is
exact: through all rounds, all latent steps and the frozen agents (paper Eq. 6), unless
``clip_message`` bounds it or an option drops terms. The answer reaches no slot, so no message
depends on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from rmas_train.agents.prompts import tokenise_whole
from rmas_train.channels import LatentChannel
from rmas_train.config import Config
from rmas_train.data.rows import Row, Table, is_within_reach
from rmas_train.engine.inputs import Message
from rmas_train.engine.prompt_batch import PrefixStore
from rmas_train.errors import ConfigError, TargetLeakWarning
from rmas_train.links.link_set import LinkSet
from rmas_train.objectives.base import Objective
from rmas_train.objectives.message_clip import MessageClip
from rmas_train.objectives.message_noise import MessageNoise
from rmas_train.objectives.outer_options import (
    ALONE,
    EXACT,
    Aids,
    Backward,
    aids_of,
    backward_of,
    role_text_columns,
)
from rmas_train.objectives.profile import MessageProfile
from rmas_train.objectives.teachers import TextTeacher, own_answer_loss
from rmas_train.recursion import Call, Intervention, Recursion, Team, last_call
from rmas_train.runs.load import Loaded
from rmas_train.topology import Edge


class OuterObjective(Objective):
    """Cross-entropy on answer tokens after an unroll; one term, or with text's messages two.

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
        prefixes: keeps frozen prefixes over steps.
        role_texts: agent -> column with the text that it reads instead of rolling out (the
            release's teacher forcing); its first ``latent_length`` tokens are sent.
        row_means: the answer's loss is the mean over rows of a row's mean over its tokens (the
            release), not over all tokens.
        end_token: whether the loss counts what ends the decoder's turn.
        shuffled: each row gets the messages of the next row in its micro-batch, so that the links
            learn the answer's format and no content.
        aids: beside the answer's loss.
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
        prefixes: PrefixStore | None = None,
        role_texts: Mapping[str, str] | None = None,
        row_means: bool = False,
        end_token: bool = True,
        shuffled: bool = False,
        aids: Aids = ALONE,
    ) -> None:
        super().__init__(links)
        self.team, self._table, self._rounds, self._aids = team, table, rounds, aids
        self._latent_length, self._train_inner = latent_length, train_inner
        self._end_token, self._shuffled, self._row_means = end_token, shuffled, row_means
        self._clip = MessageClip(clip_message) if clip_message else None
        self._backward = backward
        self._prefixes = prefixes or PrefixStore()
        channel = LatentChannel.of(
            team,
            links,
            latent_length,
            gradient=backward.gradient,
            recompute=backward.recompute,
            role_texts=role_texts or {},
        )
        self._recursion = Recursion(
            team, channel, gradient_rounds=backward.rounds, prefixes=self._prefixes
        )
        self.profile = self._profile = MessageProfile(channel)
        self._teacher = TextTeacher(team, aids.text) if aids.text else None
        if team.topology.decoder in (role_texts or {}) and rounds > 1:
            warnings.warn(
                f"from round 2 on, the messages of {team.topology.decoder} hold states of the text "
                "that the loss asks for (training.outer.feedback=gold_answer, as in the release): "
                "a target leak that does not exist at inference.",
                TargetLeakWarning,
                stacklevel=2,
            )
        links.train_only(self.expected_links(rounds))

    @classmethod
    def from_config(cls, config: Config, loaded: Loaded, links: LinkSet) -> Self:
        """As ``training.outer`` says."""
        options = config.training.outer
        return cls(
            loaded.team,
            links,
            loaded.train,
            config.rounds,
            config.latent_length,
            train_inner=options.train_inner,
            clip_message=options.clip_message,
            backward=backward_of(options),
            prefixes=loaded.prefix_store(int(options.prefix_cache_gib * 2**30)),
            role_texts=role_text_columns(config, loaded),
            row_means=options.loss_mean == "row",
            end_token=options.end_token,
            shuffled=options.messages == "shuffled",
            aids=aids_of(config),
        )

    def expected_links(self, rounds: int) -> set[str]:
        topology, last = self.team.topology, self._backward.rounds
        names = {f"outer.{key}" for key in topology.live_edges(rounds, last)}
        # With hidden states on the edges, z feeds the next latent step only.
        feeds_z = self._latent_length > 1 and self._backward.gradient.links_latents
        if self._train_inner and (self.team.edge_input == "inner" or feeds_z):
            names |= {f"inner.{agent}" for agent in topology.rolling_agents(rounds, last)}
        return names

    def count(self, rows: Sequence[int]) -> Tensor:
        counted = len(rows) if self._row_means else sum(map(len, self.answers(rows)))
        return torch.tensor([counted, len(rows)] if self._teacher else [counted])

    def forward(self, rows: Sequence[int], rounds: int) -> Tensor:
        """Summed loss: of answers, and where text's messages are targets, of messages."""
        answers, aids = self.answers(rows), self._aids
        texts = self._teacher.read(self._rows(rows), rounds) if self._teacher else {}
        earlier: list[Tensor] = []
        messages: list[Tensor] = []
        answering = range(1, rounds + 1) if aids.earlier_rounds else None
        for call in self.unroll(rows, rounds, answering):
            is_decoder = call.agent == self.team.topology.decoder
            if aids.earlier_rounds and is_decoder and call.round < rounds:
                earlier += self._within_reach(call, answers)
            if self._teacher and call.edges:
                messages.append(self._teacher.loss(call, texts) / len(texts))
        loss = call.answer_loss(answers, self._row_means)
        if earlier:
            loss = loss + aids.earlier_rounds / (rounds - 1) * torch.stack(earlier).sum()
        if aids.self_distill and rounds < self._rounds:
            loss = loss + aids.self_distill * self._own_answer_loss(call, rows, answers)
        loss = self.bounded(loss)
        if not messages:
            return torch.stack([loss, loss * 0]) if self._teacher else loss[None]
        return torch.stack([loss, aids.text_messages * torch.stack(messages).sum()])

    def _within_reach(self, call: Call, answers: Sequence[list[int]]) -> list[Tensor]:
        """The answer's loss after this round, on the rows that it can solve; or nothing."""
        own = [
            ids if is_within_reach(row, call.round) else []
            for row, ids in zip(call.rows, answers, strict=True)
        ]
        return [call.answer_loss(own, self._row_means)] if any(own) else []

    def _own_answer_loss(
        self, call: Call, rows: Sequence[int], answers: Sequence[list[int]]
    ) -> Tensor:
        with torch.no_grad():
            deeper = last_call(self.unroll(rows, self._rounds))
        return own_answer_loss(call, deeper, answers, self._row_means)

    def unroll(
        self, rows: Sequence[int], rounds: int, answer_rounds: Iterable[int] | None = None
    ) -> Iterator[Call]:
        """The calls of the training rows with these indices, see ``Recursion.unroll``."""
        changes: list[Intervention] = [next_rows_message] if self._shuffled else []
        if self._aids.message_noise:
            noise = MessageNoise(self._aids.message_noise, self._aids.seed, self.step, list(rows))
            changes.append(noise)
        changes += [self._clip] if self._clip else []
        calls = self._recursion.unroll(
            self._rows(rows), rounds, interventions=changes, answer_rounds=answer_rounds
        )
        return self._profile.watch(calls)

    def _rows(self, rows: Sequence[int]) -> list[Row]:
        return [self._table.rows[i] for i in rows]

    def answers(self, rows: Sequence[int]) -> list[list[int]]:
        """Answer token ids of each row, as the loss counts them."""
        decoder = self.team.agents[self.team.topology.decoder]
        texts = [str(self._table.rows[i]["answer"]) for i in rows]
        return tokenise_whole(decoder, texts, self._end_token)

    def bounded(self, loss: Tensor) -> Tensor:
        """The loss itself, whose gradient at each message will keep ``clip_message``."""
        if self._clip and loss.requires_grad:
            self._clip.measure(loss)
        return loss

    def kept_bytes(self) -> int:
        return self._prefixes.bytes

    def kept_limit(self) -> int:
        return self._prefixes.limit


def next_rows_message(message: Message, edge: Edge, round_: int) -> Message:
    """Each row gets the message of the next one, and the last row that of the first.

    Raises:
        ConfigError: there is one row.
    """
    count = len(message.tensors()[0])
    if count < 2:
        raise ConfigError(
            f"training.outer.messages=shuffled: one row in a micro-batch (edge {edge.key}, round "
            f"{round_}); raise training.outer.batch_size or micro_batch_size, or take fewer "
            "processes."
        )
    return message.rows([*range(1, count), 0])
