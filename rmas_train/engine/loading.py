"""Loading an agent, and finding out what its family can do.

Weights come from safetensors alone, and code from this package and its libraries alone unless
``trust_remote_code`` is asked for.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from rmas_train.agents.agent import Agent, freeze
from rmas_train.config import AgentConfig
from rmas_train.engine.inputs import embed_ids, read_whole
from rmas_train.engine.kv_cache import KVCache
from rmas_train.engine.prompt_batch import read_prefix
from rmas_train.errors import AgentError, PrefixReuseWarning, RemoteCodeWarning, UnpinnedWarning
from rmas_train.support.files import find_path

COMMIT = re.compile(r"/snapshots/([0-9a-f]{40})/")  # the hub's cache has a folder per commit
ADAPTER = "adapter_config.json"


def find_commit(where: str, revision: str | None) -> str | None:
    """The commit that a branch, a tag or no revision points to now; None for a folder.

    Raises:
        OSError: the model is neither on the hub nor in its cache.
    """
    if Path(where).exists():
        return None
    found = COMMIT.search(_cached(where, "config.json", revision) or "")
    return found[1] if found else revision


def check_whole(name: str, where: str, commit: str | None) -> None:
    """Refuse an adapter: it would load a base model that it names, without a pinned commit.

    Raises:
        AgentError: an adapter is there.
    """
    if Path(where).exists():
        found = (Path(where) / ADAPTER).exists()
    else:
        found = _cached(where, ADAPTER, commit, must_exist=False) is not None
    if found:
        raise AgentError(
            f"agents.{name}.model={where} holds an adapter ({ADAPTER}), which names another model "
            "to load; merge it into that model, save it whole and give that folder."
        )


def _cached(where: str, file: str, revision: str | None, must_exist: bool = True) -> str | None:
    """Path in the cache of a hub repository's file; it is downloaded if it is not there."""
    found = cached_file(
        where, file, revision=revision, _raise_exceptions_for_missing_entries=must_exist
    )
    return Path(found).as_posix() if found else None


def warn_of_code(name: str, config: AgentConfig) -> None:
    if config.trust_remote_code:
        warnings.warn(
            f"agents.{name}.trust_remote_code is on: agent {name} RUNS PYTHON that comes with "
            f"{config.model}.",
            RemoteCodeWarning,
            stacklevel=3,
        )


def warn_of_revision(name: str, config: AgentConfig, commit: str | None) -> None:
    if commit is not None and config.revision is None:
        warnings.warn(
            f"agents.{name}.model={config.model} has no revision, so results are not pinned; this "
            f"run has {commit}: set agents.{name}.revision={commit}.",
            UnpinnedWarning,
            stacklevel=3,
        )


def explain(name: str, error: Exception) -> str:
    """The library's reason in one line, with our option's name in place of the library's."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "trust_remote_code" in str(error):
        return (
            "it needs Python that comes with it, which is not run; use a model without, or read "
            f"that code and set agents.{name}.trust_remote_code=true."
        )
    if "safetensors" in str(error):
        return (
            f"{reason.rstrip('.')}. Only safetensors are read, no pickles (.bin): save it again "
            "with save_pretrained."
        )
    return reason


HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")
TOLERANCE = {torch.bfloat16: 0.1, torch.float16: 0.02}  # relative, of probed states and logits


def load_agent(name: str, config: AgentConfig, device: torch.device | str = "cpu") -> Agent:
    """Load and freeze an agent.

    Args:
        name: its role in the topology.
        config: where it is and how to load it.
        device: where its weights go.

    Raises:
        AgentError: the folder is missing, is not a Hugging Face model folder, or would need code
            or pickles of its own.
    """
    where = _locate(name, config)
    warn_of_code(name, config)
    try:
        commit = find_commit(where, config.revision)
        check_whole(name, where, commit)
        model, tokenizer = _read(where, config, commit)
    except (OSError, ValueError) as error:
        raise AgentError(
            f"agents.{name}.model={config.model} cannot be loaded: {explain(name, error)} "
            "(give a folder that save_pretrained wrote, or a hub id that can be reached)"
        ) from error
    if tokenizer.chat_template is None:
        raise AgentError(
            f"agents.{name}.model={config.model} has no chat template; use an instruction-tuned "
            "model, or put a chat_template.jinja into its folder."
        )
    warn_of_revision(name, config, commit)
    model.to(device)
    return checked(freeze(Agent(name, model, tokenizer, config.model, commit)))


def _read(where: str, config: AgentConfig, commit: str | None) -> tuple[Any, Any]:
    """Model and tokenizer, both of the same commit."""
    transformers_logging.disable_progress_bar()  # its control characters would be in logs
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"  # it would load an unpinned revision
    kwargs = {"revision": commit, "trust_remote_code": config.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(where, **kwargs)
    model: Any = AutoModelForCausalLM.from_pretrained(
        where,
        dtype=getattr(torch, config.dtype),
        attn_implementation=config.attention,
        use_safetensors=True,
        **kwargs,
    )
    return model, tokenizer


@torch.no_grad()
def checked(agent: Agent) -> Agent:
    """The agent, tried out on six tokens: a prefix of three, two together, one alone.

    Raises:
        AgentError: its family does something to its logits that is unknown here.
    """
    ids = [min(i, agent.model.config.vocab_size - 1) for i in range(1, 7)]
    whole_1LD = read_whole(agent, embed_ids(agent, [ids]))
    out = agent.model(input_ids=torch.tensor([ids], device=agent.device), use_cache=False)
    if _differ(agent, agent.logits(whole_1LD), out.logits):
        raise AgentError(
            f"agents.{agent.name}.model={agent.source}: the logits of this family "
            f"({type(agent.model).__name__}) are not its output embedding of the last state; it "
            "is not supported."
        )
    try:
        cache = KVCache(agent, read_prefix(agent, [ids[:3]]))
        parts = (embed_ids(agent, [ids[a:b]], skip=[a]) for a, b in ((3, 5), (5, 6)))
        pieces_1LD = torch.cat([cache.read(part) for part in parts], dim=1)
        reason = "other states" if _differ(agent, pieces_1LD, whole_1LD[:, 3:]) else ""
    except Exception as error:  # every family can use the library's cache
        reason = f"{type(error).__name__}: {error}"
    if reason:
        warnings.warn(
            f"agent {agent.name} ({type(agent.model).__name__}) cannot reuse frozen prefixes "
            f"({reason.splitlines()[0]}); its prompts are read whole in every round.",
            PrefixReuseWarning,
            stacklevel=3,
        )
    return replace(agent, attends_to_blocks=not reason)


def _differ(agent: Agent, a: Tensor, b: Tensor) -> bool:
    distance = (a.float() - b.float()).norm() / b.float().norm()
    return not distance.item() < TOLERANCE.get(agent.dtype, 1e-3)


def _locate(name: str, config: AgentConfig) -> str:
    if not config.model:
        raise AgentError(f"agents.{name}.model is empty; give a folder or a hub id.")
    path = find_path(config.model)
    if path is None and (Path(config.model).is_absolute() or not HUB_ID.match(config.model)):
        raise AgentError(
            f"agents.{name}.model={config.model}: no such folder; check the path, or give a hub "
            "id of the form organisation/model."
        )
    if path is not None and not (path / "config.json").exists():
        raise AgentError(
            f"agents.{name}.model={config.model}: no config.json there; give the folder that "
            "save_pretrained wrote."
        )
    return str(path or config.model)
