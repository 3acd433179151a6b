"""Which token strings two vocabularies share, matched by their decoded bytes.

Families write the same string differently: byte-level vocabularies (GPT-2's alphabet) write a space
as U+0120, sentencepiece as U+2581.
"""

from __future__ import annotations

import re
from typing import Any

# Rows that a tokenizer keeps free, or uses for its own ends; no text has such tokens.
RESERVED = re.compile(
    r"[<\[]\|?(?:unused|reserved|extra|pad|unk|mask|sep|cls|bos|eos|s|/s)[^ ]*[>\]]", re.IGNORECASE
)
FALLBACK = re.compile("<0x[0-9A-Fa-f]{2}>")


def token_bytes(tokenizer: Any) -> dict[bytes, int]:
    """Decoded bytes of every token but marks -> its id; the lowest id if two tokens are equal.

    Covers byte-level (GPT-2's alphabet) and sentencepiece (visible space, ``<0x41>``) vocabularies.
    A token ``<0x41>`` counts only where no other one is an A: no text ever has it, so its embedding
    was not trained.
    """
    vocab = tokenizer.get_vocab()
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    byte_level = _is_byte_level(tokenizer)
    in_order = sorted(vocab.items(), key=lambda item: (_is_fallback(item[0]), item[1]))
    found: dict[bytes, int] = {}
    for token, index in in_order:
        if index not in special:
            found.setdefault(_decode(token, byte_level), index)
    return found


def shared_tokens(source: Any, target: Any) -> list[tuple[int, int]]:
    """(source id, target id) of every string of ordinary text that both vocabularies have.

    Left out: parts of a character, control characters, and rows that are reserved by name.
    """
    left, right = token_bytes(source), token_bytes(target)
    return [(left[s], right[s]) for s in sorted(left.keys() & right.keys()) if is_ordinary(s)]


def is_ordinary(string: bytes) -> bool:
    """Whether a token's bytes are text that a person could have written."""
    try:
        text = string.decode()
    except UnicodeDecodeError:
        return False
    return (text.isprintable() or text.isspace()) and not RESERVED.fullmatch(text)


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


def _is_fallback(token: str) -> bool:
    """One byte, as a sentencepiece vocabulary writes what it has no token for."""
    return FALLBACK.fullmatch(token) is not None


def _decode(token: str, byte_level: bool) -> bytes:
    if byte_level and all(c in _ALPHABET for c in token):
        return bytes(_ALPHABET[c] for c in token)
    if _is_fallback(token):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()
