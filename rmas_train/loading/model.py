"""Reading the weights: every tensor that the model needs, none beside, each of its shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from rmas_train.config import AgentConfig
from rmas_train.loading.files import INDEX, WEIGHTS, Stored, stored_tensors
from rmas_train.loading.model_files import ModelFiles, quiet
from rmas_train.loading.quantised import check_states, keep_gradients, loading_options
from rmas_train.loading.shape import explain, is_composite

FLOATS = ("F64", "F32", "F16", "BF16")
EMBEDDING = "embed_tokens.weight"


def load_model(source: ModelFiles, config: AgentConfig, shape: Any, device: torch.device) -> Any:
    """A causal LM with all of its weights, on ``device``.

    Raises:
        AgentError: a tensor is missing, unexpected, of another shape, or holds NaN.
    """
    stored = {} if source.gguf else stored_tensors(source)
    composite = bool(stored) and is_composite(source, shape)
    dtype = getattr(torch, config.dtype)
    extra: dict[str, Any] = {}
    if config.quantization is not None or hasattr(shape, "quantization_config"):
        check_states(source, shape, stored)
        # Such weights cannot be moved later.
        extra = loading_options(config.quantization, dtype) | {"device_map": {"": device}}
    if not hasattr(shape, "quantization_config"):
        _check_kinds(source, stored)
    if composite:
        extra["key_mapping"] = _text_keys(source, stored)
    if not source.gguf:
        extra |= {"config": shape, "use_safetensors": True}
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source.where,
                dtype=dtype,
                attn_implementation=config.attention,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are told below, by name
                **extra,
                **source.library,
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the library makes of a user's files
        raise source.error(explain(source, error)) from error
    model, report = loaded
    _check_report(source, report, stored, composite)
    _check_finite(source, model.named_parameters())
    if "device_map" not in extra:
        return model.to(device)
    keep_gradients(model)
    return model


def _check_kinds(source: ModelFiles, stored: Mapping[str, Stored]) -> None:
    """Weights are floating-point numbers: quantised ones without their scales would load as noise.

    Raises:
        AgentError: names the first one that is not.
    """
    for key, one in stored.items():
        if key.endswith(".weight") and one.dtype not in FLOATS:
            raise source.error(
                f"{one.file}: {key} is stored as {one.dtype}, and config.json has no key "
                "quantization_config that says how to read it; use the unquantised model"
            )


def _text_keys(source: ModelFiles, stored: Mapping[str, Stored]) -> dict[str, str]:
    """Patterns that turn the text part's keys of a composite model into a language model's.

    Published layouts differ: ``language_model.model.``, ``model.language_model.``.
    """
    keys = [key for key in stored if key.endswith(EMBEDDING)]
    if len(keys) != 1:
        raise source.error(
            f"{len(keys)} tensors end in {EMBEDDING}, so its text part cannot be told; use a text "
            "model"
        )
    prefix = keys[0].removesuffix(EMBEDDING)
    mapping = {f"^{re.escape(prefix)}": "model."}
    if prefix.startswith("language_model."):
        mapping[r"^language_model\.lm_head\."] = "lm_head."
    return mapping


def _check_report(
    source: ModelFiles, report: Mapping[str, Any], stored: Mapping[str, Stored], composite: bool
) -> None:
    """Nothing is missing, nothing is left over, every shape fits.

    Raises:
        AgentError: names up to three tensors and their file.
    """
    wrong = {str(key): (found, wanted) for key, found, wanted in report["mismatched_keys"]}
    if wrong:
        key, (found, wanted) = sorted(wrong.items())[0]
        raise source.error(
            f"{_file_of(key, stored)}: {key} has shape {list(found)}, config.json asks for "
            f"{list(wanted)} ({len(wrong)} such tensors); the two are not of one model"
        )
    missing = sorted(report["missing_keys"])
    extra = sorted(key for key in report["unexpected_keys"] if not composite or _is_text(key))
    problems = [
        f"{len(keys)} tensors are {what} ({_some(keys)})"
        for keys, what in ((missing, "missing"), (extra, "unexpected"))
        if keys
    ]
    if problems or report["error_msgs"]:
        told = "; ".join([*problems, *map(str, report["error_msgs"])][:3])
        file = _file_of((missing + extra + [""])[0], stored)
        raise source.error(
            f"{file}: {told}; these are not the weights of the model that config.json describes "
            f"{_guess(missing, extra)}"
        )


def _is_text(key: str) -> bool:
    """A left-over tensor of a composite model that is of its language model."""
    return key.startswith(("model.layers.", "language_model.", "model.language_model.", "lm_head"))


def _guess(missing: list[str], extra: list[str]) -> str:
    """What such keys usually come from."""
    if any("lora_" in key or "base_layer" in key for key in extra):
        return "(LoRA weights that were not merged: merge_and_unload() and save again)"
    bare = {key.rpartition("model.")[2] for key in extra}
    if extra and bare & {key.rpartition("model.")[2] for key in missing}:
        return "(the same names with another prefix: save the model itself, not its wrapper)"
    return "(save it whole again with save_pretrained)"


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


def _file_of(key: str, stored: Mapping[str, Stored]) -> str:
    if key in stored:
        return stored[key].file
    files = {one.file for one in stored.values()}
    return WEIGHTS if files <= {WEIGHTS} else INDEX


def _check_finite(source: ModelFiles, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """No weight is NaN or infinite.

    Raises:
        AgentError: names the tensor.
    """
    for name, tensor in tensors:
        if not tensor.is_floating_point() or tensor.is_meta or tensor.element_size() < 2:
            continue
        # A sum is fast, and NaN or infinite if any number is; it may overflow, so look again.
        total = tensor.detach().sum(dtype=torch.float32)
        if not total.isfinite() and not tensor.detach().isfinite().all():
            raise source.error(
                f"{name} holds NaN or infinite numbers: the weights are damaged; copy or save them "
                "again"
            )
