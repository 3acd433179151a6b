"""Errors that a user can mend: what is wrong, the value seen, where, and what to do.

``__main__`` prints each as one line and exits with code 2; anything else is a bug and keeps its
traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

LONGEST = 2000  # characters of an error's line


def one_line(text: str) -> str:
    """Without control characters, whatever was quoted; the middle of a very long line left out."""
    plain = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )
    return shorten(plain)


def shorten(text: str) -> str:
    """The middle of a very long line left out."""
    return text if len(text) <= LONGEST else f"{text[:1000]} ... {text[-900:]}"


class UserError(Exception):
    """Something that the user can mend; the message is one line.

    Attributes:
        is_first: whether this process tells it; of several, the one that failed first does.
    """

    exit_code = 2
    is_first: bool

    def __str__(self) -> str:
        return one_line(super().__str__())


class ConfigError(UserError):
    """An option, a topology or a combination of options that cannot work."""


class DataError(UserError):
    """A data file, a prompt or a row that cannot be used."""


class LinksError(UserError):
    """A links folder that is missing, damaged, or made for other agents."""


class HubError(UserError):
    """A hub repository that cannot be read or written, or holds what it should not."""


class AgentError(UserError):
    """An agent that cannot be loaded."""


class DeadLinkError(UserError):
    """A trainable link that gets no gradient: training it would change nothing."""


class NonFiniteError(UserError):
    """A loss or gradient that is NaN or infinite; nothing was updated with it.

    Attributes:
        facts: what a dump of the step should hold.
    """

    def __init__(self, message: str, facts: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.facts = facts or {}


class CheckpointError(UserError):
    """A checkpoint that is damaged, of another run, or could not be written."""


class OutOfMemoryError(UserError):
    """A step that does not fit into the device's memory."""


class StoppedError(UserError):
    """A signal asked the run to stop; it has saved a checkpoint."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class PrefixReuseWarning(UserWarning):
    """An agent whose prompts are read whole in every round; slower, same numbers."""


class UnpinnedWarning(UserWarning):
    """A hub id without a revision: the same command may load other weights later."""


class RemoteCodeWarning(UserWarning):
    """An agent that runs Python which came with it."""


class UnknownWeightsWarning(UserWarning):
    """Links that do not say which weights they were trained with, so that nothing is compared."""


class SandboxWarning(UserWarning):
    """Something that a program which the decoder writes could reach on this system."""


class TargetLeakWarning(UserWarning):
    """Training shows an agent what the loss asks for; its losses say nothing about inference."""


class ContaminationWarning(UserWarning):
    """A data set that was not compared with an evaluation set; it may hold that set's questions."""


class DeprecatedOptionWarning(UserWarning):
    """An option under a name that it had before; the message says the new one."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?``, or the known names when none is near."""
    name, known = str(name), sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:  # a full key may be far from a short one that was meant
        ends = {k.rsplit(".", 1)[-1]: k for k in known}
        tail = difflib.get_close_matches(name.rsplit(".", 1)[-1], ends, n=1, cutoff=0.7)
        near = [ends[tail[0]]] if tail else []
    if near:
        return f"Did you mean '{near[0]}'?"
    return "Known: " + ", ".join(known) + "." if len(known) <= 20 else "See --help."
