"""The class behind inspect-ai's model provider ``rmas``."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Mapping
from typing import Any, Literal

from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, ModelUsage
from inspect_ai.tool import ToolChoice, ToolInfo

from rmas_train.engine.decoding import Decoding
from rmas_train.errors import DataError
from rmas_train.serving.answerer import Reply, check_control, open_answerer
from rmas_train.serving.options import read_options
from rmas_train.serving.questions import question_of, read_decoding
from rmas_train.support.reading import short

# Fields of a generate config that inspect itself uses.
NO_EFFECT = {
    *("cache", "batch", "max_retries", "timeout", "attempt_timeout", "max_connections"),
    *("adaptive_connections", "system_message", "extra_headers", "max_tool_output"),
}
READ = {"max_tokens", "stop_seqs", "temperature", "top_p", "top_k", "seed", "extra_body"}
NEUTRAL = {"num_choices": 1, "logprobs": False, "best_of": 1}


class InspectModel(ModelAPI):  # type: ignore[misc,unused-ignore]
    """A trained system; the one user message of a sample is its question.

    Other columns that the prompts name come from ``extra_body={"columns": {...}}`` of the generate
    config; columns there that no prompt names are left out, so a sample's metadata will do.

    Args:
        model_name: run folder; or any name, with the argument ``links``.
        control: ``null`` or ``decoder_alone``, in place of the trained system.
        options: see ``serving.options``.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        control: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        source = {} if "links" in options or "run" in options else {"run": model_name}
        self._answerer = open_answerer(read_options(source | options))
        self._control = check_control(control)
        self._one_at_a_time = threading.Lock()

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """The answer to a sample's question.

        Raises:
            DataError: tools, other messages than one of the user, a setting that is not offered, a
                missing column.
        """
        del tool_choice
        if tools:
            raise DataError(f"tools={[t.name for t in tools]}: none can be called; leave them out.")
        decoding = decoding_of(config)
        messages = [m.model_dump(include={"role", "content"}) for m in input]
        row = self._columns(config) | {"question": question_of(messages)}
        return self._output(await asyncio.to_thread(self._answer, row, config, decoding))

    def max_connections(self) -> int:
        """Samples are answered one at a time."""
        return 1

    def _answer(self, row: Mapping[str, Any], config: GenerateConfig, decoding: Decoding) -> Reply:
        how = self._control, config.max_tokens, config.stop_seqs or []
        with self._one_at_a_time:
            return self._answerer.answer([row], *how, decoding=decoding)[0]

    def _columns(self, config: GenerateConfig) -> dict[str, Any]:
        """Columns besides the question, which the prompts name."""
        given = (config.extra_body or {}).get("columns", {})
        if not isinstance(given, Mapping):
            raise DataError(f"columns is {short(given)}; give names with texts.")
        return {c: given[c] for c in self._answerer.columns if c in given}

    def _output(self, reply: Reply) -> ModelOutput:
        reason: Literal["max_tokens", "stop"] = "max_tokens" if reply.is_full else "stop"
        output = ModelOutput.from_content(self.model_name, reply.text, reason)
        total = reply.prompt_tokens + reply.tokens
        output.usage = ModelUsage(
            input_tokens=reply.prompt_tokens, output_tokens=reply.tokens, total_tokens=total
        )
        output.metadata = {
            "latent_steps": reply.latent_steps,
            "links_sha256": self._answerer.fingerprint,
            "control": self._control,
        }
        return output


def decoding_of(config: GenerateConfig) -> Decoding:
    """How tokens are chosen; without a seed, other ones are drawn for each sample.

    Raises:
        DataError: names a setting that is not offered, or its value.
    """
    asked = config.model_dump(exclude_none=True)
    for key, value in asked.items():
        if key in READ or key in NO_EFFECT or value == NEUTRAL.get(key, ()):
            continue
        raise DataError(f"{key}={short(value)} is not offered; leave it out.")
    return read_decoding(asked, seed=secrets.randbits(32))
