"""Gradient-based connections (GBC) through text edges: what each text owes to those it was given.

Text is discrete, so no gradient crosses an agent that writes. GBC (arXiv 2606.28187) takes one
gradient per generation over its prompt (the prefix gradient): the prompt's embeddings are leaves,
the scalar is of the outputs (here the mean log-probability of what was written), and a parent's
weight is the mean over its tokens of the L1 norm of the gradient, or of gradient times embedding.
Weights rank the parents of one text; they say nothing of later ones.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rmas_train.analysis.bench import Bench, Ids, mean_log_p
from rmas_train.channels import TextChannel
from rmas_train.config import Config
from rmas_train.engine.inputs import LatentMessage, Message
from rmas_train.recursion import Call, Recursion

Place = tuple[int, str]


class TextAttribution:
    """``analyses=[text_attribution]``."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def run(self, bench: Bench) -> list[dict[str, Any]]:
        """Per round and edge: mean ``gradient`` and ``times_input``, and the share of ``first``:
        rows in which no other parent of the same text weighs more."""
        found: dict[Place, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
        length = self._config.evaluation.max_new_tokens
        channel = TextChannel(length, translations=self._config.data.translations)
        for rows in bench.batches():
            for call in Recursion(bench.team, channel).unroll(rows, self._config.rounds):
                if call.inbox:
                    written = call.sent.ids or [text.ids for text in call.write(length)]
                    self._add(found, call, weights(call, [list(ids) for ids in written]))
        return [
            {"round": round_, "edge": edge}
            | {name: torch.cat(parts).mean().item() for name, parts in by_name.items()}
            for (round_, edge), by_name in sorted(found.items())
        ]

    def _add(
        self,
        found: dict[Place, dict[str, list[Tensor]]],
        call: Call,
        weighed: dict[str, dict[str, Tensor]],
    ) -> None:
        most_B = torch.stack([own["gradient"] for own in weighed.values()]).amax(0)
        for source, own in weighed.items():
            place = found[call.round, f"{source}-{call.agent}"]
            for name, value_B in own.items():
                place[name].append(value_B)
            place["first"].append((own["gradient"] == most_B).float())


def weights(call: Call, written: Ids) -> dict[str, dict[str, Tensor]]:
    """Source -> ``gradient`` and ``times_input`` of its text for what this call wrote, (B,) each.

    Args:
        call: of a text unroll, with messages in its inbox.
        written: token ids of what the agent wrote, per row.
    """
    agent = call.prompts.agent
    leaves: dict[str, Message] = {}
    counts: dict[str, list[int]] = {}
    vectors: dict[str, Tensor] = {}
    for source, message in call.inbox.items():
        slot = message.slot(agent)
        ids, counts[source] = slot.ids or [], slot.counts
        width = max([1, *slot.counts])
        padded = [row + [agent.pad_id] * (width - len(row)) for row in ids]
        with torch.no_grad():
            embeds_BLD = agent.embed(torch.tensor(padded, device=agent.device))
        vectors[source] = embeds_BLD.detach().requires_grad_()
        leaves[source] = LatentMessage(vectors[source], slot.counts)
    filled = call.prompts.filled(leaves)
    with torch.enable_grad():
        states = replace(call, prompts=filled).answer_states(written)
        total = mean_log_p(agent, states, written).sum()
    gradients = torch.autograd.grad(total, list(vectors.values()), allow_unused=True)
    found = {}
    for (source, x_BLD), grad in zip(vectors.items(), gradients, strict=True):
        g_BLD = torch.zeros_like(x_BLD) if grad is None else grad
        found[source] = {
            "gradient": _mean(g_BLD.float().abs().sum(-1), counts[source]),
            "times_input": _mean((g_BLD * x_BLD).float().abs().sum(-1), counts[source]),
        }
    return found


def _mean(x_BL: Tensor, counts: list[int]) -> Tensor:
    """Over each row's tokens that count; 0 where it has none."""
    pairs = zip(x_BL, counts, strict=True)
    return torch.stack([x[:count].mean() if count else x.new_zeros(()) for x, count in pairs])
