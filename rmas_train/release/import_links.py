"""Import released links into a run folder; facts that the files do not hold come from a config."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rmas_train.agents.prompt_files import check_texts
from rmas_train.compose import compose
from rmas_train.config import Config, LinksConfig
from rmas_train.errors import ConfigError
from rmas_train.links.card import LinksCard
from rmas_train.links.link_set import LinkSet
from rmas_train.release.released import Released, Repository, read_released
from rmas_train.runs.load import prompt_texts
from rmas_train.runs.made_links import folders_of, write_run
from rmas_train.support.version import VERSION
from rmas_train.topology import Topology, build_topology

# Link options of the released files: the module, its scale, and the input of an edge's link.
RELEASED = LinksConfig(
    variant="ln_res_2layer", norm="layernorm", edge_input="inner", init="default"
)


def import_config(overrides: list[str]) -> Config:
    """The config of a run with released links.

    Raises:
        ConfigError: an option that cannot work, or a link option that contradicts the release.
    """
    config = compose(overrides)
    for override in overrides:
        key = override.lstrip("+").split("=", 1)[0].removeprefix("links.")
        if override.lstrip("+").startswith("links.") and hasattr(RELEASED, key):
            seen, wanted = getattr(config.links, key), getattr(RELEASED, key)
            if key in ("variant", "norm", "edge_input") and seen != wanted:
                raise ConfigError(
                    f"links.{key}={seen}: released links are links.{key}={wanted}; leave it out."
                )
    if empty := [n for n in config.topology.order if not config.agents[n].model]:
        raise ConfigError(
            f"agents.{empty[0]}.model is empty; give the base model's folder or hub id, which the "
            "imported links will be used with."
        )
    return replace(config, links=RELEASED)


def import_links(
    config: Config, repositories: Mapping[str, Repository], task: str | None
) -> list[Path]:
    """Write ``run_dir/inner/links`` and ``run_dir/outer/links``, and the config beside them.

    No base model is read, so the agents' fingerprints stay empty and are not compared later.

    Raises:
        LinksError: a file that cannot be read or does not fit, or the run folder has links already.
    """
    folders_of(config)
    topology = build_topology(config.topology, config.agents)
    prompts = read_prompts(config, topology)
    released = read_released(repositories, topology, task)
    links = LinkSet(_of(released, "inner"), _of(released, "outer"))
    card = make_card(config, released, repositories, prompts)
    return write_run(config, links, card)


def _of(released: Released, kind: str) -> dict[str, Any]:
    return {
        name.removeprefix(f"{kind}."): one.link()
        for name, one in released.links.items()
        if name.startswith(f"{kind}.")
    }


def make_card(
    config: Config,
    released: Released,
    repositories: Mapping[str, Repository],
    prompts: Mapping[str, dict[str, Any]],
) -> LinksCard:
    """The links card: agents and prompts from the config, widths and dtypes from the files."""
    widths = released.widths
    agents = {
        name: {
            "model": config.agents[name].model,
            "revision": config.agents[name].revision,
            "dtype": config.agents[name].dtype,
            "width": widths[name],
            "fingerprint": "",
        }
        for name in config.topology.order
    }
    files = {}
    for name, one in released.links.items():
        role = name.removeprefix("inner.") if name.startswith("inner.") else "outer"
        repository = repositories[role]
        files[name] = {
            "file": f"{repository.where}/{one.path.name}",
            "dtype": one.dtype,
            "sha256": one.sha256,
            "commit": repository.commit,
        }
    hashed = hashlib.sha256(json.dumps(prompts, sort_keys=True).encode()).hexdigest()[:16]
    return LinksCard(
        stage="outer",
        agents=agents,
        topology=asdict(config.topology),
        links=asdict(config.links),
        prompts=dict(prompts),
        rounds=config.rounds,
        latent_length=config.latent_length,
        max_new_tokens=config.evaluation.max_new_tokens,
        data_fingerprint="",
        package_version=VERSION,
        prompts_hash=hashed,
        released={"task": released.task, "files": files},
    )


def read_prompts(config: Config, topology: Topology) -> dict[str, dict[str, Any]]:
    """Every agent's prompt file, with a slot for each agent that sends to it.

    Raises:
        DataError: a file that is missing or malformed, or has other slots; names the file.
    """
    prompts = prompt_texts(config, topology.agents)
    for name, texts in prompts.items():
        check_texts(name, texts, f"{config.data.prompts}/{name}.yaml", topology.sources(name))
    return prompts
