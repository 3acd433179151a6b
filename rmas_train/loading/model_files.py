"""Where an agent's files come from: a folder, a GGUF file, or a commit of a hub repository.

The library that reads them is kept quiet: what is wrong is said once, by our errors.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from rmas_train.config import AgentConfig
from rmas_train.errors import AgentError
from rmas_train.support.files import find_path, leads_outside
from rmas_train.support.hub_errors import hub_reason

COMMIT = re.compile(r"/snapshots/([0-9a-f]{40})/")  # the hub's cache has a folder per commit
HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")
GGUF = ".gguf"
FORMATS = "give a folder that save_pretrained wrote, a .gguf file, or a hub id (organisation/model)"


@dataclass(frozen=True)
class ModelFiles:
    """A model's files.

    Attributes:
        key: the option that names them, such as ``agents.planner.model``.
        model: as typed.
        where: the folder, or the hub id.
        commit: of the hub repository; None for a folder.
        gguf: name of the file in the folder that holds everything; None: safetensors.
        trust_remote_code: run Python that comes with the model.
    """

    key: str
    model: str
    where: str
    commit: str | None = None
    gguf: str | None = None
    trust_remote_code: bool = False

    @property
    def is_folder(self) -> bool:
        return Path(self.where).is_dir()

    @property
    def library(self) -> dict[str, Any]:
        """What the library's ``from_pretrained`` needs to read the same files."""
        gguf = {"gguf_file": self.gguf} if self.gguf else {}
        return gguf | {"revision": self.commit, "trust_remote_code": self.trust_remote_code}

    def file(self, name: str, is_needed: bool = False) -> Path | None:
        """Path of a file; one of a hub repository is downloaded into the cache.

        Raises:
            AgentError: it is needed and not there, or leads out of the folder.
        """
        try:
            found = cached_file(
                self.where,
                name,
                revision=self.commit,
                _raise_exceptions_for_missing_entries=is_needed,
            )
        except (OSError, ValueError) as error:
            raise self.error(f"{hub_reason(error, self.where)}; {FORMATS}") from error
        path = Path(found) if found else None
        if path is None and is_needed:
            raise self.error(f"no {name} there; {FORMATS}")
        if path is not None and leads_outside(path):
            raise self.error(
                f"{path.name} is a symbolic link out of the folder; copy the file itself there"
            )
        return path

    def error(self, what: str) -> AgentError:
        """An error about these files, in one line."""
        return AgentError(f"{self.key}={self.model} cannot be loaded: {what.rstrip('.')}.")


def find_source(name: str, config: AgentConfig) -> ModelFiles:
    """Where an agent's own files are.

    Raises:
        AgentError: nowhere.
    """
    key = f"agents.{name}.model"
    return find_files(key, config.model, config.revision, config.trust_remote_code)


def find_files(
    key: str, model: str, revision: str | None = None, trust_remote_code: bool = False
) -> ModelFiles:
    """Where a model's or an adapter's files are; a hub id gets the commit that it stands for now.

    Raises:
        AgentError: nowhere, or the hub does not give them.
    """
    if not model:
        raise AgentError(f"{key} is empty; {FORMATS}.")
    path = find_path(model)
    if path is not None and path.is_file():
        if path.suffix != GGUF:
            raise AgentError(f"{key}={model} is a file; {FORMATS}.")
        return ModelFiles(key, model, str(path.parent), gguf=path.name)
    if path is not None:
        return ModelFiles(key, model, str(path), trust_remote_code=trust_remote_code)
    if Path(model).is_absolute() or model.endswith(GGUF) or not HUB_ID.match(model):
        raise AgentError(f"{key}={model}: no such folder or file; check the path, or {FORMATS}.")
    source = ModelFiles(key, model, model, revision, trust_remote_code=trust_remote_code)
    file = "config.json" if key.endswith("model") else "adapter_config.json"
    found = COMMIT.search(Path(str(source.file(file, is_needed=True))).as_posix())
    return ModelFiles(
        key, model, model, found[1] if found else revision, trust_remote_code=trust_remote_code
    )


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, whose control characters would be in logs, and no second report."""
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"  # it would load an unpinned revision
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that the library imports
            yield
    finally:
        transformers_logging.set_verbosity(before)
