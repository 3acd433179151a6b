"""``-m key=a,b,c``: every combination through Hydra's launchers, then one table and heat map."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from rmas_train.compose import compose, config_dir, normalise
from rmas_train.config import Config
from rmas_train.errors import ConfigError, UserError


def sweep(overrides: list[str]) -> None:
    """Check every job's config first, then run them all and report on them together.

    Raises:
        ConfigError: any job's config is bad; nothing has run then.
    """
    from rmas_train.reporting.report import write_report

    overrides = normalise(overrides)
    jobs = expand(overrides)
    first = compose(next(iter(jobs.values())))
    typed = any(o.startswith("++run_dir=") for o in overrides)
    root = Path(first.run_dir) if typed else Path(first.run_dir) / "sweep"
    configs = {name: job_config(name, jobs, root) for name in jobs}
    _launch(overrides, jobs, configs)
    write_report(root)


def expand(overrides: list[str]) -> dict[str, list[str]]:
    """Job name -> its overrides; the name lists what varies, a group's choice by itself."""
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ConfigError(f"{str(error).splitlines()[0]} See --help.") from error
    choices = []
    for override in parsed:
        if override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={v}" for v in override.sweep_string_iterator()])
        else:
            choices.append([override.input_line or ""])
    varying = [i for i, c in enumerate(choices) if len(c) > 1]
    jobs = {}
    for combination in itertools.product(*choices):
        parts = [combination[i] for i in varying] or ["job"]
        names = [p.lstrip("+").removeprefix("experiment=") for p in parts]
        name = ",".join(names).replace("/", "_")
        jobs[name] = list(combination)
    return jobs


def job_config(name: str, jobs: dict[str, list[str]], root: Path) -> Config:
    """A job's config in its own run folder; all jobs are evaluated at the depths of the deepest."""
    config = compose(jobs[name])
    config.run_dir = str(root / name)
    depths = {compose(job).rounds for job in jobs.values()}
    if config.evaluation.rounds is None and len(depths) > 1:
        config.evaluation.rounds = list(range(1, max(depths) + 1))
    return config


def _launch(overrides: list[str], jobs: dict[str, list[str]], configs: dict[str, Config]) -> None:
    """Through ``hydra.main``, so that ``hydra/launcher=...`` works as users know it."""
    from rmas_train.__main__ import execute

    by_overrides = {frozenset(o): name for name, o in jobs.items()}

    @hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
    def job(_: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        name = by_overrides[frozenset(HydraConfig.get().overrides.task)]
        print(f"\n== job {name}", flush=True)
        try:
            execute(configs[name])
        except UserError as error:  # Hydra would print a traceback and exit with 1
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from error

    root = Path(next(iter(configs.values())).run_dir).parent
    typed, sys.argv = (
        sys.argv,
        [
            sys.argv[0],
            "-m",
            *overrides,
            f"hydra.sweep.dir={root}",
            "hydra.output_subdir=null",
            "hydra.sweep.subdir=.",
            "hydra/job_logging=none",
            "hydra/hydra_logging=none",
        ],
    )
    try:
        job()
    finally:
        sys.argv = typed
