"""Quantised weights: as published (GPTQ, AWQ, bitsandbytes), or made at loading.

They stay frozen; gradients flow through them to their inputs. What each method needs is a package
of its own, which is named where it is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from rmas_train.loading.model_files import ModelFiles
from rmas_train.support.reading import short

# Method in config.json -> the packages that can read it, any of them.
PACKAGES = {
    "bitsandbytes": ("bitsandbytes",),
    "gptq": ("gptqmodel",),
    "awq": ("gptqmodel",),
    "compressed-tensors": ("compressed_tensors",),
    "hqq": ("hqq",),
    "quanto": ("optimum",),
    "torchao": ("torchao",),
}
STATES = (".absmax", ".SCB")  # ends of the keys that hold bitsandbytes' scales
BITS = {"4bit": 4, "8bit": 8}  # agents.<name>.quantization, by bitsandbytes


def method_of(shape: Any) -> str | None:
    """How the stored weights are quantised; None: they are not."""
    settings = getattr(shape, "quantization_config", None)
    if settings is None:
        return None
    read = settings.get if isinstance(settings, dict) else lambda key: getattr(settings, key, None)
    method = read("quant_method")
    return str(getattr(method, "value", method))


def check_quantised(source: ModelFiles, shape: Any, wanted: str | None) -> None:
    """The package for stored or wanted quantisation is installed.

    Raises:
        AgentError: names the package, and the way without it.
    """
    method = method_of(shape)
    option = f"{source.key.removesuffix('.model')}.quantization"
    if method is not None and wanted is not None:
        raise source.error(f"its weights are quantised ({method}) already; leave out {option}")
    if method is None and wanted is None:
        return
    method = method or "bitsandbytes"
    known = {name.removesuffix("_4bit").removesuffix("_8bit") for name in AUTO_QUANTIZER_MAPPING}
    if method not in known:
        raise source.error(
            f"its weights are quantised in a way that the library does not know ({short(method)}); "
            "use the model from which it was made, unquantised"
        )
    packages = PACKAGES.get(method, ())
    if packages and not any(find_spec(package) for package in packages):
        how = f"{option}={wanted}" if wanted else f"its weights are quantised ({method}), which"
        away = f"leave out {option}" if wanted else "use the model from which it was made"
        raise source.error(
            f"{how} needs the package {packages[0]}: pip install {packages[0]}, or {away}, "
            "unquantised"
        )


def check_states(source: ModelFiles, shape: Any, keys: Iterable[str]) -> None:
    """Weights that config.json calls quantised by bitsandbytes are.

    Raises:
        AgentError: they are not.
    """
    if method_of(shape) == "bitsandbytes" and not any(k.endswith(STATES) for k in keys):
        raise source.error(
            "config.json says that its weights are quantised (bitsandbytes), but they are not; "
            "remove the key quantization_config there, or use the model from which it was made, "
            "unquantised"
        )


def loading_options(wanted: str | None, dtype: torch.dtype) -> dict[str, Any]:
    """What the library needs to quantise weights while it loads them."""
    if wanted is None:
        return {}
    if BITS[wanted] == 8:
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": settings}


def keep_gradients(model: Any) -> None:
    """Keep bitsandbytes from packing 4-bit weights for inference: that kernel has no backward."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def bits_of(shape: Any, wanted: str | None) -> float | None:
    """Bits of memory for a weight of a linear layer, scales included; None: not quantised."""
    if wanted is not None:
        bits = BITS[wanted]
    elif (settings := getattr(shape, "quantization_config", None)) is not None:
        read = dict(settings if isinstance(settings, dict) else settings.to_dict())
        named = next((read[k] for k in ("bits", "w_bit", "nbits") if read.get(k)), None)
        bits = int(named or (4 if read.get("load_in_4bit") else 8))
    else:
        return None
    return bits + 32 / 64  # a float32 scale for each block of 64 weights
