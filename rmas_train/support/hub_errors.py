"""Exceptions of the hub's client: no connection, no access, or no such repository or file."""

from typing import Any

from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

# The client passes on errors of its HTTP library, which differs between versions.
HUB_ERRORS: tuple[Any, ...] = (
    OSError,
    HFValidationError,
    OfflineModeIsEnabled,
    *HfHubHTTPError.__bases__,
)
