"""inspect-ai: model provider ``rmas``, found by its entry point. Light: no torch until it is used.

inspect eval task.py --model rmas/outputs/mine -M rounds=2
"""

from __future__ import annotations

from typing import Any

from inspect_ai.model import modelapi


@modelapi(name="rmas")
def rmas() -> Any:
    """The class of the provider."""
    from rmas_train.serving.inspect_model import InspectModel

    return InspectModel
