"""Options of processes and devices, and of the plan for them."""

from __future__ import annotations

from dataclasses import dataclass

from rmas_train.config.options import MOST_LENGTH, check_choice, check_least, option
from rmas_train.errors import ConfigError

BACKENDS = ("auto", "single", "ddp", "zero1", "zero2", "zero3")
PLACEMENTS = ("replicate", "per_agent", "sharded")


@dataclass(kw_only=True)
class RuntimeConfig:
    backend: str = option(
        "auto", "auto (as launched) | single | ddp | zero1 | zero2 | zero3; docs/distributed.md"
    )
    placement: str = option(
        "replicate",
        "replicate: all agents in every process's memory | per_agent: an agent per device | "
        "sharded: every agent's layers over all processes (FSDP2)",
    )
    device: str = option("auto", "auto (a GPU where there is one) | cpu")
    processes: int | None = option(None, "refuse to start with another number; null: any")
    threads: int | None = option(None, "CPU threads per process; null: PyTorch's choice")
    timeout_minutes: float = option(30.0, "how long a process waits for the others")

    def __post_init__(self) -> None:
        check_choice("runtime.backend", self.backend, BACKENDS)
        check_choice("runtime.placement", self.placement, PLACEMENTS)
        check_choice("runtime.device", self.device, ("auto", "cpu"))
        check_least("runtime.processes", self.processes, 1)
        check_least("runtime.threads", self.threads, 1, 1024)
        check_least("runtime.timeout_minutes", self.timeout_minutes, 0.1)
        if self.backend.startswith("zero") and self.placement != "replicate":
            raise ConfigError(
                f"runtime.placement={self.placement} with runtime.backend={self.backend}: ZeRO "
                "keeps the links of one device per process; use runtime.backend=ddp."
            )


@dataclass(kw_only=True)
class PlanConfig:
    prefix_tokens: int | None = option(None, "longest prompt before its slots; null: from the data")
    suffix_tokens: int | None = option(None, "longest prompt after its slots; null: from the data")
    answer_tokens: int | None = option(None, "longest answer; null: from the data")
    devices: list[int] = option([1, 2, 8], "numbers of devices to plan for")
    device_gib: float = option(80.0, "memory of one device, GiB")
    tflops: float | None = option(None, "10^12 operations per second; null: measured here")
    gib_per_second: float | None = option(None, "memory bandwidth; null: measured here")

    def __post_init__(self) -> None:
        for key in ("prefix_tokens", "suffix_tokens", "answer_tokens"):
            check_least(f"plan.{key}", getattr(self, key), 1, MOST_LENGTH)
        for key in ("device_gib", "tflops", "gib_per_second"):
            check_least(f"plan.{key}", getattr(self, key), 1e-6)
        for devices in self.devices:
            check_least("plan.devices", devices, 1)
