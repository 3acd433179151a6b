"""Published language models, where a folder of them is given: RMAS_REAL_MODELS=<folder>.

Each sub-folder is a model; one without a chat template is read with ``template: none``. CI has no
such folder, and these tests do not exist there.
"""

import os
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rmas_train.agents.prompts import Prompt
from rmas_train.config import AgentConfig
from rmas_train.engine.answer import generate
from rmas_train.engine.loading import load_agent
from rmas_train.engine.prompt_batch import UnrollPrefixes, make_prompt_batch

FOLDER = os.environ.get("RMAS_REAL_MODELS")
MODELS = (
    sorted(p for p in Path(FOLDER).iterdir() if (p / "config.json").is_file()) if FOLDER else []
)
THINGS = ("lake", "bridge", "clock", "garden", "letter", "train", "river", "lamp", "window", "song")
QUESTIONS = [
    *(f"Write one sentence about a {thing}." for thing in THINGS),
    *(f"What is {7 + i} plus {3 * i}?" for i in range(10)),
]
NEW_TOKENS = 16

if MODELS:

    @pytest.mark.slow
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("folder", MODELS, ids=lambda p: p.name)
    def test_a_published_model_loads_quietly_and_writes_what_the_library_writes(folder, dtype):
        own = AutoTokenizer.from_pretrained(folder)
        template = None if own.chat_template else "none"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            config = AgentConfig(model=str(folder), dtype=dtype, template=template)
            agent = load_agent("solver", config)
        assert agent.attends_to_blocks, "frozen prefixes are reused"
        prompt = Prompt(agent, {"user": "<<question>>"})
        encoded = prompt.encode([{"question": q} for q in QUESTIONS], 1, first=True)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        for question, one in zip(QUESTIONS, encoded, strict=True):
            if own.chat_template:
                turn = [{"role": "user", "content": question}]
                ids = own.apply_chat_template(turn, add_generation_prompt=True)["input_ids"]
            else:
                ids = own(question)["input_ids"]
            assert one.ids == ids
            batch, prefix = make_prompt_batch(agent, [one], UnrollPrefixes(), {}).embed([0])
            (text,) = generate(agent, batch, prefix, NEW_TOKENS)
            out = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=NEW_TOKENS)
            new = out[0, len(ids) :]
            assert text.tokens == len(new)
            assert text.text == own.decode(new, skip_special_tokens=True)
