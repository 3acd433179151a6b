"""lm-evaluation-harness: model ``rmas``, registered by importing this module.

python -m rmas_train lm-eval --model rmas --model_args run=outputs/mine,rounds=2 --tasks ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from rmas_train.errors import DataError, did_you_mean
from rmas_train.serving.answerer import Reply, check_control, open_answerer
from rmas_train.serving.options import MOST, read_options, whole_number
from rmas_train.serving.questions import check_greedy, question_of

# What a task may ask of generation besides; its values change nothing in greedy decoding.
NO_EFFECT = {"top_p", "top_k", "min_p", "num_beams", "truncation"}
KNOWN = {"until", "max_gen_toks", "max_tokens", "max_new_tokens", "temperature", "do_sample"}


@register_model("rmas")
class RecursiveSystem(LM):  # type: ignore[misc,unused-ignore]
    """A trained system; the context of a request is its question.

    Other columns that the prompts name are taken from the task's document.

    Args:
        control: ``null`` or ``decoder_alone``, in place of the trained system.
        batch_size: rows per forward.
        device: of the harness, which says ``cuda:0`` unless told otherwise: without a GPU, the CPU.
        options: see ``serving.options``.
    """

    def __init__(
        self,
        control: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        del max_batch_size  # there is no search for a size
        size = 1 if batch_size == "auto" else batch_size
        self._batch_size = whole_number("batch_size", size, 1, MOST)
        if device is None or (device.startswith("cuda") and not torch.cuda.is_available()):
            device = "auto"
        self._answerer = open_answerer(read_options({"device": device} | options))
        self._control = check_control(control)
        self._counts = {"text_tokens": 0, "latent_steps": 0, "questions": 0}

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, each up to the first of its stops."""
        del disable_tqdm
        answers: dict[int, str] = {}
        for wanted, group in self._alike(requests).items():
            rows = [self._row(requests[i]) for i in group]
            longest, stops = wanted
            replies = self._answerer.answer(rows, self._control, longest, stops, self._batch_size)
            self._count(replies)
            for i, reply in zip(group, replies, strict=True):
                answers[i] = reply.text
                self.cache_hook.add_partial("generate_until", requests[i].args, reply.text)
        return [answers[i] for i in range(len(requests))]

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """How probable each continuation is as the beginning of the decoder's answer."""
        del disable_tqdm
        rows = [self._row(request) for request in requests]
        texts = [request.args[1] for request in requests]
        found = self._answerer.score(rows, texts, self._control, self._batch_size)
        scores = [(score.log_probability, score.is_greedy) for score in found]
        for request, score in zip(requests, scores, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, score)
        return scores

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        raise NotImplementedError(
            "model rmas answers questions, so it gives no probability to a text without one "
            "(perplexity tasks); generate_until, multiple_choice and loglikelihood tasks work."
        )

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The question itself: each agent's own chat template comes later."""
        del add_generation_prompt
        return question_of(chat_history)

    @property
    def tokenizer_name(self) -> str:
        """Of the harness' cache of requests."""
        return f"rmas-{self._answerer.fingerprint}"

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes into its results besides."""
        system = self._answerer.system
        about: dict[str, Any] = {"rounds": system.rounds, "latent_length": system.latent_length}
        about |= {"links_sha256": self._answerer.fingerprint, "control": self._control}
        return {"rmas": about | self._counts}

    def _row(self, request: Instance) -> Mapping[str, Any]:
        """The question, and the columns of the document that the prompts name."""
        document = request.doc if isinstance(request.doc, Mapping) else {}
        own = {c: document[c] for c in self._answerer.columns if c in document}
        return own | {"question": request.args[0]}

    def _alike(
        self, requests: Sequence[Instance]
    ) -> dict[tuple[int | None, tuple[str, ...]], list[int]]:
        """Requests that can be answered together, by their longest answer and stops."""
        groups: dict[tuple[int | None, tuple[str, ...]], list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(read_settings(request.args[1]), []).append(i)
        return groups

    def _count(self, replies: Sequence[Reply]) -> None:
        self._counts["questions"] += len(replies)
        self._counts["text_tokens"] += sum(r.tokens for r in replies)
        self._counts["latent_steps"] += sum(r.latent_steps for r in replies)


def read_settings(settings: Mapping[str, Any]) -> tuple[int | None, tuple[str, ...]]:
    """Longest answer and stops of a task's ``generation_kwargs``.

    Raises:
        DataError: it asks for sampling, or for something unknown.
    """
    if unknown := sorted(set(settings) - KNOWN - NO_EFFECT):
        hint = did_you_mean(unknown[0], KNOWN)
        raise DataError(f"generation_kwargs has {unknown[0]}, which is not offered. {hint}")
    if settings.get("do_sample"):
        raise DataError("do_sample=true: answers are decoded greedily; give do_sample=false.")
    check_greedy(settings.get("temperature"))
    until = settings.get("until") or []
    stops = (until,) if isinstance(until, str) else tuple(until)
    longest = [settings[k] for k in sorted(KNOWN) if k.startswith("max_") and settings.get(k)]
    return (whole_number("max_gen_toks", longest[0], 1, MOST) if longest else None), stops
