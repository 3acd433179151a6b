"""One frozen causal LM with its tokenizer."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from rmas_train.config import AgentConfig
from rmas_train.errors import AgentError
from rmas_train.resources import find_path

HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


@dataclass(frozen=True)
class Agent:
    """A frozen causal LM, its tokenizer and where it came from.

    Attributes:
        name: role in the topology.
        source: folder or hub id, as typed.
        width: width d of the input embeddings (not ``config.hidden_size``, which may differ).
    """

    name: str
    model: Any  # a transformers *ForCausalLM; its classes share no useful type
    tokenizer: Any
    source: str
    revision: str | None = None

    @property
    def width(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    @property
    def end_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """Id under masked positions; any id serves, so a tokenizer without one needs none."""
        return int(self.tokenizer.pad_token_id or 0)

    def embed(self, ids: Tensor) -> Tensor:
        """What the embedding module returns, (...) -> (..., d); Gemma scales inside it."""
        return self.model.get_input_embeddings()(ids)

    def fingerprint(self) -> str:
        """sha256 over all weights: equal before and after training, as the agent is frozen."""
        digest = hashlib.sha256()
        for key, tensor in sorted(self.model.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


def load_agent(name: str, config: AgentConfig, device: torch.device | str = "cpu") -> Agent:
    """Load and freeze an agent.

    Args:
        name: its role in the topology.
        config: where it is and how to load it.
        device: where its weights go.

    Raises:
        AgentError: the folder is missing or is not a Hugging Face model folder.
    """
    where = _locate(name, config)
    transformers_logging.disable_progress_bar()  # it would stand in log files as control characters
    kwargs = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **kwargs)
        model: Any = AutoModelForCausalLM.from_pretrained(
            where,
            dtype=getattr(torch, config.dtype),
            attn_implementation=config.attention,
            **kwargs,
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise AgentError(
            f"agents.{name}.model={config.model} cannot be loaded: {reason}"
        ) from error
    if tokenizer.chat_template is None:
        raise AgentError(
            f"agents.{name}.model={config.model} has no chat template; use an instruction-tuned "
            "model, or put a chat_template.jinja into its folder."
        )
    model.to(device)
    return freeze(Agent(name, model, tokenizer, config.model, config.revision))


def freeze(agent: Agent) -> Agent:
    """No gradient into the weights, no dropout."""
    model: nn.Module = agent.model
    model.requires_grad_(False)
    model.eval()
    return agent


def assert_frozen(agents: dict[str, Agent]) -> None:
    for agent in agents.values():
        trainable = [n for n, p in agent.model.named_parameters() if p.requires_grad]
        assert not trainable, f"agent {agent.name} is not frozen: {trainable[:3]}"


def _locate(name: str, config: AgentConfig) -> str:
    if not config.model:
        raise AgentError(f"agents.{name}.model is empty; give a folder or a hub id.")
    path = find_path(config.model)
    if path is None and (Path(config.model).is_absolute() or not HUB_ID.match(config.model)):
        raise AgentError(
            f"agents.{name}.model={config.model}: no such folder; check the path, or give a hub "
            "id of the form organisation/model."
        )
    if path is not None and not (path / "config.json").exists():
        raise AgentError(
            f"agents.{name}.model={config.model}: no config.json there; give the folder that "
            "save_pretrained wrote."
        )
    return str(path or config.model)
