"""lm-evaluation-harness: model ``rmas``, registered by importing this module.

python -m rmas_train lm-eval --model rmas --model_args run=outputs/mine,rounds=2 --tasks ...
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from rmas_train.engine.decoding import Decoding
from rmas_train.errors import DataError, did_you_mean
from rmas_train.serving.answerer import Reply, check_control, open_answerer
from rmas_train.serving.options import MOST, read_options, whole_number
from rmas_train.serving.questions import question_of, read_decoding
from rmas_train.support.reading import short
from rmas_train.systems.base import SAMPLE

KNOWN = {
    *("until", "max_gen_toks", "max_tokens", "max_new_tokens"),
    *("do_sample", "temperature", "top_p", "top_k"),
}
# What a task may ask of generation besides, and the values that ask for nothing; where tokens are
# not drawn, others change nothing.
NEUTRAL = {"min_p": (0, None), "num_beams": (1, None), "truncation": (False, True, None)}
Settings = tuple[int | None, tuple[str, ...], Decoding]


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
        """Answers, each up to the first of its stops; a request that comes again is another sample
        of its question."""
        del disable_tqdm
        answers: dict[int, str] = {}
        for (longest, stops, decoding), group in self._alike(requests).items():
            rows = _as_samples([self._row(requests[i]) for i in group])
            how = self._control, longest, stops, self._batch_size, decoding
            replies = self._answerer.answer(rows, *how)
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

    def _alike(self, requests: Sequence[Instance]) -> dict[Settings, list[int]]:
        """Requests that can be answered together."""
        groups: dict[Settings, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(read_settings(request.args[1]), []).append(i)
        return groups

    def _count(self, replies: Sequence[Reply]) -> None:
        self._counts["questions"] += len(replies)
        self._counts["text_tokens"] += sum(r.tokens for r in replies)
        self._counts["latent_steps"] += sum(r.latent_steps for r in replies)


def _as_samples(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    seen: Counter[str] = Counter()
    numbered = []
    for row in rows:
        key = repr(sorted(row.items()))
        numbered.append({**row, SAMPLE: seen[key]})
        seen[key] += 1
    return numbered


def read_settings(settings: Mapping[str, Any]) -> Settings:
    """Longest answer, stops and decoding of a task's ``generation_kwargs``.

    Raises:
        DataError: names what is unknown or not offered.
    """
    if unknown := sorted(set(settings) - KNOWN - set(NEUTRAL)):
        hint = did_you_mean(unknown[0], KNOWN)
        raise DataError(f"generation_kwargs has {unknown[0]}, which is not offered. {hint}")
    decoding = _decoding(settings)
    for key, values in NEUTRAL.items():
        if decoding.temperature and settings.get(key) not in values:
            raise DataError(f"{key}={short(settings[key])} is not offered; leave it out.")
    until = settings.get("until") or []
    stops = (until,) if isinstance(until, str) else tuple(until)
    longest = [settings[k] for k in sorted(KNOWN) if k.startswith("max_") and settings.get(k)]
    most = whole_number("max_gen_toks", longest[0], 1, MOST) if longest else None
    return most, stops, decoding


def _decoding(settings: Mapping[str, Any]) -> Decoding:
    """Of transformers' arguments: ``do_sample`` stands above a temperature."""
    draws, temperature = settings.get("do_sample"), settings.get("temperature")
    if draws is False:
        return Decoding()
    if draws and temperature == 0:
        raise DataError("do_sample=true with temperature=0: change one of the two.")
    asked = {"temperature": 1.0} if draws and temperature is None else {}
    return read_decoding({**settings, **asked}, seed=0)
