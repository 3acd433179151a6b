"""A PEFT adapter, merged into its model at loading."""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from rmas_train.loading.files import ADAPTER, ADAPTER_WEIGHTS, read_header, read_settings
from rmas_train.loading.model_files import ModelFiles
from rmas_train.loading.shape import explain
from rmas_train.support.reading import short


def merge_adapter(source: ModelFiles, model: Any) -> Any:
    """The model with the adapter's changes in its weights.

    Args:
        source: of the adapter.
        model: what it was trained on.

    Raises:
        AgentError: peft is not installed, or the adapter is not whole, not safetensors, not of this
            model, or of a kind that cannot be merged.
    """
    if find_spec("peft") is None:
        raise source.error("adapters need the package peft: pip install peft")
    settings = read_settings(source, ADAPTER)
    if settings.get("megatron_config") is not None:
        raise source.error(f"{ADAPTER}: key megatron_config would import a module; remove it")
    stored = read_header(source, ADAPTER_WEIGHTS)
    path = source.file(ADAPTER)
    assert path is not None
    merged = _merge(source, model, str(path.parent), set(stored))
    if hasattr(merged.config, "quantization_config") or not hasattr(merged, "peft_config"):
        return merged
    del merged.peft_config
    return merged


def _merge(source: ModelFiles, model: Any, folder: str, stored: set[str]) -> Any:
    from peft import PeftModel, get_peft_model_state_dict

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # keys are compared below
            wrapped: Any = PeftModel.from_pretrained(model, folder)
        placed: dict[str, Tensor] = get_peft_model_state_dict(wrapped)
        if odd := sorted(set(placed) ^ stored):
            what = "missing" if odd[0] in placed else "unexpected"
            raise source.error(
                f"{ADAPTER_WEIGHTS}: {len(odd)} tensors are missing or unexpected ({what}: "
                f"{odd[0]}); it was not made for this model"
            )
        if not hasattr(wrapped, "merge_and_unload"):
            kind = short(json.dumps(str(wrapped.active_peft_config.peft_type)))
            raise source.error(f"an adapter of kind {kind} cannot be merged; use LoRA")
        return wrapped.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        reason = explain(source, error)
        raise source.error(f"cannot be merged into its model: {reason}") from error
