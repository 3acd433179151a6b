"""``sweep=<name>``: what ``conf/sweep/<name>.yaml`` varies; and ``sweep.json``.

A file is a mapping from option to a list of values, of which all combinations are jobs, or a list
of mappings from option to value, each of which is a job. What is typed for the same option stands
in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmas_train.compose import config_dir, groups
from rmas_train.compose.typed import key_of
from rmas_train.config import shown
from rmas_train.errors import ConfigError, did_you_mean
from rmas_train.support.files import write_json
from rmas_train.support.reading import parse_yaml

GROUP, FILE = "sweep", "sweep.json"
EXAMPLE = "give options with lists of values, as in `rounds: [1, 2, 3]`, or a list of jobs"


@dataclass(frozen=True)
class Swept:
    """What is typed together with sweep files.

    Attributes:
        overrides: with several values each, of which all combinations are jobs.
        jobs: overrides of single jobs; each is combined with all of the others.
    """

    overrides: list[str]
    jobs: list[list[str]] = field(default_factory=lambda: [[]])


def with_sweep_files(overrides: Sequence[str], folders: Sequence[Path]) -> Swept:
    """What is typed, with what each ``sweep=`` file varies.

    Raises:
        ConfigError: no such file, something else in it, or two of them list jobs.
    """
    names = [o.split("=", 1)[1] for o in overrides if key_of(o) == GROUP]
    typed = [o for o in overrides if key_of(o) != GROUP]
    found: list[str] = []
    jobs: list[list[str]] = []
    for name in names:
        values = read_sweep(name, folders)
        taken = {key_of(override) for override in [*typed, *found]}
        if isinstance(values, dict):
            new = {key: listed for key, listed in values.items() if key not in taken}
            found += [f"{k}={','.join(shown(x) for x in listed)}" for k, listed in new.items()]
            continue
        if jobs:
            raise ConfigError(f"{GROUP}={name}: another file lists jobs too; name one of them.")
        given = [{k: v for k, v in job.items() if k not in taken} for job in values]
        jobs = [[f"{k}={shown(v)}" for k, v in job.items()] for job in given]
    return Swept([*found, *typed], jobs or [[]])


def read_sweep(name: str, folders: Sequence[Path]) -> Any:
    """Option -> values, or a list of jobs."""
    for folder in (*folders, config_dir()):
        path = folder / GROUP / f"{name}.yaml"
        if path.is_file():
            return _checked(path)
    raise ConfigError(
        f"{GROUP}={name}: no such choice. {did_you_mean(name, groups(folders).get(GROUP, []))}"
    )


def _checked(path: Path) -> Any:
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}; {EXAMPLE}.") from error
    if isinstance(values, list) and values and all(isinstance(job, Mapping) for job in values):
        return [{str(key): value for key, value in job.items()} for job in values]
    if not isinstance(values, Mapping) or not values:
        raise ConfigError(f"{path}: {EXAMPLE}.")
    for key, listed in values.items():
        if not isinstance(listed, list) or not listed:
            raise ConfigError(f"{path}: {key} is {shown(listed)}; {EXAMPLE}.")
    return {str(key): listed for key, listed in values.items()}


def write_sweep_file(root: Path, jobs: Mapping[str, Mapping[str, str]]) -> None:
    """``sweep.json``: what each job has of the swept options; the report makes columns of it."""
    keys = list(dict.fromkeys(key for values in jobs.values() for key in values))
    listed = {name: dict(values) for name, values in jobs.items()}
    write_json(root / FILE, {"schema": 1, "keys": keys, "jobs": listed})
