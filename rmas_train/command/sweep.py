"""``-m key=a,b,c``: every combination through Hydra's launchers, then one table and heat map.

Submitit's launchers run the jobs in processes of their own, here or on a SLURM cluster.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig

from rmas_train.command.launcher import check_launcher
from rmas_train.command.sweep_file import with_sweep_files, write_sweep_file
from rmas_train.compose import (
    Typed,
    compose,
    config_dir,
    explain,
    is_hydra,
    normalise,
    searching,
    to_yaml,
)
from rmas_train.config import Config
from rmas_train.errors import ConfigError, UserError
from rmas_train.support.files import write_text
from rmas_train.support.output import one_line

FAILURE = "error.txt"  # in the run folder of a job that failed in a process of its own


def sweep(asked: Typed) -> None:
    """Check every job's config first, then run them all and report on them together.

    With ``--show``: print the configs instead.

    Raises:
        ConfigError: the launcher or any job's config is bad; nothing has run then.
        UserError: jobs failed; the report is on the others.
    """
    typed = [o for o in asked.overrides if is_hydra(o)]
    swept = with_sweep_files([o for o in asked.overrides if not is_hydra(o)], asked.folders)
    overrides = normalise(swept.overrides, asked.folders)
    listed = [normalise(job, asked.folders) for job in swept.jobs]
    jobs = {name: [*asked.flags, *job] for name, job in expand(overrides, listed).items()}
    configs = {name: compose(job) for name, job in jobs.items()}
    first = next(iter(configs.values()))
    has_root = any(o.startswith("++run_dir=") for o in overrides)
    root = Path(first.run_dir) if has_root else Path(first.run_dir) / "sweep"
    _in_one_sweep(configs, root)
    if asked.is_shown:
        for name, config in configs.items():
            print(f"--- # job {name}\n{to_yaml(config)}", end="", flush=True)
        return
    launcher = check_launcher(typed)
    if launcher != "basic":
        _make_ready(configs)
        print(f"{len(jobs)} jobs through {launcher}; logs below {root / '.submitit'}", flush=True)
    varied = varying(jobs)
    if first.stage not in ("report", "plan"):
        write_sweep_file(root, varied)
    with searching(asked.folders):
        _launch(typed, launcher, configs)

    from rmas_train.reporting.collect import result_files
    from rmas_train.reporting.report import write_report

    if result_files(root):
        write_report(root)
        if first.tracking and first.stage in ("eval", "pipeline"):
            from rmas_train.stages.tracked import track_report

            track_report(replace(first, run_dir=str(root), tracking_group=root.name))
    _check_failures(configs)


def expand(overrides: list[str], listed: Sequence[list[str]] = ([],)) -> dict[str, list[str]]:
    """Job name -> its overrides; the name lists what varies, a group's choice by itself.

    Args:
        overrides: of all jobs, some with several values.
        listed: overrides of single jobs, see ``Swept``.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        choices = [_choices(override) for override in parsed]
    except HydraException as error:
        raise ConfigError(explain(error, overrides)) from error
    varying = [i for i, c in enumerate(choices) if len(c) > 1]
    jobs = {}
    for own, combination in itertools.product(listed, itertools.product(*choices)):
        parts = [*own, *(combination[i] for i in varying)] or ["job"]
        names = [p.lstrip("+").removeprefix("experiment=") for p in parts]
        name = ",".join(names).replace("/", "_")
        if name in jobs:
            raise ConfigError(f"{name} is named twice in this sweep; give each value once.")
        jobs[name] = [*combination, *own]
    return jobs


def varying(jobs: dict[str, list[str]]) -> dict[str, dict[str, str]]:
    """Job name -> option -> its value as typed, of options that differ between jobs."""
    values = {
        name: dict(o.lstrip("+").split("=", 1) for o in job if not o.startswith("--"))
        for name, job in jobs.items()
    }
    keys = dict.fromkeys(key for own in values.values() for key in own)
    differ = [key for key in keys if len({own.get(key) for own in values.values()}) > 1]
    return {name: {k: own[k] for k in differ if k in own} for name, own in values.items()}


def _choices(override: Override) -> list[str]:
    """An override's values, each as an override."""
    if override.is_sweep_override():
        if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
            raise ConfigError(
                f"{(override.input_line or '').lstrip('+')}: name the values, as in key=a,b; "
                "patterns are not looked up."
            )
        key = override.get_key_element()
        return [f"{key}={v}" for v in override.sweep_string_iterator()]
    return [override.input_line or ""]


def _in_one_sweep(configs: dict[str, Config], root: Path) -> None:
    """Each job in its own run folder; all are evaluated at the depths of the deepest."""
    depths = {config.rounds for config in configs.values()}
    for name, config in configs.items():
        config.run_dir = str(root / name)
        config.tracking_group = config.tracking_group or root.name
        if config.evaluation.rounds is None and len(depths) > 1:
            config.evaluation.rounds = list(range(1, max(depths) + 1))


def _make_ready(configs: dict[str, Config]) -> None:
    """Do the steps that parallel jobs must not do at the same time, before they start.

    Raises:
        ConfigError: two jobs would each make the same data folder in their own way.
    """
    from rmas_train.recipes.prepare import prepare

    made: dict[str, Any] = {}
    for name, config in configs.items():
        (Path(config.run_dir) / FAILURE).unlink(missing_ok=True)
        if config.data.recipe is None or config.stage in ("report", "plan"):
            continue
        recipe = (config.data.recipe, config.seed, config.data.recipe_options)
        if made.setdefault(config.data.folder, recipe) != recipe:
            raise ConfigError(
                f"job {name}: data.folder={config.data.folder} is made with other options for "
                "another job that runs at the same time; sweep data.folder too, or leave "
                "hydra/launcher out."
            )
        prepare(config.data, config.seed)


def _launch(typed: list[str], launcher: str, configs: dict[str, Config]) -> None:
    """Through ``hydra.main``, so that ``hydra/launcher=...`` works as users know it.

    Hydra counts the jobs; what each of them is has been decided.
    """
    names = list(configs)

    # Submitit pickles this function by value: what it calls is imported where it runs.
    @hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
    def job(_: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        name = names[HydraConfig.get().job.num]
        print(f"\n== job {name}", flush=True)
        if launcher == "basic":
            _run_here(configs[name])
        else:
            _run_apart(configs[name], launcher)

    root = Path(next(iter(configs.values())).run_dir).parent
    ours = [
        f"hydra.sweep.dir={root}",
        "hydra.output_subdir=null",
        "hydra.sweep.subdir=.",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]
    try:
        number = f"+sweep_job={','.join(map(str, range(len(names))))}"
        with _command([sys.argv[0], "-m", number, *typed, *ours]):
            job()
    except RuntimeError as error:
        line = _submitit_line(error)
        if line is None:
            raise
        raise UserError(
            f"hydra/launcher={launcher}: {line}; files and logs are below {root / '.submitit'}."
        ) from error


def _run_here(config: Config) -> None:
    """In this process: the first job with an error ends the sweep."""
    from rmas_train.stages.pipeline import execute

    try:
        execute(config)
    except UserError as error:  # Hydra would print a traceback and exit with 1
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def _run_apart(config: Config, launcher: str) -> None:
    """In a process of its own: the job's error is left in its run folder, for the sweep to find."""
    from rmas_train.stages.pipeline import execute

    if launcher.startswith("submitit_"):
        _join_tasks()
    try:
        execute(config)
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        write_text(Path(config.run_dir) / FAILURE, f"{one_line(error)}\n")


def _join_tasks() -> None:
    """The tasks of one job are the processes of one run, as under torchrun."""
    import submitit

    if submitit.JobEnvironment().num_tasks > 1:
        # All of a node's GPUs stay visible, as under torchrun; each rank takes its own.
        environment = submitit.helpers.TorchDistributedEnvironment()
        environment.export(set_cuda_visible_devices=False, overwrite=True)


@contextmanager
def _command(argv: list[str]) -> Iterator[None]:
    """What ``hydra.main`` reads; errors come out of it as they are, not as printed tracebacks."""
    typed, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = argv, "1"
    try:
        yield
    finally:
        sys.argv = typed
        del os.environ["HYDRA_FULL_ERROR"]
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full


def _submitit_line(error: RuntimeError) -> str | None:
    """A job that was refused, cancelled or timed out, in one line; None for anything else."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")]
    if not type(error).__module__.startswith("submitit.") or any("Traceback" in li for li in lines):
        return None
    return " ".join(lines[:2]) or "sbatch failed without a message"


def _check_failures(configs: dict[str, Config]) -> None:
    """Name the jobs that left an error."""
    files = {name: Path(c.run_dir) / FAILURE for name, c in configs.items()}
    failed = {n: f.read_text(encoding="utf-8").strip() for n, f in files.items() if f.is_file()}
    if failed:
        errors = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise UserError(f"{len(failed)} of {len(configs)} jobs failed. {errors}")
