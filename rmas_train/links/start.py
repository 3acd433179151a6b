"""The aligned start: links that map to the target's embeddings already before training.

An outer link's main path is the ridge regression from the source's to the target's embeddings of
the token strings that both share. Strings are matched by their decoded bytes, because families
write spaces differently. The branch gets a zero last layer. Then gain and bias of the closing
LayerNorm are set per coordinate by least squares.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmas_train.config import LinksConfig
from rmas_train.errors import LinksError
from rmas_train.links.modules import Link, LinkSet

FOLDS = 5
MIN_PAIRS = 8


@dataclass(frozen=True)
class Pairs:
    """Embeddings of shared token strings: inputs and targets of an outer link's regression.

    ``source`` (pairs, d_source) and ``target`` (pairs, d_target), float32.
    """

    source: Tensor
    target: Tensor


def token_bytes(tokenizer: Any) -> dict[bytes, int]:
    """Decoded bytes of every ordinary token -> its id; the lowest id if two tokens are equal.

    Covers byte-level (GPT-2's alphabet) and sentencepiece (visible space, ``<0x41>``) vocabularies.
    """
    vocab = tokenizer.get_vocab()
    special = set(tokenizer.get_added_vocab())
    byte_level = _is_byte_level(tokenizer)
    found: dict[bytes, int] = {}
    for token, index in sorted(vocab.items(), key=lambda item: item[1]):
        if token not in special:
            found.setdefault(_decode(token, byte_level), index)
    return found


def shared_tokens(
    source: Any, target: Any, seen: tuple[set[int], set[int]]
) -> list[tuple[int, int]]:
    """(source id, target id) of shared strings: those seen in the data, if these are enough.

    Every real vocabulary has untrained rows (reserved and byte tokens). Restricting to tokens that
    both agents see in the data keeps such rows out of the regression and of the LayerNorm's fit.
    """
    left, right = token_bytes(source), token_bytes(target)
    pairs = [(left[text], right[text]) for text in sorted(left.keys() & right.keys())]
    used = [(a, b) for a, b in pairs if a in seen[0] and b in seen[1]]
    return used if len(used) >= MIN_PAIRS else pairs


def ridge(source: Tensor, target: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Weight (d_target, d_source) and bias (d_target) of least squares with an L2 penalty.

    The penalty is ``strength`` times the mean squared singular value of the centred source, so it
    does not depend on the scale of the embeddings. Computed in float64.
    """
    x, y = source.double(), target.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    gram = x.T @ x
    penalty = strength * gram.diagonal().sum() / min(x.shape) + 1e-12
    weight = torch.linalg.solve(gram + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y).T
    return weight, y_mean - weight @ x_mean


def align_outer(link: Link, pairs: Pairs, strength: float) -> None:
    """Set an outer link to the closed-form solution, in place."""
    main = link.main_path
    assert main is not None
    link.silence_branch()
    weight, bias = ridge(pairs.source, pairs.target, strength)
    with torch.no_grad():
        main.weight.copy_(weight)
        main.bias.copy_(bias)
        if link.post_ln is not None:
            _fit_norm(link, pairs)


def held_out_cosine(pairs: Pairs, link: Link, strength: float) -> float:
    """Mean cosine of aligned output and target on shared tokens left out of the fit (5 folds)."""
    count = len(pairs.source)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    cosines = []
    for fold in range(FOLDS):
        test = order[fold::FOLDS]
        train = torch.tensor(sorted(set(range(count)) - set(test.tolist())))
        trial = copy.deepcopy(link)
        align_outer(trial, Pairs(pairs.source[train], pairs.target[train]), strength)
        with torch.no_grad():
            out = trial(pairs.source[test])
        cosines.append(torch.cosine_similarity(out, pairs.target[test], dim=-1))
    return torch.cat(cosines).mean().item()


def align_links(
    links: LinkSet, pairs: Mapping[str, Pairs], config: LinksConfig, seed: int
) -> dict[str, dict[str, float]]:
    """Aligned start of all links, in place, with ``start_noise`` if it is set.

    Returns:
        per edge: number of shared tokens, cosine on them and on held-out ones (before noise).
    """
    report = {}
    for name, link in links.links().items():
        if name.startswith("inner."):
            link.start_inner()
    outer = {n.removeprefix("outer."): k for n, k in links.links().items() if k.outer}
    for i, (key, link) in enumerate(outer.items()):
        if link.main_path is None:
            raise LinksError(
                f"edge {key}: links.variant={link.variant} has no linear map that an aligned start "
                "could fill; set links.init=default."
            )
        if len(pairs[key].source) < MIN_PAIRS:
            raise LinksError(
                f"edge {key}: only {len(pairs[key].source)} shared tokens, too few for an aligned "
                "start; set links.init=default."
            )
        align_outer(link, pairs[key], config.ridge)
        with torch.no_grad():
            fitted = torch.cosine_similarity(link(pairs[key].source), pairs[key].target, dim=-1)
        report[key] = {
            "shared_tokens": len(pairs[key].source),
            "cosine_fitted": float(fitted.mean()),
            "cosine_held_out": held_out_cosine(pairs[key], link, config.ridge),
        }
        if config.start_noise:
            add_noise(link, config.start_noise, seed + i)
    return report


def add_noise(link: Link, level: float, seed: int) -> None:
    """Seeded Gaussian noise on W3, ``level`` times the standard deviation of its entries."""
    main = link.main_path
    assert main is not None
    noise = torch.randn(main.weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        main.weight.add_(level * main.weight.std() * noise)


def _fit_norm(link: Link, pairs: Pairs) -> None:
    """Gain and bias of the closing LayerNorm, per coordinate, by least squares on the targets."""
    norm = link.post_ln
    assert norm is not None
    y = nn.functional.layer_norm(link.body(pairs.source), (link.d_target,), eps=norm.eps).double()
    target = pairs.target.double() / link.scale.double()
    y_mean, target_mean = y.mean(0), target.mean(0)
    covariance = ((y - y_mean) * (target - target_mean)).mean(0)
    gain = covariance / (y - y_mean).pow(2).mean(0).clamp_min(1e-12)
    norm.weight.copy_(gain)
    norm.bias.copy_(target_mean - gain * y_mean)


def _is_byte_level(tokenizer: Any) -> bool:
    """Byte-level vocabularies write a space as U+0120, sentencepiece as U+2581."""
    vocab = tokenizer.get_vocab()
    return sum("\u0120" in t for t in vocab) > sum("\u2581" in t for t in vocab)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's table: printable bytes stand for themselves, the others for U+0100 and up."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    table = {chr(b): b for b in plain}
    return table | {chr(256 + i): b for i, b in enumerate(others)}


_ALPHABET = _byte_alphabet()


def _decode(token: str, byte_level: bool) -> bytes:
    if byte_level and all(c in _ALPHABET for c in token):
        return bytes(_ALPHABET[c] for c in token)
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()
