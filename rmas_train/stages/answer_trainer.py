"""Supervised fine-tuning of one agent, by the Trainer of transformers; with peft where LoRA is
asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import Prompt, tokenise_whole
from rmas_train.engine.rollout import at_least_float32
from rmas_train.support.output import say

IGNORED = -100
LEARNING_RATES = {"lora": 2e-4, "sft": 2e-5}


@dataclass(frozen=True)
class Examples(Dataset[dict[str, list[int]]]):
    """Prompts with their answers, in the order in which they are learnt.

    Attributes:
        rows: one per example; the column ``answer`` is what the agent shall write.
    """

    prompt: Prompt
    rows: Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        row = self.rows[index]
        (prompt,) = self.prompt.encode([row], 1, first=True)
        (answer,) = tokenise_whole(self.prompt.agent, [str(row["answer"])])
        labels = [IGNORED] * len(prompt.ids) + answer
        return {"input_ids": prompt.ids + answer, "labels": labels}


class AnswerTrainer(Trainer):
    """Takes examples in their order; cross-entropy of the answers alone."""

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        found: Any = train_dataset or self.train_dataset
        return SequentialSampler(found)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean over the answer tokens of the whole batch; logits at their positions only."""
        assert not return_outputs
        labels_BL = inputs.pop("labels")
        last = int((labels_BL != IGNORED).sum(1).max())
        out = model(**inputs, logits_to_keep=last + 1, use_cache=False)
        logits_BAV = out.logits[:, -last - 1 : -1]  # before each answer token
        flat_NV = at_least_float32(logits_BAV.flatten(0, 1))
        targets_N = labels_BL[:, -last:].flatten()
        total = F.cross_entropy(flat_NV, targets_N, ignore_index=IGNORED, reduction="sum")
        return total / (num_items_in_batch or int((targets_N != IGNORED).sum()))


class Said(TrainerCallback):
    """Every logged step, in the run's own log."""

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: ARG002
        line = more.get("logs") or {}
        if "loss" in line:
            say(f"fine-tuning {state.global_step}/{state.max_steps}  loss {line['loss']:.4f}")


def collate(examples: Sequence[Mapping[str, list[int]]], pad: int) -> dict[str, Tensor]:
    """Examples as one batch, padded at the left, so that answers end together."""
    longest = max(len(one["input_ids"]) for one in examples)

    def padded(key: str, fill: int) -> Tensor:
        return torch.tensor([[fill] * (longest - len(one[key])) + one[key] for one in examples])

    lengths = torch.tensor([[len(one["input_ids"])] for one in examples])
    positions_BL = torch.arange(longest)[None] - (longest - lengths)
    return {
        "input_ids": padded("input_ids", pad),
        "labels": padded("labels", IGNORED),
        "attention_mask": (positions_BL >= 0).long(),
        "position_ids": positions_BL.clamp(min=0),
    }


def trainable(agent: Agent, method: str, rank: int, alpha: int, seed: int) -> Any:
    """The agent's model with what is to be trained: LoRA's matrices, or everything.

    Args:
        agent: frozen; its weights get gradients with ``sft``.
        method: ``lora`` or ``sft``.
        rank, alpha: of LoRA.
        seed: of LoRA's start.
    """
    if method == "sft":
        return agent.model.requires_grad_(True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        options = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear")
        return get_peft_model(agent.model, options)


def finetune(
    model: Any,
    examples: Examples,
    arguments: Mapping[str, Any],
    folder: Path,
    resume: bool,
) -> list[dict[str, float]]:
    """Train in place.

    Args:
        model: see ``trainable``.
        examples: as many as all steps need.
        arguments: of ``TrainingArguments``.
        folder: of checkpoints.
        resume: go on from the newest one.

    Returns:
        what was logged: step, loss, grad_norm, learning_rate.
    """
    agent = examples.prompt.agent
    options = TrainingArguments(
        str(folder),
        report_to="none",
        remove_unused_columns=False,
        save_total_limit=1,
        use_cpu=agent.device.type == "cpu",
        disable_tqdm=True,
        **arguments,
    )
    trainer = AnswerTrainer(
        model,
        options,
        data_collator=lambda batch: collate(batch, agent.pad_id),
        train_dataset=examples,
        callbacks=[Said()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=resume)
    return [line for line in trainer.state.log_history if "loss" in line]
