"""Trying an agent out on ordinary text: alone, in a batch, in pieces, behind a frozen prefix.

The states of two rows of unequal length are compared with those that each has alone, read whole by
the library. What differs by more than rounding is wrong. How much rounding there is depends on
model and dtype, so it is measured: it is what the library's own cache differs by.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import tokenise
from rmas_train.engine.inputs import Batch, embed_ids, read_whole
from rmas_train.engine.kv_cache import KVCache, LibraryCache, is_recurrent
from rmas_train.engine.prompt_batch import PrefixCache
from rmas_train.errors import AgentError, PrefixReuseWarning

TEXT = (
    "The quick brown fox jumps over the lazy dog, because 27 people wrote long letters about the "
    "weather and nobody answered them for three weeks."
)
LENGTHS = (17, 12)  # tokens of the two rows
PREFIXES = (6, 4)  # of which a frozen prefix
STEPS = 3  # read one by one at the end
# Relative error of states that counts as rounding, whatever the library's own.
ROUNDING = {torch.bfloat16: 0.03, torch.float16: 0.005, torch.float64: 1e-6}
ALLOWANCE = 3.0  # how much more than the library's own error is still rounding
# The largest relative error of gradients.
GRADIENT = {torch.bfloat16: 0.3, torch.float16: 0.1, torch.float64: 1e-4}
# The largest error of the library's own ways of reading that can be used at all.
LIMIT = {torch.bfloat16: 0.2, torch.float16: 0.05}


@torch.no_grad()
def check_agent(agent: Agent) -> Agent:
    """The agent, tried out; it says whether frozen prefixes can be reused.

    Raises:
        AgentError: its family does something that is unknown here: its logits are not its output
            embedding of the last state, a row's states depend on the rows beside it, or no right
            gradient flows back through a text that is read in pieces.
    """
    rows = probe_rows(agent)
    try:
        alone = [read_whole(agent, embed_ids(agent, [row]))[0] for row in rows]
        _check_plain(agent, rows[0], alone[0])
        together = _error(_ends(read_whole(agent, embed_ids(agent, rows)), rows), alone)
    except (AgentError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what a family's code makes of a config that it does not expect
        raise _unsupported(agent, f"it cannot read a text ({_reason(error)})") from error
    _check_limit(agent, together, "read in a batch")
    library = _attempt(lambda: _error(read_in_pieces(agent, rows, LibraryCache(agent)), alone))
    own = library if isinstance(library, float) and library <= _limit(agent) else together
    most = max(ROUNDING.get(agent.dtype, 1e-4), ALLOWANCE * max(own, together))
    blocks = _attempt(lambda: max(_block_errors(agent, rows, alone)))
    if isinstance(blocks, float) and blocks <= most:
        blocks = _attempt(lambda: _gradient_error(agent, rows[0], KVCache(agent)))
        most = GRADIENT.get(agent.dtype, 1e-2)
    if isinstance(blocks, float) and blocks <= most:
        return replace(agent, attends_to_blocks=True)
    _check_library(agent, library, rows[0])
    reason = blocks if isinstance(blocks, str) else f"other states, by {blocks:.2g}"
    warnings.warn(
        f"agent {agent.name} ({type(agent.model).__name__}) cannot reuse frozen prefixes "
        f"({reason}); its prompts are read whole in every round.",
        PrefixReuseWarning,
        stacklevel=3,
    )
    return replace(agent, attends_to_blocks=False)


def _check_library(agent: Agent, library: float | str, row: list[int]) -> None:
    """The library's cache, which is used where ours cannot be, gives the right states and gradient.

    Raises:
        AgentError: it does not.
    """
    if isinstance(library, float):
        _check_limit(agent, library, "read in pieces with the library's cache")
        library = _attempt(lambda: _gradient_error(agent, row, LibraryCache(agent)))
    if isinstance(library, str):
        raise _unsupported(agent, f"it cannot be read in pieces ({library})")
    if not library <= GRADIENT.get(agent.dtype, 1e-2):
        raise _unsupported(
            agent, f"gradients through a text that it reads in pieces are off by {library:.2g}"
        )


def probe_rows(agent: Agent) -> list[list[int]]:
    """Two rows of ordinary tokens, of unequal length."""
    ids = tokenise(agent, [TEXT], plain=True)[0]
    special = set(agent.tokenizer.all_special_ids)
    ids = [i for i in ids if i not in special]
    while len(ids) < LENGTHS[0] + 1:
        ids += ids or [min(1, agent.model.config.vocab_size - 1)]
    return [ids[: LENGTHS[0]], ids[1 : 1 + LENGTHS[1]]]


def _check_plain(agent: Agent, row: list[int], state_LD: Tensor) -> None:
    """Our way of reading embeddings gives what the library gives for token ids.

    Raises:
        AgentError: it does not.
    """
    ids_1L = torch.tensor([row], device=agent.device)
    logits_LV = agent.model(input_ids=ids_1L, use_cache=False).logits[0]
    if not _error([agent.logits(state_LD)], [logits_LV]) <= ROUNDING.get(agent.dtype, 1e-3):
        raise _unsupported(agent, "its logits are not its output embedding of the last state")
    embeds_1LD = agent.embed(ids_1L)
    before_1LD = embeds_1LD.clone()
    agent.model.base_model(inputs_embeds=embeds_1LD, use_cache=False)
    if not torch.equal(embeds_1LD, before_1LD):
        raise _unsupported(agent, "it overwrites the embeddings that it reads")


@torch.enable_grad()
def _gradient_error(agent: Agent, row: list[int], cache: KVCache | LibraryCache) -> float:
    """Relative error of the gradient at the embeddings, through a text that is read in pieces."""
    wanted = _gradient(agent, row, lambda batch: read_whole(agent, batch))

    def read(batch: Batch) -> Tensor:
        cuts = [0, len(row) - STEPS, *range(len(row) - STEPS + 1, len(row) + 1)]
        parts = [
            Batch(batch.embeds[:, a:b], batch.real[:, a:b], batch.positions[:, a:b], full=True)
            for a, b in pairwise(cuts)
        ]
        return torch.cat([cache.read(part) for part in parts], dim=1)

    return _error([_gradient(agent, row, read)], [wanted])


def _gradient(agent: Agent, row: list[int], read: Callable[[Batch], Tensor]) -> Tensor:
    """Gradient of a fixed function of the last state at the embeddings, (L, D)."""
    batch = embed_ids(agent, [row])
    embeds_BLD = batch.embeds.detach().requires_grad_()
    last_D = read(replace(batch, embeds=embeds_BLD))[0, -1].float()
    weights_D = torch.linspace(-1, 1, len(last_D), device=last_D.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a kernel without a backward; the gradient is looked at
        (grad_BLD,) = torch.autograd.grad((last_D * weights_D).sum(), embeds_BLD)
    if not grad_BLD.norm() > 0:
        raise ValueError("no gradient reaches its embeddings")
    return grad_BLD[0]


def read_in_pieces(
    agent: Agent, rows: Sequence[list[int]], cache: KVCache | LibraryCache
) -> list[Tensor]:
    """States of each row after its first tokens; all but the last few are read at once."""
    first = embed_ids(agent, [row[:-STEPS] for row in rows])
    found = [cache.read(first)]
    for k in range(-STEPS, 0):
        starts = [len(row) + k for row in rows]
        found.append(cache.read(embed_ids(agent, [[row[k]] for row in rows], skip=starts)))
    return _ends(torch.cat(found, dim=1), rows)


def _block_errors(agent: Agent, rows: Sequence[list[int]], alone: Sequence[Tensor]) -> list[float]:
    """Errors of our cache: without a prefix, and behind one, in one batch and row by row."""
    errors = [_error(read_in_pieces(agent, rows, KVCache(agent)), alone)]
    for part in ([0, 1], [0], [1]):
        ids = [rows[i][: PREFIXES[i]] for i in part]
        rest = [rows[i][PREFIXES[i] :] for i in part]
        groups = [[k] for k in range(len(part))] if _unequal(agent, rest) else [range(len(part))]
        for group in groups:
            prefix = PrefixCache(1 << 40).get(agent, [ids[k] for k in group])
            batch = _after(agent, [ids[k] for k in group], [rest[k] for k in group])
            states = _ends(KVCache(agent, prefix).read(batch), [rest[k] for k in group])
            errors.append(_error(states, [alone[part[k]] for k in group]))
    return errors


def _unequal(agent: Agent, rest: Sequence[list[int]]) -> bool:
    return is_recurrent(agent) and len(set(map(len, rest))) > 1


def _after(agent: Agent, ids: Sequence[list[int]], rest: Sequence[list[int]]) -> Batch:
    return embed_ids(agent, rest, skip=[len(row) for row in ids])


def _ends(states_BLD: Tensor, rows: Sequence[list[int]]) -> list[Tensor]:
    """Each row's states without those of its padding at the left."""
    return [state[-len(row) :] for state, row in zip(states_BLD, rows, strict=True)]


def _error(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest relative distance, row by row, of what was found."""
    errors = []
    for a, b in zip(found, wanted, strict=True):
        b = b[-len(a) :]
        errors.append(((a.double() - b.double()).norm() / b.double().norm()).item())
    return max(errors) if all(e == e for e in errors) else float("inf")


def _attempt(read: Callable[[], float]) -> float | str:
    """An error as a number, or why there is none."""
    try:
        return read()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what a family's code makes of a cache that it does not expect
        return _reason(error)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def _limit(agent: Agent) -> float:
    return LIMIT.get(agent.dtype, 1e-3)


def _check_limit(agent: Agent, error: float, how: str) -> None:
    if not error <= _limit(agent):
        raise _unsupported(agent, f"a row {how} has other states than alone, by {error:.2g}")


def _unsupported(agent: Agent, what: str) -> AgentError:
    return AgentError(
        f"agents.{agent.name}.model={agent.source}: {what} ({type(agent.model).__name__}); this "
        "family is not supported, use another model."
    )
