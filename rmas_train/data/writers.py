"""Writers: what writes role texts into a data set; a local model, or an endpoint over HTTP."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import GenerationConfig

from rmas_train.agents.agent import Agent
from rmas_train.agents.loading import load_agent
from rmas_train.agents.prompts import Prompt
from rmas_train.config import AgentConfig
from rmas_train.errors import AgentError, ConfigError

OPENS, CLOSES = "<think>", "</think>"
# Reasons under which a request is dropped.
TOO_LONG, CUT, EMPTY, REFUSED = "prompt_too_long", "text_cut", "text_empty", "text_refused"


@dataclass(frozen=True)
class Request:
    """What a writer is asked.

    Attributes:
        attempt: tells repeats of the same request apart.
        temperature: in place of the writer's own; the same for all requests of one call.
    """

    user: str
    system: str | None = None
    attempt: int = 0
    temperature: float | None = None


@dataclass(frozen=True)
class Written:
    """What came of a request: a whole text, or the reason why there is none."""

    text: str | None
    dropped: str | None = None


@dataclass(frozen=True)
class WriterOptions:
    """How a writer is loaded and what it is asked to do; the options of a recipe."""

    writer: str
    model: str | None = None  # the endpoint's name for it
    revision: str | None = None
    dtype: str = "bfloat16"
    temperature: float = 0.0
    max_new_tokens: int = 1024
    max_prompt_tokens: int = 8192
    batch_size: int = 8
    parallel: int = 8
    key_env: str = "WRITER_API_KEY"
    timeout: float = 600.0
    retries: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "max_prompt_tokens", "batch_size", "parallel"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: give 1 or more.")
        if not 0 <= self.temperature <= 2 or self.retries < 0 or not self.timeout > 0:
            raise ConfigError(
                f"temperature={self.temperature} retries={self.retries} timeout={self.timeout}: "
                "give a temperature of 0 to 2, 0 or more retries and a time above 0 seconds."
            )


class Writer(Protocol):
    """Anything that answers requests.

    Attributes:
        batch_size: requests that are asked together; 1 where they do not touch each other.
        parallel: such units under way at once.
    """

    batch_size: int
    parallel: int

    def describe(self) -> dict[str, Any]:
        """Everything that its texts depend on, as plain data without secrets."""
        ...

    def write(self, requests: Sequence[Request], seed: int) -> list[Written]:
        """An outcome for each request; ``seed`` decides what is drawn."""
        ...


def open_writer(options: WriterOptions) -> Writer:
    """The writer that ``writer`` names: an http(s) URL, a model folder, or a hub id.

    Raises:
        ConfigError: none is named, or a library is missing.
        AgentError: the model cannot be loaded.
    """
    if not options.writer:
        raise ConfigError(
            "writer is empty; give a model folder or hub id, or the URL of an OpenAI-compatible "
            "endpoint (data.recipe_options.writer=...)."
        )
    if options.writer.startswith(("http://", "https://")):
        from rmas_train.data.endpoint import EndpointWriter

        return EndpointWriter(options)
    return LocalWriter(options)


def visible(text: str) -> Written:
    """A text without the thoughts that a reasoning model writes before it.

    Some templates open the thought themselves, so that only its end is written.
    """
    thinks = text.lstrip().startswith(OPENS)
    if CLOSES in text and (thinks or OPENS not in text):
        text = text.partition(CLOSES)[2]
    elif thinks:
        return Written(None, CUT)  # it never came to an end
    return Written(text.strip()) if text.strip() else Written(None, EMPTY)


class LocalWriter:
    """A Hugging Face model on this machine, loaded as an agent is: safetensors, no foreign code."""

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
        self._ends = _end_ids(self._agent)
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
        """The request as the chat template frames it; marks in its text stay ordinary text."""
        if request.system not in self._prompts:
            texts = {"system": request.system, "user": "<<text>>"}
            self._prompts[request.system] = Prompt(self._agent, texts)
        (encoded,) = self._prompts[request.system].encode([{"text": request.user}], 1, first=False)
        return encoded.ids

    @torch.no_grad()
    def _generate(self, prompts: list[list[int]], heat: float) -> list[list[int]]:
        """New token ids of each prompt, padded to the left so that all end together."""
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
    """Load the model, with its complaints in the words of a recipe's options."""
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


def _end_ids(agent: Agent) -> list[int]:
    """Tokens that end a text: the tokenizer's, and those that the model's own settings add."""
    own = getattr(agent.model.generation_config, "eos_token_id", None)
    listed = own if isinstance(own, list) else [own]
    return sorted({agent.end_id, *(i for i in listed if i is not None)})
