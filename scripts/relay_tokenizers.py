"""Tokenizers of the relay agents: three families that write spaces, bytes and chats differently."""

from __future__ import annotations

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# Words beside the relay's own, so that the vocabularies differ in size and order as real ones do.
FILLER = {
    "planner": "the plan of a good team is to think first and then to act",
    "critic": "a critic reads what others wrote and says where it is wrong and why it matters",
    "solver": "solve the problem step by step and give only the final answer please",
    "solver_dialect": "listen to what was said and answer in the words of your own home",
}
QWEN_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
LLAMA_CHAT = (
    "<|begin|>{% for m in messages %}<|header|>{{ m.role }}<|body|>{{ m.content | trim }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|header|>assistant<|body|>{% endif %}"
)
GRANITE_CHAT = (
    "<|first|>{% for m in messages %}<|role|>{{ m.role }}<|says|>{{ m.content }}<|done|>"
    "{% endfor %}{% if add_generation_prompt %}<|role|>assistant<|says|>{% endif %}"
)
# Marks of each chat, padding first, end of text last.
MARKS = {
    "planner": ["<|pad|>", "<|im_start|>", "<|im_end|>"],
    "critic": ["<|pad|>", "<|begin|>", "<|header|>", "<|body|>", "<|eot|>"],
    "solver": ["<|pad|>", "<|first|>", "<|role|>", "<|says|>", "<|done|>"],
}
MARKS["solver_dialect"] = MARKS["solver"]
CHATS = {"planner": QWEN_CHAT, "critic": LLAMA_CHAT}


def build(agent: str, words: list[str], renamed: dict[str, str]) -> PreTrainedTokenizerFast:
    """A tokenizer in which every one of ``words`` is a single token.

    Args:
        agent: a key of ``FILLER``; the critic's is in sentencepiece style, the others byte-level.
        words: the relay's words.
        renamed: words that this agent reads under another name (the dialect's states).
    """
    llama, specials = agent == "critic", MARKS[agent]
    tokenizer = tokenizers.Tokenizer(models.BPE(byte_fallback=llama))
    if llama:  # sentencepiece style: a visible space, bytes only as a fallback
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        alphabet, bytes_ = [], [f"<0x{i:02X}>" for i in range(256)]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet, bytes_ = pre_tokenizers.ByteLevel.alphabet(), []
    if renamed:
        tokenizer.normalizer = tokenizers.normalizers.Sequence(
            [
                tokenizers.normalizers.Replace(tokenizers.Regex(rf"\b{old}\b"), new)
                for old, new in renamed.items()
            ]
        )
    corpus = [" ".join([*words, "user", "assistant", "system", FILLER[agent]])] * 10
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=1000,
            special_tokens=specials + bytes_,
            initial_alphabet=sorted(alphabet),
            show_progress=False,
        ),
    )
    # The trainer marks the byte tokens as special; only the chat's own marks are.
    return PreTrainedTokenizerFast(
        tokenizer_object=_plain_bytes(tokenizer, bytes_),
        eos_token=specials[-1],
        pad_token=specials[0],
        extra_special_tokens=specials[1:-1],
        chat_template=CHATS.get(agent, GRANITE_CHAT),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def bytes_to_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Whole relay words, ``" word"``, to ids, however the family writes the space."""
    vocab = tokenizer.get_vocab()
    marked = {t: i for t, i in vocab.items() if t[0] in "\u0120\u2581"}
    return {" " + token[1:]: index for token, index in marked.items()}


def _plain_bytes(tokenizer: tokenizers.Tokenizer, names: list[str]) -> tokenizers.Tokenizer:
    import json

    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] not in names]
    return tokenizers.Tokenizer.from_str(json.dumps(state))
