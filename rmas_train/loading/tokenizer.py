"""Reading the tokenizer, and whether it fits the model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transformers import AutoTokenizer

from rmas_train.loading.files import check_tokenizer_file
from rmas_train.loading.model_files import ModelFiles, quiet
from rmas_train.loading.shape import explain
from rmas_train.support.reading import short

FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")


def load_tokenizer(source: ModelFiles) -> Any:
    """The tokenizer that lies beside a model.

    Raises:
        AgentError: there is none, or it cannot be read; names the file.
    """
    if not source.gguf and not any(source.file(name) for name in FILES):
        raise source.error(f"no tokenizer lies beside it ({FILES[0]}); copy that file too")
    check_tokenizer_file(source)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source.where, **source.library)
    except Exception as error:  # what its library makes of a user's files
        raise source.error(explain(source, error, "its tokenizer's files")) from error
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float):
        raise source.error(
            f"tokenizer_config.json: key model_max_length is {short(longest)}, not a number; copy "
            "the file again"
        )
    if not len(tokenizer):
        raise source.error("its tokenizer knows no token; copy tokenizer.json again")
    return tokenizer


def check_token_ids(
    source: ModelFiles, tokenizer: Any, rows: int, used: Iterable[int] = ()
) -> None:
    """Every ordinary token, and every special one that is used, has a row of the embedding.

    Tokenizers of some families add special tokens that their small models do not have.

    Raises:
        AgentError: names the token.
    """
    special, needed = set(tokenizer.get_added_vocab().values()), set(used)
    for token, i in sorted(tokenizer.get_vocab().items(), key=lambda item: -item[1]):
        if i < rows:
            return
        if i not in special or i in needed:
            raise source.error(
                f"its tokenizer has token {token!r} with id {i}, its embedding {rows} rows; the "
                "two are not of one model: copy both from the same place, or resize the embedding "
                "before saving"
            )
