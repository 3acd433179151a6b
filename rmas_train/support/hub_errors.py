"""Exceptions of the hub's client: no connection, no access, or no such repository or file."""

from typing import Any

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

# The client passes on errors of its HTTP library, which differs between versions.
HUB_ERRORS: tuple[Any, ...] = (
    OSError,
    HFValidationError,
    OfflineModeIsEnabled,
    *HfHubHTTPError.__bases__,
)


def hub_reason(error: Exception, where: str) -> str:
    """Why the hub, or a folder, does not give a file, and what to do."""
    causes: list[BaseException | None] = [error]
    while causes[-1] is not None:
        causes.append(causes[-1].__cause__ or causes[-1].__context__)
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return (
            f"access is restricted: ask for it at https://huggingface.co/{where}, then log in with "
            "`hf auth login`"
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return (
            "there is no such model on the hub, or it is private: check the name, or log in with "
            "`hf auth login` (no folder of this name is here either)"
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if any(isinstance(cause, LocalEntryNotFoundError) for cause in causes):
        return f"it is neither a folder here nor in the hub's cache, and {reason}"
    return reason
