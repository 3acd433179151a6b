"""A writer on this machine: a Hugging Face model, loaded as an agent is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import Prompt
from rmas_train.config import AgentConfig
from rmas_train.engine.loading import load_agent
from rmas_train.errors import AgentError, ConfigError
from rmas_train.recipes.writing import CUT, TOO_LONG, Request, WriterOptions, Written, visible


class LocalWriter:
    """A Hugging Face model on this machine, loaded like an agent: safetensors, no code with it."""

    parallel = 1

    def __init__(self, options: WriterOptions) -> None:
        self.options, self.batch_size = options, options.batch_size
        self._agent = _load(options)
        model = self._agent.model
        self._longest = options.max_prompt_tokens
        if (known := getattr(model.config, "max_position_embeddings", None)) is not None:
            self._longest = min(self._longest, known - options.max_new_tokens)
        if self._longest < 1:
            raise ConfigError(
                f"max_new_tokens={options.max_new_tokens}: {options.writer} reads {known} tokens, "
                "so no room is left for a prompt; give less."
            )
        self._ends = sorted(self._agent.end_ids)
        # Only what is asked for here: families ship sampling settings of their own.
        model.generation_config = GenerationConfig(
            eos_token_id=self._ends, pad_token_id=self._agent.pad_id
        )
        self._prompts: dict[str | None, Prompt] = {}
        self._fingerprint = self._agent.fingerprint()

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "local model",
            "model": self.options.writer,
            "revision": self._agent.revision,
            "sha256": self._fingerprint,
            "dtype": self.options.dtype,
            "temperature": self.options.temperature,
            "max_new_tokens": self.options.max_new_tokens,
            "max_prompt_tokens": self._longest,
            "seed": self.options.seed,
        }

    def write(self, requests: Sequence[Request], seed: int) -> list[Written]:
        prompts = [self._encode(r) for r in requests]
        fits = [i for i, ids in enumerate(prompts) if len(ids) <= self._longest]
        written = [Written(None, TOO_LONG) for _ in requests]
        if fits:
            torch.manual_seed((seed + self.options.seed) % 2**32)
            heat = requests[0].temperature
            heat = self.options.temperature if heat is None else heat
            for i, ids in zip(fits, self._generate([prompts[i] for i in fits], heat), strict=True):
                written[i] = self._read(ids)
        return written

    def _encode(self, request: Request) -> list[int]:
        """The request in the model's chat template; marks in its text stay ordinary text."""
        if request.system not in self._prompts:
            texts = {"system": request.system, "user": "<<text>>"}
            self._prompts[request.system] = Prompt(self._agent, texts)
        (encoded,) = self._prompts[request.system].encode([{"text": request.user}], 1, first=False)
        return encoded.ids

    @torch.no_grad()
    def _generate(self, prompts: list[list[int]], heat: float) -> list[list[int]]:
        """New token ids of each prompt; prompts are padded at the left, so they end together."""
        longest = max(map(len, prompts))
        pad = self._agent.pad_id
        ids_BL = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
        real_BL = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        config = GenerationConfig(
            max_new_tokens=self.options.max_new_tokens,
            do_sample=heat > 0,
            eos_token_id=self._ends,
            pad_token_id=pad,
            **({"temperature": float(heat), "top_k": 0} if heat > 0 else {}),
        )
        device = self._agent.device
        out_BL = self._agent.model.generate(
            input_ids=ids_BL.to(device),
            attention_mask=real_BL.to(device),
            generation_config=config,
        )
        new: list[list[int]] = out_BL[:, longest:].tolist()
        return new

    def _read(self, ids: list[int]) -> Written:
        end = next((i for i, token in enumerate(ids) if token in self._ends), None)
        if end is None:
            return Written(None, CUT)
        return visible(self._agent.tokenizer.decode(ids[:end], skip_special_tokens=True))


def _load(options: WriterOptions) -> Agent:
    """Load the model; errors name the recipe's options."""
    config = AgentConfig(model=options.writer, revision=options.revision, dtype=options.dtype)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            agent = load_agent("writer", config, device)
    except AgentError as error:
        raise AgentError(_reworded(str(error))) from error
    for warning in caught:
        warnings.warn(_reworded(str(warning.message)), warning.category, stacklevel=3)
    return agent


def _reworded(text: str) -> str:
    return text.replace("agents.writer.model", "writer").replace("agents.writer.", "writer_")
