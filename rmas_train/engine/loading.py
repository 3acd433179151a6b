"""Loading an agent: its files, its weights, its tokenizer, its chat template, tried out."""

from __future__ import annotations

import warnings

import torch

from rmas_train.agents.agent import Agent, freeze
from rmas_train.agents.prompts import tokenise
from rmas_train.config import AgentConfig
from rmas_train.engine.probe import check_agent
from rmas_train.errors import RemoteCodeWarning, UnpinnedWarning
from rmas_train.loading.adapters import merge_adapter
from rmas_train.loading.files import check_folder
from rmas_train.loading.model import load_model
from rmas_train.loading.model_files import ModelFiles, find_files, find_source
from rmas_train.loading.quantised import check_quantised
from rmas_train.loading.shape import read_shape
from rmas_train.loading.tokenizer import check_token_ids, load_tokenizer


def load_agent(name: str, config: AgentConfig, device: torch.device | str = "cpu") -> Agent:
    """Load, check and freeze an agent.

    Weights come from safetensors (or a GGUF file) alone, and code from this package and its
    libraries alone unless ``trust_remote_code`` is asked for.

    Args:
        name: its role in the topology.
        config: where it is and how to load it.
        device: where its weights go.

    Raises:
        AgentError: something about its files is missing, damaged, not of one model, or unsupported.
    """
    config = config.on(torch.device(device).type)
    source = find_source(name, config)
    warn_of_code(name, config)
    if not source.gguf:
        check_folder(source)
    shape = read_shape(source, config)
    if config.quantization is not None or hasattr(shape, "quantization_config"):
        check_quantised(source, shape, config.quantization)
    tokenizer = load_tokenizer(source)
    agent = Agent(name, None, tokenizer, config.model, source.commit, template=config.template)
    _check_template(agent)
    model = load_model(source, config, shape, torch.device(device))
    adapter = _adapter(name, config)
    if adapter is not None:
        model = merge_adapter(adapter, model)
    warn_of_revision(f"agents.{name}.revision", config.model, config.revision, source.commit)
    agent = Agent(
        name,
        model,
        tokenizer,
        config.model,
        source.commit,
        template=config.template,
        adapter=config.adapter,
        adapter_revision=adapter.commit if adapter else None,
    )
    check_token_ids(source, tokenizer, agent.rows, {*agent.end_ids, *_framing_ids(agent)})
    if not agent.end_ids:
        raise source.error(
            "no token ends a text: give its tokenizer_config.json an eos_token, or its "
            "generation_config.json an eos_token_id"
        )
    return check_agent(freeze(agent))


def _adapter(name: str, config: AgentConfig) -> ModelFiles | None:
    if config.adapter is None:
        return None
    found = find_files(f"agents.{name}.adapter", config.adapter, config.adapter_revision)
    key = f"agents.{name}.adapter_revision"
    warn_of_revision(key, config.adapter, config.adapter_revision, found.commit)
    return found


def _check_template(agent: Agent) -> None:
    """Its chat template works for every kind of prompt, before anything large is read."""
    assert agent.chat.answer and agent.chat.prompt(None) and agent.chat.prompt("x")


def _framing_ids(agent: Agent) -> set[int]:
    """Tokens that its chat template writes around texts."""
    frames = agent.chat.answer, agent.chat.prompt(None), agent.chat.prompt("x")
    texts = [text for frame in frames for text in (frame.before, frame.after)]
    return {i for ids in tokenise(agent, texts) for i in ids}


def warn_of_code(name: str, config: AgentConfig) -> None:
    if config.trust_remote_code:
        warnings.warn(
            f"agents.{name}.trust_remote_code is on: agent {name} RUNS PYTHON that comes with "
            f"{config.model}.",
            RemoteCodeWarning,
            stacklevel=3,
        )


def warn_of_revision(key: str, model: str, revision: str | None, commit: str | None) -> None:
    if commit is not None and revision is None:
        warnings.warn(
            f"{model} has no revision, so results are not pinned; this run has {commit}: set "
            f"{key}={commit}.",
            UnpinnedWarning,
            stacklevel=3,
        )
