"""The configuration of an agent's language model: checked, text only, with our attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from rmas_train.config import AgentConfig
from rmas_train.loading.files import CONFIG, read_settings
from rmas_train.loading.model_files import FORMATS, ModelFiles, quiet
from rmas_train.support.hub_errors import hub_reason
from rmas_train.support.reading import short

POSITIVE = (
    *("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "vocab_size", "max_position_embeddings"),
)
MOST_LAYERS = 1000
# Keys with which a folder would choose what runs; that is up to agents.<name>.attention alone.
OURS = ("_attn_implementation", "_attn_implementation_internal", "_experts_implementation")


def read_shape(source: ModelFiles, config: AgentConfig) -> Any:
    """The configuration of the language model, whose attention is ``config.attention``.

    Of a model for text and images it is the part for text.

    Raises:
        AgentError: no valid config.json, or a family without a text model.
    """
    if not source.gguf:
        _check_settings(source, read_settings(source))
    try:
        with quiet():
            shape = AutoConfig.from_pretrained(source.where, **source.library)
    except Exception as error:  # what the family's own checks raise
        raise source.error(explain(source, error, CONFIG)) from error
    text = shape.get_text_config()
    if text is not shape:
        _check_has_text(source, shape, text)
    for one in (shape, text):
        one._attn_implementation = config.attention
    return text


def _check_settings(source: ModelFiles, settings: Mapping[str, Any], prefix: str = "") -> None:
    """Sizes are whole numbers of one or more.

    Raises:
        AgentError: names the key.
    """
    for key in (*POSITIVE, "num_hidden_layers"):
        value = settings.get(key)
        # No layers: the tensors will tell. Very many would take minutes to build.
        least, most = (0, MOST_LAYERS) if key == "num_hidden_layers" else (1, 1 << 31)
        for one in value if isinstance(value, list) else [value]:
            if one is not None and (type(one) is not int or not least <= one <= most):
                raise source.error(
                    f"{CONFIG}: key {prefix}{key} is {short(value)}, not a whole number of "
                    f"{least} to {most}; copy the file again"
                )
    text = settings.get("text_config")
    if isinstance(text, Mapping):
        _check_settings(source, text, "text_config.")
    elif text is not None:
        raise source.error(
            f"{CONFIG}: key {prefix}text_config is {short(text)}, not an object; copy it again"
        )


def _check_has_text(source: ModelFiles, shape: Any, text: Any) -> None:
    """The library has a causal LM for the text part of a composite model.

    Raises:
        AgentError: it has none; names the family.
    """
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise source.error(
            f"a model for text and images ({shape.model_type}), whose text part "
            f"({text.model_type}) the library cannot load as a language model; use a text model"
        )


def is_composite(source: ModelFiles, text: Any) -> bool:
    """Whether the folder holds more than the language model ``text``."""
    return not source.gguf and read_settings(source).get("model_type") != text.model_type


def explain(source: ModelFiles, error: Exception, file: str = "its files") -> str:
    """The library's reason in one line, with our options' names in place of the library's."""
    text = str(error)
    option = source.key.removesuffix(".model")
    if "trust_remote_code" in text:
        return (
            "it needs Python that comes with it, which is not run; use a model without, or read "
            f"that code and set {option}.trust_remote_code=true"
        )
    if isinstance(error, ImportError):
        other = f", or set {option}.attention=sdpa" if "ttention" in text else ""
        return f"{_first_lines(error)}; install that package{other}"
    if isinstance(error, OSError):
        return f"{hub_reason(error, source.where)}; {FORMATS}"
    return (
        f"the library cannot use {file}: {_first_lines(error)} ({type(error).__name__}); mend or "
        "copy the file again, or use another model"
    )


def _first_lines(error: Exception) -> str:
    """The first line, and the next where the first announces it."""
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return (f"{first} {rest[0]}" if first.endswith(":") and rest else first)[:500].rstrip(".")
