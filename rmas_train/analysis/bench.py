"""What a measurement has: a system with its links and test rows, ready to be unrolled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import tokenise_whole
from rmas_train.channels import LatentChannel
from rmas_train.config import Config
from rmas_train.engine.rollout import at_least_float32
from rmas_train.evaluation.graders import Grader, make_grader
from rmas_train.links.link_set import LinkSet
from rmas_train.recursion import Call, Intervention, Recursion, Team, last_call

Rows = list[dict[str, Any]]
Ids = list[list[int]]


@dataclass
class Bench:
    """A system on its test rows.

    Attributes:
        config: of the run.
        team: agents, prompts, topology.
        links: that are looked at; frozen.
        rows: test rows.
        start: the links as the outer stage began; None where nobody kept them.
        valid: rows to fit a rule on; none: a part of ``rows``.
    """

    config: Config
    team: Team
    links: LinkSet
    rows: Rows
    start: LinkSet | None = None
    valid: Rows | None = None

    @property
    def decoder(self) -> Agent:
        return self.team.agents[self.team.topology.decoder]

    @cached_property
    def grader(self) -> Grader:
        return make_grader(self.config)

    def batches(self, rows: Rows | None = None) -> Iterator[Rows]:
        rows, size = self.rows if rows is None else rows, self.config.evaluation.batch_size
        for begin in range(0, len(rows), size):
            yield rows[begin : begin + size]

    def unroll(
        self,
        rows: Sequence[dict[str, Any]],
        interventions: Sequence[Intervention] = (),
        answer_rounds: Iterable[int] | None = None,
        links: LinkSet | None = None,
    ) -> Iterator[Call]:
        """The calls of an unroll of ``rounds`` rounds; ``links``: others than the system's."""
        channel = LatentChannel.of(self.team, links or self.links, self.config.latent_length)
        recursion = Recursion(self.team, channel)
        depth = self.config.rounds
        return recursion.unroll(
            rows, depth, interventions=interventions, answer_rounds=answer_rounds
        )

    def last(self, rows: Rows, interventions: Sequence[Intervention] = ()) -> Call:
        """The decoder's last call."""
        return last_call(self.unroll(rows, interventions))

    def gold(self, rows: Rows) -> Ids:
        """Token ids of the rows' answers, with their end."""
        return self.tokens([str(row["answer"]) for row in rows])

    def own(self, call: Call) -> Ids:
        """Token ids of what the decoder writes in this call, as it writes them."""
        return [list(text.ids) for text in call.write(self.config.evaluation.max_new_tokens)]

    def tokens(self, texts: list[str]) -> Ids:
        """Token ids of the decoder's texts, with their end."""
        return tokenise_whole(self.decoder, texts)

    def targets(self, rows: Rows) -> Ids:
        """Token ids of the answers that ``analysis.target`` is about."""
        if self.config.analysis.target == "loss":
            return self.gold(rows)
        with torch.no_grad():
            return self.own(self.last(rows))

    def scores(self, call: Call, ids: Ids, odds: bool = False) -> Tensor:
        """Per row, how likely an answer is, (B,): the mean over its tokens of log p.

        ``odds``: of log(p / (1 - p)), which does not level off where the system is sure, and so has
        a gradient there.
        """
        return mean_log_p(self.decoder, call.answer_states(ids), ids, odds)


def mean_log_p(agent: Agent, states: Sequence[Tensor], ids: Ids, odds: bool = False) -> Tensor:
    """Per row, the mean over tokens of log p, or of log(p / (1 - p)), (B,).

    Args:
        agent: whose output layer reads the states.
        states: per row, the state before each token, see ``Call.answer_states``.
        ids: tokens per row.
        odds: of p against everything else.
    """
    logits_NV = at_least_float32(agent.logits(torch.cat(list(states))))
    labels_N = torch.tensor([i for row in ids for i in row], device=logits_NV.device)
    log_p_N = -F.cross_entropy(logits_NV, labels_N, reduction="none")
    if odds:
        others_NV = logits_NV.scatter(1, labels_N[:, None], float("-inf"))
        log_p_N = log_p_N - (others_NV.logsumexp(-1) - logits_NV.logsumexp(-1))
    return torch.stack([x.mean() for x in log_p_N.split([len(row) for row in ids])])
