"""Open the writer of a recipe: a local model, or an endpoint over HTTP."""

from __future__ import annotations

from rmas_train.errors import ConfigError
from rmas_train.recipes.endpoint import EndpointWriter
from rmas_train.recipes.local_writer import LocalWriter
from rmas_train.recipes.writing import Writer, WriterOptions


def open_writer(options: WriterOptions) -> Writer:
    """The writer that ``writer`` names: an http(s) URL, a model folder, or a hub id.

    Raises:
        ConfigError: none is named, or a library is missing.
        AgentError: the model cannot be loaded.
    """
    if not options.writer:
        raise ConfigError(
            "writer is empty; give a model folder or hub id, or the URL of an OpenAI-compatible "
            "endpoint (data.recipe_options.writer=...)."
        )
    if options.writer.startswith(("http://", "https://")):
        return EndpointWriter(options)
    return LocalWriter(options)
