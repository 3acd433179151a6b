"""Rates of this machine: arithmetic, reading of memory, and how much memory there is."""

from __future__ import annotations

import os
import time
from typing import Any

import torch


def measured_rates(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Operations per second of a large matrix product, bytes per second of reading a matrix."""
    size = 4096 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    vector = a[:, :1].clone()
    product = _best(device, lambda: a @ a)
    reading = _best(device, lambda: a @ vector)
    return 2 * size**3 / product, a.numel() * a.element_size() / reading


def _best(device: torch.device, work: Any, repeats: int = 10) -> float:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def memory_of(device: torch.device) -> float:
    """Bytes of a GPU, or of this machine."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
