"""The package from Python: train, evaluate, load. ``python -m rmas_train`` does the same.

system = rmas_train.train("my.yaml", rows=[{"question": "2 + 2?", "answer": "4"}, ...])
print(system.answer(["3 + 3?"])[0].text)
for row in rmas_train.evaluate("my.yaml"):
    print(row["system"], row["control"], row["rounds"], row["accuracy"])
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rmas_train.compose import config_from, to_config, to_dict
from rmas_train.config import Config, TopologyConfig
from rmas_train.errors import ConfigError
from rmas_train.links.folder import find_links
from rmas_train.objectives.base import Factory
from rmas_train.release.hub import HUB_ID, cached_links
from rmas_train.runs.load import Loaded, load_run
from rmas_train.runs.session import held, session
from rmas_train.runs.tables import Rows, load_tables
from rmas_train.runtime.runtime import Runtime
from rmas_train.stages.evaluate import run_eval
from rmas_train.stages.pipeline import check_early, check_golds, train_links
from rmas_train.support.reading import parse_json
from rmas_train.systems.base import decoding_of
from rmas_train.systems.latent import System
from rmas_train.systems.restore import restore_system
from rmas_train.tools.calls import Toolbox
from rmas_train.training.callbacks import Callback, Step

Source = Config | Mapping[str, Any] | Sequence[str] | str | os.PathLike[str] | None
Topology = TopologyConfig | Mapping[str, Any]


def train(
    config: Source = None,
    *,
    rows: Rows | None = None,
    test_rows: Rows | None = None,
    objective: Factory | str | None = None,
    callbacks: Sequence[Callback | Callable[[Step], None]] = (),
    topology: Topology | None = None,
) -> System:
    """Train inner links (unless equal ones exist) and outer links; the system that came of it.

    Everything is written to ``run_dir``, as by ``python -m rmas_train``.

    Args:
        config: YAML file, nested dictionary, list of ``key=value``, or ``Config``; see
            ``config_from``. None: the default experiment.
        rows: training rows in place of ``data.train``: ``question``, ``answer``, and the columns
            that prompts and ``data.role_texts`` name.
        test_rows: the same for ``data.test``; nothing is trained on them. None, with ``rows``: the
            rows themselves, so that results say how well they were learnt and no more.
        objective: of the outer stage: a registered name, or a function (config, loaded, links) ->
            ``Objective``.
        callbacks: told of every optimizer step of the outer stage; a plain function gets the
            ``Step`` after its update.
        topology: in place of ``config.topology``.

    Raises:
        UserError: an error that the user can correct; the message is what the command line prints.
    """
    name = objective if isinstance(objective, str) else None
    config = _prepared(config, "pipeline", topology, name)
    factory = _checked_factory(objective)
    _check_callbacks(callbacks)
    with _running(config, rows, test_rows) as (loaded, runtime, tools):
        links = train_links(config, loaded, runtime, callbacks, factory)
    options = config.evaluation
    return System(
        loaded.team,
        links.requires_grad_(False),
        config.rounds,
        config.latent_length,
        options.max_new_tokens,
        decoding_of(config),
        tools,
    )


def evaluate(
    config: Source = None, *, test_rows: Rows | None = None, topology: Topology | None = None
) -> list[dict[str, Any]]:
    """Evaluate the links of ``run`` (else of ``run_dir``) beside controls and baselines.

    Args:
        config: as for ``train``; ``evaluation`` says which systems and benchmarks.
        test_rows: in place of ``data.test``.
        topology: in place of ``config.topology``.

    Returns:
        one row per benchmark, system and depth (docs/results.md), as in
        ``run_dir/eval/results.json``.
    """
    config = _prepared(config, "eval", topology)
    with _running(config, None, test_rows) as (loaded, runtime, tools):
        run_eval(config, loaded, runtime, tools)
    results = parse_json((Path(config.run_dir) / "eval" / "results.json").read_text("utf-8"))
    rows: list[dict[str, Any]] = results["rows"]
    return rows


def load(
    folder: str | os.PathLike[str],
    *,
    agents: Mapping[str, str] | None = None,
    device: str | torch.device = "cpu",
    revision: str | None = None,
) -> System:
    """A system ready to answer, from a links folder, a run folder or a hub repository.

    Args:
        folder: what ``stage=outer`` wrote, or the hub id of pushed links (organisation/name).
        agents: name -> folder or hub id, where the agents are elsewhere than in training; their
            weights have to be the same.
        device: where agents and links go.
        revision: of a hub repository; pin it for results that you publish.

    Raises:
        LinksError: missing or damaged folder, inner links only, or other agents than trained with.
        AgentError: an agent cannot be loaded.
        HubError: no such repository, or no connection.
        ConfigError: an argument that cannot work.
    """
    if not isinstance(folder, str | os.PathLike):
        raise ConfigError(f"folder={folder!r}: give a links folder, a run folder or a hub id.")
    device = _checked_device(device)
    if not Path(folder).exists() and HUB_ID.fullmatch(str(folder)):
        folder = cached_links(str(folder), revision)
    return restore_system(find_links(Path(folder)), {} if agents is None else agents, device)


def _checked_device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device={device!r}: give cpu, cuda or cuda:<number>.") from error
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type == "cuda" and (found.index or 0) >= seen:
        raise ConfigError(f"device={device!r}: PyTorch sees {seen} GPU(s) here; give another one.")
    return found


def _prepared(
    source: Source, stage: str, topology: Topology | None, objective: str | None = None
) -> Config:
    """A config of one's own to change, for this stage; checked again with what was given."""
    plain = to_dict(config_from([] if source is None else source)) | {"stage": stage}
    if topology is not None:
        if not isinstance(topology, TopologyConfig | Mapping):
            raise ConfigError(f"topology={topology!r}: give a dict or a TopologyConfig.")
        plain["topology"] = (
            asdict(topology) if isinstance(topology, TopologyConfig) else dict(topology)
        )
    if objective is not None:
        plain["training"]["outer"]["objective"] = objective
    return to_config(plain)


def _checked_factory(objective: Factory | str | None) -> Factory | None:
    if objective is None or isinstance(objective, str):
        return None
    if isinstance(objective, type) or not callable(objective):
        raise ConfigError(
            f"objective={objective!r}: give a registered name, or a function (config, loaded, "
            "links) -> Objective, such as MyObjective.from_config."
        )
    return objective


def _check_callbacks(callbacks: Any) -> None:
    if not isinstance(callbacks, Sequence):
        raise ConfigError(f"callbacks={callbacks!r}: give a list of callbacks.")
    for callback in callbacks:
        if isinstance(callback, type) or not (isinstance(callback, Callback) or callable(callback)):
            raise ConfigError(f"callback {callback!r}: give an instance of Callback or a function.")


@contextmanager
def _running(
    config: Config, rows: Rows | None, test_rows: Rows | None
) -> Iterator[tuple[Loaded, Runtime, Toolbox | None]]:
    """The run folder held, agents and rows loaded and checked; the decoder's tools, if any."""
    with held(Path(config.run_dir)), session(config) as runtime:
        tools = check_early(config, runtime)
        tables = load_tables(config, runtime, rows, test_rows)
        check_golds(config, tables)
        yield load_run(config, runtime, tables=tables), runtime, tools
