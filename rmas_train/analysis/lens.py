"""What messages say: in the target's nearest tokens, through the source's own logits, and how far
they are from the answer (the paper's Figure 7).

Cosine of a vector and a token embedding says what a message resembles, not what its target makes of
it: a vector may be far from every token and be read well. ``to_other_answer`` is the control: only
what exceeds it is about the row.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import tokenise
from rmas_train.analysis.bench import Bench
from rmas_train.config import Config
from rmas_train.engine.inputs import LatentMessage
from rmas_train.engine.rollout import at_least_float32
from rmas_train.recursion import Call
from rmas_train.topology import Edge

ROWS_AT_ONCE = 2**14  # of a vocabulary


class Lens:
    """``analyses=[lens]``."""

    def __init__(self, config: Config) -> None:
        self._options = config.analysis

    @torch.no_grad()
    def run(self, bench: Bench) -> dict[str, Any]:
        """``distance``: per round and edge, mean cosines; ``examples``: rows, vector by vector."""
        found: dict[tuple[int, str], dict[str, list[Tensor]]] = defaultdict(
            lambda: defaultdict(list)
        )
        examples: list[dict[str, Any]] = [
            {"question": row["question"], "answer": row["answer"], "messages": []}
            for row in bench.rows[: self._options.examples]
        ]
        done = 0
        for rows in bench.batches():
            answers = [str(row["answer"]) for row in rows]
            for call in bench.unroll(rows):
                for edge in call.edges:
                    vectors_BMD = _vectors(call, edge)
                    target = bench.team.agents[edge.target]
                    own_BN = answer_cosines(target, vectors_BMD, answers)
                    here = found[call.round, edge.key]
                    here["to_answer"].append(own_BN.diagonal())
                    here["to_other_answer"].append(own_BN.roll(-1, 1).diagonal())
                    self._write_out(examples[done : done + len(rows)], call, edge, target)
            done += len(rows)
        return {
            "distance": [
                {"round": round_, "edge": edge}
                | {name: torch.cat(parts).mean().item() for name, parts in means.items()}
                for (round_, edge), means in sorted(found.items())
            ],
            "examples": examples,
        }

    def _write_out(
        self, examples: list[dict[str, Any]], call: Call, edge: Edge, target: Agent
    ) -> None:
        if not examples:
            return
        count, top = len(examples), self._options.top_k
        nearest = nearest_tokens(target, _vectors(call, edge)[:count], top)
        assert call.hidden is not None
        own = likeliest_tokens(call.prompts.agent, call.hidden[:count], top)
        for i, example in enumerate(examples):
            place = {"round": call.round, "edge": edge.key}
            example["messages"].append(place | {"nearest": nearest[i], "own_logits": own[i]})


def _vectors(call: Call, edge: Edge) -> Tensor:
    message = call.messages[edge.key]
    assert isinstance(message, LatentMessage)
    return message.vectors.float()


def nearest_tokens(agent: Agent, vectors_BMD: Tensor, top: int) -> list[list[list[list[Any]]]]:
    """Per row and vector, the tokens whose embeddings are nearest, with their cosines."""
    flat_ND = F.normalize(vectors_BMD.flatten(0, 1), dim=-1)
    values, places = [], []
    for begin in range(0, agent.rows, ROWS_AT_ONCE):
        rows_V = torch.arange(begin, min(begin + ROWS_AT_ONCE, agent.rows), device=agent.device)
        cosine_NV = flat_ND @ F.normalize(agent.embed(rows_V).to(flat_ND), dim=-1).T
        best_NK, index_NK = cosine_NV.topk(min(top, len(rows_V)), dim=-1)
        values.append(best_NK)
        places.append(index_NK + begin)
    best, where = torch.cat(values, 1).topk(top, dim=-1)
    ids = torch.cat(places, 1).gather(1, where)
    return _in_words(agent, best, ids, len(vectors_BMD))


def likeliest_tokens(agent: Agent, hidden_BMD: Tensor, top: int) -> list[list[list[list[Any]]]]:
    """Per row and latent step, what the agent would write there, with probabilities."""
    logits_NV = at_least_float32(agent.logits(hidden_BMD.flatten(0, 1).to(agent.dtype)))
    best, ids = logits_NV.softmax(-1).topk(top, dim=-1)
    return _in_words(agent, best, ids, len(hidden_BMD))


def _in_words(agent: Agent, values: Tensor, ids: Tensor, rows: int) -> list[list[list[list[Any]]]]:
    words = [
        [[agent.tokenizer.decode([i]), round(v, 3)] for i, v in zip(*pair, strict=True)]
        for pair in zip(ids.tolist(), values.tolist(), strict=True)
    ]
    steps = len(words) // rows
    return [words[row * steps : (row + 1) * steps] for row in range(rows)]


def answer_cosines(agent: Agent, vectors_BMD: Tensor, answers: list[str]) -> Tensor:
    """Message of row i against answer of row j, (B, B): the mean over the answer's tokens of the
    cosine with the nearest of the message's vectors."""
    unit_BMD = F.normalize(vectors_BMD, dim=-1)
    columns = []
    for ids in tokenise(agent, answers, plain=True):
        if not ids:
            columns.append(unit_BMD.new_zeros(len(unit_BMD)))
            continue
        embeds_AD = F.normalize(agent.embed(torch.tensor(ids, device=agent.device)).float(), dim=-1)
        columns.append((unit_BMD @ embeds_AD.T.to(unit_BMD)).amax(1).mean(-1))
    return torch.stack(columns, 1)
