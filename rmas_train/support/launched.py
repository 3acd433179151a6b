"""What a launcher (torchrun, accelerate, deepspeed) says in the environment, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rmas_train.errors import ConfigError

# Variable -> the smallest and the largest number that it may have. LOCAL_RANK=-1: not launched.
RANGES = {
    "RANK": (0, 10**6),
    "WORLD_SIZE": (1, 10**6),
    "LOCAL_RANK": (-1, 10**6),
    "LOCAL_WORLD_SIZE": (1, 10**6),
    "MASTER_PORT": (0, 65535),
}
REMEDY = (
    "start several processes with torchrun --nproc-per-node <processes> -m rmas_train ..., or "
    "unset {} to run one"
)


def rank(env: Mapping[str, str] = os.environ) -> int:
    """This process's number; 0 alone, and where the environment says nothing that can be read."""
    text = env.get("RANK", "0").strip()
    return int(text) if text.isascii() and text.isdigit() else 0


def check_launched(env: Mapping[str, str] = os.environ) -> None:
    """The variables of a launcher are numbers that fit each other.

    Raises:
        ConfigError: names the variable, its value, and what to do.
    """
    numbers = {name: _number(name, env[name]) for name in RANGES if name in env}
    world, local = numbers.get("WORLD_SIZE", 1), numbers.get("LOCAL_RANK", -1)
    seen = ", ".join(f"{name}={numbers[name]}" for name in numbers)
    if world > 1 or local >= 0:
        needed = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
        if missing := [name for name in needed if not env.get(name)]:
            raise ConfigError(
                f"the environment has {seen}, but no {', no '.join(missing)}; "
                f"{REMEDY.format(' and '.join(numbers))}."
            )
    pairs = (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    for name, total in pairs:
        if numbers.get(name, 0) >= numbers.get(total, 1 if name == "RANK" else 10**6):
            raise ConfigError(
                f"the environment has {name}={numbers[name]}, but {total}="
                f"{numbers.get(total, 'nothing')}; {REMEDY.format(' and '.join(numbers))}."
            )


def _number(name: str, text: str) -> int:
    least, most = RANGES[name]
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        raise ConfigError(
            f"environment variable {name}={text!r}: not a whole number from {least} to {most}; "
            f"{REMEDY.format(name)}."
        )
    return value
