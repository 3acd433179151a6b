"""Errors that a user can correct: what is wrong, the value seen, where, and what to do.

``__main__`` prints each of them as one line and exits with code 2. Any other exception is a bug and
keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

LONGEST = 2000  # characters of an error's line


def escaped(text: str) -> str:
    """The text without control characters; the middle of a very long line is left out."""
    plain = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )
    return shorten(plain)


def shorten(text: str) -> str:
    """The text; the middle of a very long line is left out."""
    return text if len(text) <= LONGEST else f"{text[:1000]} ... {text[-900:]}"


class UserError(Exception):
    """An error that the user can correct; the message is one line.

    Attributes:
        is_first: this process prints the error; of several processes, the first to fail does.
    """

    exit_code = 2
    is_first: bool

    def __str__(self) -> str:
        return escaped(super().__str__())


class ConfigError(UserError):
    """An option, a topology or a combination of options that cannot work."""


class DataError(UserError):
    """A data file, a prompt or a row that cannot be used."""


class LinksError(UserError):
    """A links folder that is missing, damaged, or made for other agents."""


class HubError(UserError):
    """A hub repository that cannot be read or written, or that holds unexpected files."""


class AgentError(UserError):
    """An agent that cannot be loaded."""


class DeadLinkError(UserError):
    """A trainable link that gets no gradient, so that training cannot change it."""


class NonFiniteError(UserError):
    """A loss or gradient that is NaN or infinite; no parameter was updated.

    Attributes:
        facts: values for the file that describes the step (``nonfinite.json``).
    """

    def __init__(self, message: str, facts: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.facts = facts or {}


class CheckpointError(UserError):
    """A checkpoint that is damaged, belongs to another run, or could not be written."""


class WriteError(UserError, OSError):
    """A file that cannot be written: the disk is full or read-only, or there is no permission."""


class OutOfMemoryError(UserError):
    """A step that does not fit into the device's memory."""


class StoppedError(UserError):
    """A signal asked the run to stop; it has saved a checkpoint."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class PrefixReuseWarning(UserWarning):
    """An agent reads its prompts whole in every round: the same numbers, but slower."""


class UnpinnedWarning(UserWarning):
    """A hub id has no revision: the same command may load other weights later."""


class RemoteCodeWarning(UserWarning):
    """An agent runs Python code that comes with its model."""


class UnknownWeightsWarning(UserWarning):
    """Links do not say which weights they were trained with, so weights are not compared."""


class SandboxWarning(UserWarning):
    """A protection that the sandbox cannot give on this system."""


class TargetLeakWarning(UserWarning):
    """Training shows an agent the gold answer; its losses say nothing about inference."""


class ContaminationWarning(UserWarning):
    """A data set was not compared with an evaluation set and may hold questions of it."""


class LowRankWarning(UserWarning):
    """An aligned start is fitted on too few pairs to fill its map."""


class SilentChannelWarning(UserWarning):
    """Validation rows do as well with the messages of other rows: the channel carries nothing."""


class DeprecatedOptionWarning(UserWarning):
    """An option under a name that it had before; the message says the new one."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?``, or the known names when none is near; with none, what to do."""
    name, known = str(name), sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:  # compare the last part of the keys too: a short key may stand for a full one
        ends = {k.rsplit(".", 1)[-1]: k for k in known}
        tail = difflib.get_close_matches(name.rsplit(".", 1)[-1], ends, n=1, cutoff=0.7)
        near = [ends[tail[0]]] if tail else []
    if near:
        return f"Did you mean '{near[0]}'?"
    if not known:
        return "None is defined; define it, or remove the name."
    return "Known: " + ", ".join(known) + "." if len(known) <= 40 else "See --help."
