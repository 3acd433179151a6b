"""Stage two: the whole system unrolled; cross-entropy on the final answer trains every outer link.

In the last round the decoder is teacher-forced on the answer after its prompt. The gradient is
exact: through all rounds, all latent steps and the frozen agents (paper Eq. 6), unless
``clip_message`` bounds it or an option drops terms. The answer reaches no slot, so no message
depends on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rmas_train.agents.prompts import tokenise_whole
from rmas_train.channels import LatentChannel
from rmas_train.config import Config, OuterConfig
from rmas_train.data.rows import Table
from rmas_train.engine.inputs import Message
from rmas_train.engine.prompt_batch import PrefixStore
from rmas_train.engine.rollout import FULL, Gradient
from rmas_train.errors import ConfigError, TargetLeakWarning
from rmas_train.links.modules import LinkSet
from rmas_train.objectives.base import Objective
from rmas_train.objectives.message_clip import MessageClip
from rmas_train.recursion import Call, Intervention, Recursion, Team, last_call
from rmas_train.runs.load import Loaded
from rmas_train.topology import Edge


@dataclass(frozen=True)
class Backward:
    """How gradients go back through an unroll; the default is exact.

    Attributes:
        gradient: through each rollout.
        rounds: only this many of the last rounds keep a graph, see ``Recursion``.
        recompute: run each call again in backward, see ``LatentChannel``.
    """

    gradient: Gradient = FULL
    rounds: int | None = None
    recompute: bool = False


EXACT = Backward()


class OuterObjective(Objective):
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
        prefixes: keeps frozen prefixes over steps.
        role_texts: agent -> column with the text that it reads instead of rolling out (the
            release's teacher forcing); its first ``latent_length`` tokens are sent.
        end_token: whether the loss counts what ends the decoder's turn.
        shuffled: each row gets the messages of the next row in its micro-batch, so that the links
            learn the answer's format and no content.
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
        end_token: bool = True,
        shuffled: bool = False,
    ) -> None:
        super().__init__(links)
        self.team, self._table = team, table
        self._latent_length, self._train_inner = latent_length, train_inner
        self._end_token, self._shuffled = end_token, shuffled
        self._clip = MessageClip(clip_message) if clip_message else None
        self._backward = backward
        self._prefixes = prefixes or PrefixStore()
        self._recursion = Recursion(
            team,
            LatentChannel(
                links,
                latent_length,
                team.edge_input,
                gradient=backward.gradient,
                recompute=backward.recompute,
                role_texts=role_texts or {},
            ),
            gradient_rounds=backward.rounds,
            prefixes=self._prefixes,
        )
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
            end_token=options.end_token,
            shuffled=options.messages == "shuffled",
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
        return torch.tensor([sum(map(len, self.answers(rows)))])

    def forward(self, rows: Sequence[int], rounds: int) -> Tensor:
        decoder = last_call(self.unroll(rows, rounds))
        return self.bounded(decoder.answer_loss(self.answers(rows)))[None]

    def unroll(
        self, rows: Sequence[int], rounds: int, answer_rounds: Iterable[int] | None = None
    ) -> Iterator[Call]:
        """The calls of the training rows with these indices, see ``Recursion.unroll``."""
        chosen = [self._table.rows[i] for i in rows]
        changes: list[Intervention] = [next_rows_message] if self._shuffled else []
        changes += [self._clip] if self._clip else []
        return self._recursion.unroll(
            chosen, rounds, interventions=changes, answer_rounds=answer_rounds
        )

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


def backward_of(options: OuterConfig) -> Backward:
    """How the options say that gradients go back."""
    gradient = Gradient(options.gradient, options.gradient_steps or 1)
    return Backward(gradient, options.gradient_rounds, options.recompute == "agent")


def role_text_columns(config: Config, loaded: Loaded) -> dict[str, str]:
    """``latents: teacher_forced``: agent -> column of the text whose states it sends.

    Raises:
        ConfigError: an agent has no such column.
    """
    options, data = config.training.outer, config.data
    if options.latents == "rollout":
        return {}
    decoder, columns = loaded.team.topology.decoder, {}
    for name in loaded.team.topology.agents:
        if name != decoder:
            if name not in data.role_texts:
                raise ConfigError(
                    f"training.outer.latents=teacher_forced needs a text of {name}; set "
                    f"data.role_texts.{name}=<column>."
                )
            columns[name] = data.role_texts[name]
    loaded.train.require(columns.values(), "for training.outer.latents=teacher_forced")
    return columns | ({decoder: "answer"} if options.feedback == "gold_answer" else {})
