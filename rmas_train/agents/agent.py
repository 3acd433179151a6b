"""One frozen causal LM with its tokenizer."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rmas_train.agents.template import ChatTemplate
from rmas_train.errors import AgentError

STRETCHED = ("longrope", "dynamic")  # RoPE whose frequencies depend on the longest row


@dataclass(frozen=True)
class Agent:
    """A frozen causal LM, its tokenizer and where it came from.

    Attributes:
        name: role in the topology.
        source: folder or hub id, as typed.
        attends_to_blocks: its layers work with ``engine.attention``; frozen prefixes need this.
        template: the option ``agents.<name>.template``.
        adapter, adapter_revision: of a PEFT adapter that was merged into it.
        width: width d of the input embeddings (not ``config.hidden_size``, which may differ).
    """

    name: str
    model: Any  # a transformers *ForCausalLM; its classes share no useful type
    tokenizer: Any
    source: str
    revision: str | None = None
    attends_to_blocks: bool = True
    template: Any = None
    adapter: str | None = None
    adapter_revision: str | None = None

    @property
    def width(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def rows(self) -> int:
        """Rows of its input embedding; token ids are below it."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    @cached_property
    def chat(self) -> ChatTemplate:
        """Its chat template."""
        where = f"agents.{self.name}.model={self.source}"
        option = f"agents.{self.name}.template"
        return ChatTemplate(self.tokenizer, self.template, where, option)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a text, any of them: the tokenizer's, those of the model's generation
        settings (chat models end a turn with others), and the mark of its chat template."""
        settings = getattr(self.model, "generation_config", None)
        listed = getattr(settings, "eos_token_id", None)
        found = [*(listed if isinstance(listed, list) else [listed]), self.tokenizer.eos_token_id]
        if after := self._after:
            added = set(self.tokenizer.get_added_vocab().values())
            found += [i for i in after if i in added][:1]
        return frozenset(int(i) for i in found if i is not None)

    @property
    def end_id(self) -> int:
        """The end-of-text token, for texts that the chat template does not end."""
        own = self.tokenizer.eos_token_id
        return int(min(self.end_ids) if own is None else own)

    @property
    def ends_in_template(self) -> bool:
        """The chat template writes a token that ends a text after the agent's own text."""
        return not self.end_ids.isdisjoint(self._after)

    @cached_property
    def _after(self) -> list[int]:
        """What the chat template writes after the agent's own text; nothing without a template."""
        has_none = self.template is None and getattr(self.tokenizer, "chat_template", None) is None
        after = "" if has_none else self.chat.answer.after
        ids = self.tokenizer([after], add_special_tokens=False)["input_ids"][0] if after else []
        return list(ids)

    @cached_property
    def special(self) -> re.Pattern[str]:
        """The text of any special token."""
        marks = sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, marks)) or r"(?!)")

    @property
    def pad_id(self) -> int:
        """Id at masked positions. Any id works; 0 where the tokenizer has none of the model's."""
        own = int(self.tokenizer.pad_token_id or 0)
        return own if own < self.rows else 0

    @property
    def most_positions(self) -> int | None:
        """Positions that it can read; None: no limit is known.

        Some RoPE families stretch their positions once a batch is longer than what they were
        trained with; a row would then depend on the rows beside it, so that length is the limit.
        """
        config = self.model.config
        found = [getattr(config, "max_position_embeddings", None)]
        rope = getattr(config, "rope_parameters", None) or {}
        kinds = [rope, *(part for part in rope.values() if isinstance(part, dict))]
        if any(part.get("rope_type") in STRETCHED for part in kinds):
            found.append(getattr(config, "original_max_position_embeddings", None))
            found += [part.get("original_max_position_embeddings") for part in kinds]
        known = [int(one) for one in found if one]
        return min(known, default=None)

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
