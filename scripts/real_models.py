"""Published language models as agents: quiet loading, prefix reuse, and the library's own text.

    python scripts/real_models.py FOLDER [--json docs/results/real_models.json]

Each sub-folder of FOLDER is a model; one without a chat template is read with ``template: none``.
For each model and dtype the greedy text after 20 prompts is compared with what the library's
``generate`` writes after the same tokens, and the tokens with those of its own chat template.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rmas_train.agents.prompts import Prompt
from rmas_train.config import AgentConfig
from rmas_train.engine.answer import generate
from rmas_train.engine.loading import load_agent
from rmas_train.engine.prompt_batch import UnrollPrefixes, make_prompt_batch
from rmas_train.runs.session import environment

THINGS = ("lake", "bridge", "clock", "garden", "letter", "train", "river", "lamp", "window", "song")
QUESTIONS = [
    *(f"Write one sentence about a {thing}." for thing in THINGS),
    *(f"What is {7 + i} plus {3 * i}?" for i in range(10)),
]
NEW_TOKENS = 16
DTYPES = ("float32", "bfloat16")


def examine(folder: Path, dtype: str) -> dict[str, Any]:
    """One model in one dtype: what loading said, and in how many prompts ids and text are equal."""
    own: Any = AutoTokenizer.from_pretrained(folder)
    template = None if own.chat_template else "none"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agent = load_agent("solver", AgentConfig(model=str(folder), dtype=dtype, template=template))
    rows = [{"question": question} for question in QUESTIONS]
    encoded = Prompt(agent, {"user": "<<question>>"}).encode(list(rows), 1, first=True)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    same_ids = same_texts = 0
    for question, one in zip(QUESTIONS, encoded, strict=True):
        ids = library_ids(own, question)
        same_ids += one.ids == ids
        batch, prefix = make_prompt_batch(agent, [one], UnrollPrefixes(), {}).embed([0])
        (text,) = generate(agent, batch, prefix, NEW_TOKENS)
        out = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=NEW_TOKENS)
        new = out[0, len(ids) :]
        wanted = own.decode(new, skip_special_tokens=True)
        same_texts += text.tokens == len(new) and text.text == wanted
    return {
        "model": folder.name,
        "dtype": dtype,
        "template": template,
        "warnings": [str(w.message) for w in caught],
        "prefix_reuse": agent.attends_to_blocks,
        "prompts": len(QUESTIONS),
        "same_ids": same_ids,
        "same_texts": same_texts,
    }


def library_ids(tokenizer: Any, question: str) -> list[int]:
    """A question's tokens as the library makes them."""
    if not tokenizer.chat_template:
        ids: list[int] = tokenizer(question)["input_ids"]
        return ids
    turns = [{"role": "user", "content": question}]
    chat = tokenizer.apply_chat_template(turns, add_generation_prompt=True)
    return list(chat["input_ids"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    models = sorted(path.parent for path in options.folder.glob("*/config.json"))
    rows = []
    for folder in models:
        for dtype in DTYPES:
            rows.append(examine(folder, dtype))
            print(json.dumps(rows[-1]), flush=True)
    if options.json:
        whole = {"rows": rows, "new_tokens": NEW_TOKENS, "environment": environment()}
        options.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
