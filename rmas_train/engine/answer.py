"""What an agent answers after its prompt: the loss of a given answer, or a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from rmas_train.agents.agent import Agent
from rmas_train.engine.decoding import GREEDY, Chooser
from rmas_train.engine.inputs import Batch, take_first
from rmas_train.engine.interrupt import Draft, Interrupt, decode, resume, together, up_to_end
from rmas_train.engine.kv_cache import Prefix, new_cache
from rmas_train.engine.recompute import recompute
from rmas_train.engine.rollout import at_least_float32

LOGITS_BYTES = 2**26  # of one chunk of float32 logits


@dataclass(frozen=True)
class Text:
    """Generated text and its number of tokens, end-of-text token included.

    Attributes:
        ids: the tokens after the prompt, as they were written. To read them again, take these: a
            text does not always become the same tokens, when its template puts a space before it.
    """

    text: str
    tokens: int
    ids: tuple[int, ...] = ()

    def after(self, tokens: int) -> Text:
        """The same text, counted with what was written before it."""
        return replace(self, tokens=self.tokens + tokens)


def answer_loss(
    agent: Agent,
    batch: Batch,
    prefix: Prefix | None,
    answers: Sequence[list[int]],
    row_means: bool = False,
) -> Tensor:
    """Summed cross-entropy of the answers, which end the batch (padded at the right).

    Logits exist at answer positions only; when they are many, a chunk at a time, and again in
    backward, so that a large vocabulary does not decide the peak of memory.

    Args:
        agent: the decoder.
        batch: what it reads, answers included.
        prefix: what it has read before.
        answers: token ids, per row.
        row_means: the sum over rows of the mean over a row's tokens, in place of that over tokens.
    """
    hidden_ND = answer_states(agent, batch, prefix, answers)
    labels_N = torch.tensor([i for a in answers for i in a], device=hidden_ND.device)
    return _cross_entropy(agent, hidden_ND, labels_N, answers if row_means else None)


def answer_states(
    agent: Agent, batch: Batch, prefix: Prefix | None, answers: Sequence[list[int]]
) -> Tensor:
    """The hidden state before each answer token, row after row, (N, D); see ``answer_loss``."""
    longest = max(map(len, answers))
    hidden_BLD = new_cache(agent, prefix).read(batch)
    # The last token predicts nothing.
    hidden_BAD = hidden_BLD[:, -longest - 1 : -1]
    return take_first(hidden_BAD, [len(a) for a in answers])


def _cross_entropy(
    agent: Agent, hidden_ND: Tensor, labels_N: Tensor, answers: Sequence[list[int]] | None
) -> Tensor:
    """Summed over positions; each counts for one over its row's number if there are answers."""

    def part(hidden_ND: Tensor, labels_N: Tensor, *shares: Tensor) -> tuple[Tensor]:
        logits_NV = at_least_float32(agent.logits(hidden_ND))
        if not shares:
            return (F.cross_entropy(logits_NV, labels_N, reduction="sum"),)
        losses_N = F.cross_entropy(logits_NV, labels_N, reduction="none")
        return ((losses_N * shares[0].to(losses_N)).sum(),)

    shares = [] if answers is None else [shares_of(answers, hidden_ND.device)]
    return _over_positions(agent, part, hidden_ND, labels_N, *shares)


def shares_of(answers: Sequence[list[int]], device: torch.device) -> Tensor:
    """(N,) one over the number of tokens of a token's row, row after row, in float64."""
    shares = [1 / len(answer) for answer in answers for _ in answer]
    return torch.tensor(shares, dtype=torch.float64, device=device)


def divergence(
    agent: Agent,
    hidden_ND: Tensor,
    teacher_ND: Tensor,
    answers: Sequence[list[int]] | None = None,
) -> Tensor:
    """Summed Kullback-Leibler divergence of next-token distributions, from the teacher's states.

    Args:
        agent: whose output layer reads both.
        hidden_ND: states that learn.
        teacher_ND: states of the same positions, without a graph.
        answers: whose tokens these are; each then counts for one over its row's number.
    """

    def part(hidden_ND: Tensor, teacher_ND: Tensor, *shares: Tensor) -> tuple[Tensor]:
        log_p_NV, log_q_NV = (
            at_least_float32(agent.logits(x)).log_softmax(-1) for x in (teacher_ND, hidden_ND)
        )
        if not shares:
            return (F.kl_div(log_q_NV, log_p_NV, reduction="sum", log_target=True),)
        losses_N = F.kl_div(log_q_NV, log_p_NV, reduction="none", log_target=True).sum(-1)
        return ((losses_N * shares[0].to(losses_N)).sum(),)

    shares = [] if answers is None else [shares_of(answers, hidden_ND.device)]
    return _over_positions(agent, part, hidden_ND, teacher_ND, *shares)


def mean_entropies(agent: Agent, states: Sequence[Tensor]) -> list[float]:
    """Per row, the mean over tokens of the next-token distribution's entropy, nats.

    Args:
        agent: whose output layer reads the states.
        states: per row, the state before each token, (tokens, D).
    """
    found = []
    for states_ND in states:
        p_NV = at_least_float32(agent.logits(states_ND)).softmax(-1)
        found.append(float(torch.special.entr(p_NV).sum(-1).mean()))
    return found


def _over_positions(
    agent: Agent, part: Callable[..., tuple[Tensor]], first: Tensor, *others: Tensor
) -> Tensor:
    """The sum of ``part`` over positions, so many at a time that their logits fit."""
    vocabulary = agent.model.get_output_embeddings().weight.shape[0]
    size = max(1, LOGITS_BYTES // (4 * vocabulary))
    if len(first) <= size:
        return part(first, *others)[0]
    pieces = zip(*(x.split(size) for x in (first, *others)), strict=True)
    return torch.stack([recompute(part, piece, [])[0] for piece in pieces]).sum()


@torch.no_grad()
def write(
    agent: Agent,
    embedded: tuple[Batch, Prefix | None],
    max_new_tokens: int,
    chooser: Chooser = GREEDY,
    interrupts: Sequence[Interrupt] | None = None,
) -> list[Text]:
    """Text after a batch of prompts.

    Args:
        agent: who writes.
        embedded: what it reads, and the prefix that it has read.
        max_new_tokens: where to stop at the latest.
        chooser: of the batch's rows; with the method ``static`` there must be no prefix.
        interrupts: one per row, or None; with the method ``plain`` only.
    """
    batch, prefix = embedded
    if chooser.decoding.method == "plain":
        return generate(agent, batch, prefix, max_new_tokens, interrupts, chooser)
    assert prefix is None and interrupts is None and chooser.draws is None
    return generate_static(agent, batch, max_new_tokens)


@torch.no_grad()
def generate_static(agent: Agent, batch: Batch, max_new_tokens: int) -> list[Text]:
    """Greedy text by the library's ``generate`` on a static cache."""
    out_BL = agent.model.generate(
        inputs_embeds=batch.embeds,
        attention_mask=batch.real.long(),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        cache_implementation="static",
        eos_token_id=sorted(agent.end_ids),
        pad_token_id=agent.pad_id,
        repetition_penalty=1.0,
    )
    written = [up_to_end(agent, row) for row in out_BL.tolist()]
    return [Text(decode(agent, ids), len(ids), tuple(ids)) for ids in written]


@torch.no_grad()
def generate(
    agent: Agent,
    batch: Batch,
    prefix: Prefix | None,
    max_new_tokens: int,
    interrupts: Sequence[Interrupt] | None = None,
    chooser: Chooser = GREEDY,
) -> list[Text]:
    """Text after a batch of prompts; rows that have ended leave the batch.

    A row that is interrupted leaves it too. When the others have ended, those rows read what they
    were given and go on together, until none is interrupted any more.

    Args:
        agent: who writes.
        batch: what it reads.
        prefix: what it has read before.
        max_new_tokens: where to stop at the latest; what an interrupt adds does not count.
        interrupts: one per row, or None.
        chooser: of the batch's rows.
    """
    count = len(batch.real)
    if interrupts is None:
        written = _write(agent, batch, prefix, chooser, [max_new_tokens] * count)
        return [Text(decode(agent, ids), len(ids), tuple(ids)) for ids in written]
    drafts = [Draft(agent, interrupt, max_new_tokens) for interrupt in interrupts]
    todo = list(range(count))
    while todo:
        going = []
        for part in together(agent, prefix, todo, drafts):
            own = [drafts[i] for i in part]
            embedded = batch, prefix
            if any(draft.read for draft in own):
                embedded = resume(agent, batch, prefix, part, [draft.read for draft in own])
            rooms, stops = [d.room for d in own], [d.is_due for d in own]
            written = _write(agent, *embedded, chooser.rows(part), rooms, stops)
            going += [i for i, ids in zip(part, written, strict=True) if drafts[i].add(ids)]
        todo = sorted(going)
    return [Text("".join(draft.kept), draft.tokens, tuple(draft.ids)) for draft in drafts]


def _write(
    agent: Agent,
    batch: Batch,
    prefix: Prefix | None,
    chooser: Chooser,
    rooms: Sequence[int],
    stops: Sequence[Callable[[list[int]], bool]] | None = None,
) -> list[list[int]]:
    """Token ids of each row, until it ends, has so many, or its ``stops`` says so."""
    cache = new_cache(agent, prefix, room=max(rooms))
    written: list[list[int]] = [[] for _ in rooms]
    active = list(range(len(written)))
    while True:
        hidden_BD = cache.read(batch)[:, -1]
        tokens_B = chooser.choose(agent.logits(hidden_BD), active)
        tokens = tokens_B.tolist()
        for row, token in zip(active, tokens, strict=True):
            written[row].append(token)
        going = [
            i
            for i, (row, token) in enumerate(zip(active, tokens, strict=True))
            if token not in agent.end_ids
            and len(written[row]) < rooms[row]
            and not (stops and stops[row](written[row]))
        ]
        if not going:
            return written
        batch = batch.next(agent.embed(tokens_B))
        if len(going) < len(active):
            index = torch.tensor(going, device=agent.device)
            cache.keep(index)
            batch, active = batch.keep(index), [active[i] for i in going]
