"""One frozen causal LM with its tokenizer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmas_train.errors import AgentError


@dataclass(frozen=True)
class Agent:
    """A frozen causal LM, its tokenizer and where it came from.

    Attributes:
        name: role in the topology.
        source: folder or hub id, as typed.
        attends_to_blocks: its layers work with ``engine.attention``; frozen prefixes need this.
        width: width d of the input embeddings (not ``config.hidden_size``, which may differ).
    """

    name: str
    model: Any  # a transformers *ForCausalLM; its classes share no useful type
    tokenizer: Any
    source: str
    revision: str | None = None
    attends_to_blocks: bool = True

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
        """Id at masked positions. Any id works, so a tokenizer without a pad token uses 0."""
        return int(self.tokenizer.pad_token_id or 0)

    def embed(self, ids: Tensor) -> Tensor:
        """What the embedding module returns, (...) -> (..., d); Gemma scales inside it."""
        return self.model.get_input_embeddings()(ids)

    def hidden(
        self, embeds: Tensor, positions: Tensor, real: Tensor | None, cache: Any | None = None
    ) -> Tensor:
        """Last hidden states after the final norm, (B, L, d), without logits.

        Args:
            embeds: (B, L, d).
            positions: (B, L).
            real: False on padding; (B, L), or longer, to include the positions that are already in
                the library's cache. None: no padding.
            cache: a transformers cache; it is extended in place.
        """
        out = self.model.base_model(
            inputs_embeds=embeds,
            attention_mask=real,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        hidden: Tensor = out.last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., d) -> (..., vocabulary), scaled or capped as some families do."""
        logits: Tensor = self.model.get_output_embeddings()(hidden)
        config = self.model.config
        if getattr(config, "logits_scaling", None):  # Granite
            logits = logits / config.logits_scaling
        if getattr(config, "logit_scale", None):  # Cohere
            logits = logits * config.logit_scale
        if getattr(config, "final_logit_softcapping", None):  # Gemma
            cap = config.final_logit_softcapping
            logits = torch.tanh(logits / cap) * cap
        return logits

    def fingerprint(self) -> str:
        """sha256 over all weights in this process: equal before and after training."""
        digest = hashlib.sha256()
        for key, tensor in sorted(self.model.state_dict().items()):
            digest.update(key.encode())
            here = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # this rank's shard
            digest.update(here.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


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


def decoder_layers(model: Any) -> nn.ModuleList:
    """The decoder layers of a causal LM: the outermost list as long as its config says."""
    count = model.config.num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise AgentError(
        f"{type(model).__name__} has no list of {count} decoder layers, so that what sharding it "
        "moves cannot be counted; use a decoder-only causal LM of transformers."
    )
