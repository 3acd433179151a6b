"""An unroll gone through to its end, with all that its calls sent."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rmas_train.channels import LatentChannel, TextChannel
from rmas_train.objectives.outer_options import EXACT, Backward
from rmas_train.recursion import Call, Recursion, Team
from rmas_train.systems.text import TextSystem


@dataclass
class Unrolled:
    """``messages``: (round, edge) -> vectors as sent; ``decoder``: the last call."""

    messages: dict[tuple[int, str], Tensor]
    calls: list[Call]

    @property
    def decoder(self) -> Call:
        return self.calls[-1]


def unroll(
    team: Team,
    links,
    rows,
    rounds: int,
    latent_length: int,
    *,
    chunk: int | None = None,
    interventions=(),
    backward: Backward = EXACT,
    role_texts=None,
) -> Unrolled:
    channel = LatentChannel(
        links,
        latent_length,
        team.edge_input,
        gradient=backward.gradient,
        recompute=backward.recompute,
        role_texts=role_texts or {},
    )
    recursion = Recursion(team, channel, gradient_rounds=backward.rounds)
    calls, messages = [], {}
    for call in recursion.unroll(rows, rounds, chunk=chunk, interventions=interventions):
        calls.append(call)
        for edge in call.edges:
            messages[call.round, edge.key] = call.messages[edge.key].vectors
    return Unrolled(messages, calls)


def answer_in_text(team: Team, rows, rounds: int, *, max_new_tokens, batch_size, **options):
    return TextSystem(team, max_new_tokens, batch_size, **options).answer(rows, rounds)


__all__ = ["TextChannel", "Unrolled", "answer_in_text", "unroll"]
