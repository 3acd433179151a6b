"""Agents of the replicas: the published systems' families and structure at a 32nd of their width.

Layer patterns, tied or untied embeddings, head ratios, scaled embeddings and the kind of tokenizer
and chat template are those of the shape files; weights are random, then trained for seconds on the
role's own texts, so that there is something to read and to write.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
)

NARROWER = 32
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
)
EACH, LAST = "{% for m in messages %}", "{% endfor %}{% if add_generation_prompt %}"
# Family -> (chat template, its special tokens; the first one ends a turn, has a pad token).
CHATS: dict[str, tuple[str, list[str], bool]] = {
    "qwen": (
        EACH
        + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        + LAST
        + "<|im_start|>assistant\n{% endif %}",
        ["<|im_end|>", "<|im_start|>"],
        True,
    ),
    "llama": (  # prints a date before everything else, and strips texts
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
        "{% endif %}<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n"
        "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}"
        "{% set messages = messages[1:] %}{% endif %}<|eot_id|>"
        + EACH
        + "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
        + LAST
        + "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ["<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
        False,
    ),
    "gemma": (
        NO_SYSTEM
        + EACH
        + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        + "{{ m.content | trim }}<end_of_turn>\n"
        + LAST
        + "<start_of_turn>model\n{% endif %}",
        ["<end_of_turn>", "<start_of_turn>"],
        True,
    ),
    "mistral": (
        NO_SYSTEM
        + EACH
        + "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        + "{% else %} {{ m.content }}</s>{% endif %}"
        + LAST
        + "{% endif %}",
        ["</s>", "[INST]", "[/INST]"],
        False,
    ),
    "deepseek": (  # its prompt ends in a mark that later turns leave out
        EACH
        + "{% if m.role == 'user' %}<|User|>{{ m.content }}"
        + "{% elif m.role == 'assistant' %}<|Assistant|>{{ m.content }}<|end|>"
        + "{% else %}{{ m.content }}{% endif %}"
        + LAST
        + "<|Assistant|><think>\n{% endif %}",
        ["<|end|>", "<|User|>", "<|Assistant|>"],
        True,
    ),
}


def family_of(shape_name: str) -> str:
    names = {"qwen": "qwen", "llama": "llama", "gemma": "gemma", "biomistral": "mistral"}
    if shape_name.startswith("deepseek"):
        return "deepseek"
    return next(family for start, family in names.items() if shape_name.startswith(start))


def make_tokenizer(family: str, texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of the family's kind (byte level, or spaces made visible), learnt from texts."""
    chat, special, has_pad = CHATS[family]
    is_visible = family in ("gemma", "mistral")
    tokenizer = Tokenizer(models.BPE(byte_fallback=is_visible))
    if is_visible:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
        alphabet = ["\n", *map(chr, range(32, 127))]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    pad = ["<pad>"] if has_pad else []
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[*special, *pad],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=special[0],
        extra_special_tokens=special[1:],
        chat_template=chat,
        padding_side="left",
        **({"pad_token": pad[0]} if has_pad else {}),
    )


def shrink(shape: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> Any:
    """The configuration of a shape file at a 32nd of its width, with its layer pattern once."""
    kind = shape["model_type"]
    heads = 4
    options = {
        "hidden_size": shape["hidden_size"] // NARROWER,
        "intermediate_size": shape["hidden_size"] // NARROWER * 2,
        "num_hidden_layers": {"gemma3_text": 6, "qwen3_5_text": 4}.get(kind, 2),
        "num_attention_heads": heads,
        "num_key_value_heads": max(
            1, heads * shape["num_key_value_heads"] // shape["num_attention_heads"]
        ),
        "head_dim": 16,
        "vocab_size": len(tokenizer),
        "tie_word_embeddings": shape["tie_word_embeddings"],
        "max_position_embeddings": 2048,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.1,  # at the usual 0.02 so narrow a model hardly heeds its context
    }
    if kind == "qwen2":  # its heads have no size of their own
        del options["head_dim"]
    if shape.get("sliding_window"):
        options["sliding_window"] = 64
    if kind == "gemma3_text":
        options["query_pre_attn_scalar"] = 16
    if kind == "qwen3_5_text":
        options |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
        options |= {"linear_key_head_dim": 16, "linear_value_head_dim": 16}
    return AutoConfig.for_model(kind, **options)


def make_model(shape_file: Path, tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
    torch.manual_seed(seed)
    config = shrink(json.loads(shape_file.read_text(encoding="utf-8")), tokenizer)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def save_as_published(model: Any, folder: Path) -> None:
    """Save it as its family is published: Gemma 3 and Qwen3.5 with a part for images."""
    composite = composite_of(model)
    if composite is None:
        model.save_pretrained(folder)
        return
    text, head = composite.model.language_model, composite.lm_head
    text.load_state_dict(model.base_model.state_dict())
    head.load_state_dict(model.lm_head.state_dict())
    composite.to(model.dtype).save_pretrained(folder)


def composite_of(model: Any) -> Any:
    """A model for text and images around a text model of its family; None: it has none."""
    text = model.config.to_dict()
    small = {"hidden_size": 32, "intermediate_size": 32, "patch_size": 14}
    if model.config.model_type == "gemma3_text":
        image = {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
        config: Any = Gemma3Config(
            text_config=text, vision_config=small | image, mm_tokens_per_image=4
        )
        return Gemma3ForConditionalGeneration(config)
    if model.config.model_type == "qwen3_5_text":
        image = {"depth": 1, "num_heads": 2, "out_hidden_size": model.config.hidden_size}
        config = Qwen3_5Config(
            text_config=text,
            vision_config=small | image,
            tie_word_embeddings=model.config.tie_word_embeddings,
        )
        return Qwen3_5ForConditionalGeneration(config)
    return None


def teach(
    model: Any, sequences: list[tuple[list[int], list[int]]], steps: int, seed: int, batch: int = 12
) -> float:
    """Next-token training on (prompt, own text); returns the last loss."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loss = torch.zeros(())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        chosen = torch.randint(len(sequences), (batch,), generator=generator).tolist()
        rows = [sequences[i] for i in chosen]
        longest = max(len(p) + len(t) for p, t in rows)
        ids = torch.zeros(batch, longest, dtype=torch.long)
        labels = torch.full((batch, longest), -100)
        for i, (prompt, own) in enumerate(rows):  # at the right they see nothing of each other
            ids[i, : len(prompt) + len(own)] = torch.tensor(prompt + own)
            labels[i, len(prompt) : len(prompt) + len(own)] = torch.tensor(own)
        logits = model(input_ids=ids, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return float(loss)
