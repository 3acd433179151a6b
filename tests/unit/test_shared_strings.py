"""Which token stands for a string, in vocabularies that have several for it."""

import pytest
from tiny import make_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rmas_train.links.vocabulary import is_ordinary, shared_tokens, token_bytes


def with_fallback():
    """As Gemma's: one token for each byte first, then letters; newlines are added tokens."""
    single = [" ", "3", "7", "a"]
    names = ["<pad>", *(f"<0x{b:02X}>" for b in range(256)), *(s.replace(" ", "▁") for s in single)]
    model = models.BPE(vocab={n: i for i, n in enumerate(names)}, merges=[], byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False)])
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


@pytest.mark.parametrize("make", [with_fallback, make_tokenizer])
def test_a_string_stands_for_the_token_that_the_tokenizer_gives(make):
    """Digits, spaces and line ends of Gemma were <0x37> and so on, whose embeddings no text had
    trained: numbers did not pass a vocabulary read-out."""
    tokenizer = make()
    compared = 0
    for string, index in token_bytes(tokenizer).items():
        if not is_ordinary(string):
            continue
        ids = tokenizer(string.decode(), add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            assert ids == [index], string
            compared += 1
    assert compared >= 5


def test_added_text_is_shared_and_marks_are_not():
    tokenizer = with_fallback()
    found = token_bytes(tokenizer)
    assert found[b"\n\n"] == tokenizer.convert_tokens_to_ids("\n\n")
    assert b"<end>" not in found
    assert found[b"\x80"] == 1 + 0x80, "a byte that has no other token keeps its own"
    strings = {tokenizer.decode([b]) for _, b in shared_tokens(make_tokenizer(), tokenizer)}
    assert {"3", "7", "a"} <= strings
