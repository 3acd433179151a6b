"""What the hub's client raises where there is no connection, no access or no such thing."""

from typing import Any

from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

# The HTTP library below the client, whose errors it passes on, differs by version.
HUB_ERRORS: tuple[Any, ...] = (
    OSError,
    HFValidationError,
    OfflineModeIsEnabled,
    *HfHubHTTPError.__bases__,
)
