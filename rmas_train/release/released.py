"""The released layout: a repository per agent and one for the outer links; names and manifests.

An agent's repository holds ``adapter.pt``, or ``adapter(math).pt`` and so on; the manifest
``innerlink_config.json`` may name it. The base model beside it is never read. The outer repository
holds a file per edge. ``outerlink_config.json`` names these files in one of two forms: ``adapters``
at the top, or below ``tasks.<task>``. A folder that was trained locally has ``<legacy key>.pt``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

from rmas_train.errors import LinksError, did_you_mean
from rmas_train.release.families import Family, family_of, task_of
from rmas_train.release.released_file import ReleasedLink, read_link
from rmas_train.support.files import check_inside
from rmas_train.support.reading import check_type, parse_json, short
from rmas_train.topology import Edge, Topology

INNER_MANIFEST, OUTER_MANIFEST = "innerlink_config.json", "outerlink_config.json"
INNER_CONFIG, OUTER_CONFIG = "adapter_config.json", "outer_adapter_config.json"
ADAPTER = "adapter.pt"
ALIASES = {"critic": "refiner"}  # our agent -> what the release calls it
OUTER = "outer"  # role of the repository with the outer links; the other roles are agents' names
INNER_TYPES = ("ln_res_adapter", "2layer_ln_res")
OUTER_TYPES = ("outer_ln_res_adapter",)


class Repository(Protocol):
    """Files of one folder or hub repository.

    Attributes:
        where: its name in messages.
        commit: commit on the hub; None for a folder.
    """

    @property
    def where(self) -> str: ...

    @property
    def commit(self) -> str | None: ...

    def names(self) -> set[str]: ...

    def get(self, name: str) -> Path:
        """Path of the file; it is downloaded if it is not local."""
        ...


class Folder:
    """A local repository."""

    def __init__(self, path: Path) -> None:
        self.path, self.where, self.commit = path, str(path), None

    def names(self) -> set[str]:
        return {p.name for p in self.path.iterdir()}

    def get(self, name: str) -> Path:
        check_inside(self.path / name)
        return self.path / name


class _Adapter(TypedDict):
    legacy_key: str
    filename: str


class Adapter(_Adapter, total=False):
    """An entry of ``outerlink_config.json``; its widths are used for comparison only."""

    adapter_type: str
    in_dim: int
    out_dim: int


@dataclass(frozen=True)
class Released:
    """A released system's links.

    Attributes:
        links: ``inner.<agent>`` and ``outer.<source>-<target>`` -> content of its file.
        family: the system whose names are used.
        task: task of the files; None if the family has one set for all tasks.
    """

    links: dict[str, ReleasedLink]
    family: Family
    task: str | None

    @property
    def widths(self) -> dict[str, int]:
        """Agent -> width of its inner link."""
        inner = {n: k for n, k in self.links.items() if n.startswith("inner.")}
        return {n.removeprefix("inner."): k.d_target for n, k in inner.items()}


def read_released(
    repositories: Mapping[str, Repository], topology: Topology, task: str | None
) -> Released:
    """Every link of a released system, its widths checked against the topology.

    Args:
        repositories: role -> repository, for every agent and ``outer``.
        topology: topology with the release's names of agents and edges.
        task: ``math`` or ``code``, for families that have files per task.

    Raises:
        LinksError: names the repository or file, the key, and what was seen.
    """
    family = family_of((e.key for e in topology.edges), f"topology '{topology.name}'")
    task = task_of(family, task)
    if OUTER not in repositories:
        raise LinksError(
            f"no repository with outer links ({OUTER_MANIFEST}); give --repo outer=<folder or hub "
            "id>."
        )
    links = {}
    for agent in topology.agents:
        if agent not in repositories:
            raise LinksError(
                f"no repository for agent {agent} (found: {', '.join(sorted(repositories))}); "
                f"give --repo {agent}=<folder or hub id>."
            )
        links[f"inner.{agent}"] = read_inner(repositories[agent], task)
    outer = read_outer(repositories[OUTER], family, task)
    for edge in topology.edges:
        links[f"outer.{edge.key}"] = outer[edge.key]
    released = Released(links, family, task)
    for edge in topology.edges:
        check_widths(outer[edge.key], edge, released.widths)
    return released


def check_widths(link: ReleasedLink, edge: Edge, widths: Mapping[str, int]) -> None:
    """Check that an outer link has the widths of its agents' inner links."""
    ends = (("ln_source.weight", link.d_source, edge.source),)
    ends += (("ln_target.weight", link.d_target, edge.target),)  # type: ignore[assignment]
    for key, seen, agent in ends:
        if seen != widths[agent]:
            raise LinksError(
                f"{link.path}: key {key!r} has shape ({seen},), but {agent}'s inner link has width "
                f"({widths[agent]},); edge {edge.key} needs files of the same system."
            )


def read_inner(repository: Repository, task: str | None) -> ReleasedLink:
    """An agent's inner link, from the file that the release's own loader reads.

    Raises:
        LinksError: no such file, or one that cannot be read.
    """
    names = repository.names()
    name = _inner_name(repository, names, task)
    if INNER_CONFIG in names:
        config = _read_json(repository, INNER_CONFIG, dict[str, Any])
        kind = config.get("adapter_type", INNER_TYPES[0])
        _check_kind(f"{repository.where}/{INNER_CONFIG}", kind, INNER_TYPES)
    return read_link(repository.get(name), outer=False)


def _inner_name(repository: Repository, names: set[str], task: str | None) -> str:
    tasks: dict[str, dict[str, Any]] = {}
    if INNER_MANIFEST in names:
        manifest = _read_json(repository, INNER_MANIFEST, dict[str, Any])
        tasks = manifest.get("tasks", {})
        _check(f"{repository.where}/{INNER_MANIFEST}", tasks, dict[str, dict[str, Any]], "tasks")
    if task is not None and task in tasks:  # the release takes the file's usual name otherwise
        where = f"{repository.where}/{INNER_MANIFEST}"
        return _check_name(where, f"tasks.{task}", tasks[task].get(ADAPTER, ADAPTER), names)
    for name in ([f"adapter({task}).pt"] if task else []) + [ADAPTER]:
        if name in names:
            return name
    seen = sorted(n for n in names if n.endswith(".pt")) or ["no .pt file"]
    wanted = f"adapter({task}).pt or {ADAPTER}" if task else ADAPTER
    raise LinksError(
        f"{repository.where}: no inner link ({wanted}); there: {', '.join(seen)}; give the agent's "
        "released repository, or another --task."
    )


def read_outer(repository: Repository, family: Family, task: str | None) -> dict[str, ReleasedLink]:
    """Edge -> its link, for every edge of the family.

    Raises:
        LinksError: an edge without a file or with two, or a file that cannot be read.
    """
    names = repository.names()
    where = f"{repository.where}/{OUTER_MANIFEST}"
    if OUTER_MANIFEST in names:
        entries = outer_entries(repository, task)
    else:  # a local training without a manifest
        entries = [
            {"legacy_key": key, "filename": f"{key}.pt"}
            for key in family.keys.values()
            if f"{key}.pt" in names
        ]
        where = repository.where
    _check_local_task(repository, names, task)
    edges = {key: edge for edge, key in family.keys.items()}
    found: dict[str, Adapter] = {}
    for entry in entries:
        key = entry["legacy_key"]
        if key not in edges:  # the release does not look at it either
            warnings.warn(
                f"{where}: legacy_key {short(key)} is none of {family.name}'s; its file is not "
                f"read. {did_you_mean(key, edges)}",
                stacklevel=2,
            )
            continue
        if edges[key] in found:
            raise LinksError(f"{where}: two files for {key} ({edges[key]}); remove one.")
        found[edges[key]] = entry
    for edge, key in family.keys.items():
        if edge not in found:
            raise LinksError(f"{where}: no file for {key} ({edge}); give all outer links.")
    return {edge: _read_entry(repository, where, found[edge], names) for edge in family.keys}


def outer_entries(repository: Repository, task: str | None) -> list[Adapter]:
    """Entries of the outer links' manifest; those of one task if the manifest has tasks."""
    where = f"{repository.where}/{OUTER_MANIFEST}"
    manifest = _read_json(repository, OUTER_MANIFEST, dict[str, Any])
    if "tasks" in manifest:
        _check(where, manifest["tasks"], dict[str, dict[str, Any]], "tasks")
        manifest = _of_task(where, manifest["tasks"], task)
    entries = manifest.get("adapters")
    _check(where, entries, list[Adapter], "adapters")
    found: list[Adapter] = entries
    return found


def _read_entry(
    repository: Repository, where: str, entry: Adapter, names: set[str]
) -> ReleasedLink:
    name = _check_name(where, entry["legacy_key"], entry["filename"], names)
    _check_kind(where, entry.get("adapter_type", OUTER_TYPES[0]), OUTER_TYPES)
    link = read_link(repository.get(name), outer=True)
    for key, width in (("in_dim", link.d_source), ("out_dim", link.d_target)):
        said = entry.get(key, width)
        if said != width:
            raise LinksError(
                f"{where}: {entry['legacy_key']} has {key} {short(said)}, but {name} has width "
                f"{width}; {'ln_source' if key == 'in_dim' else 'ln_target'}.weight decides: fix "
                "the manifest, or give the right file."
            )
    return link


def _check_local_task(repository: Repository, names: set[str], task: str | None) -> None:
    """Check the task that a locally trained folder records."""
    if task is None or OUTER_CONFIG not in names:
        return
    said = _read_json(repository, OUTER_CONFIG, dict[str, Any]).get("mas_task", task)
    if said != task:
        raise LinksError(
            f"{repository.where}/{OUTER_CONFIG}: mas_task is {short(said)}, not {task}; give "
            "--task with the task that is meant."
        )


def _of_task(where: str, tasks: Mapping[str, Any], task: str | None) -> dict[str, Any]:
    if task is None or task not in tasks:
        raise LinksError(
            f"{where}: nothing for task {task}; it has {', '.join(sorted(tasks)) or 'none'}: give "
            "--task with one of them."
        )
    found: dict[str, Any] = tasks[task]
    return found


def _check_name(where: str, key: str, name: Any, names: set[str]) -> str:
    """Check that a manifest names a file of its own repository."""
    if not isinstance(name, str) or Path(name).name != name or name in (".", "..") or "\\" in name:
        raise LinksError(
            f"{where}: {key} names {short(name)}, which is no file of the folder itself; use links "
            "from a source that you trust."
        )
    if name not in names:
        raise LinksError(f"{where}: {key} names {name!r}, which is not there; copy it again.")
    return name


def _check_kind(where: str, kind: Any, known: tuple[str, ...]) -> None:
    if kind not in known:
        raise LinksError(
            f"{where}: adapter_type {short(kind)}; only {known[0]} can be read, as in the release."
        )


def _read_json(repository: Repository, name: str, hint: Any) -> Any:
    where = f"{repository.where}/{name}"
    try:
        value = parse_json(repository.get(name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise LinksError(f"{where}: not JSON ({error}); copy the file again.") from error
    except OSError as error:
        raise LinksError(f"{where}: {error.strerror}; check the path.") from error
    _check(where, value, hint, "")
    return value


def _check(where: str, value: Any, hint: Any, key: str) -> None:
    try:
        check_type(value, hint, key)
    except ValueError as error:
        raise LinksError(f"{where}: {error}; copy or fix the file.") from error


def find_repositories(root: Path, agents: Iterable[str]) -> dict[str, Repository]:
    """Find repositories among the sub-folders of a local folder, by their files and names.

    The outer repository has a manifest or ``outer_*.pt``. An agent's repository has an adapter, and
    its name contains the agent's name, or the release's name of it (``refiner``: the critic), as a
    word: ``planner``, or ``Sequential-Light-Planner-Qwen3-1.7B``.

    Raises:
        LinksError: several folders for one role.
    """
    found: dict[str, Repository] = {}
    folders = [root, *sorted(p for p in root.iterdir() if p.is_dir())]
    for role in (OUTER, *agents):
        matches = [p for p in folders if _plays(p, role)]
        exact = [p for p in matches if p.name == role]
        if len(matches) > 1 and len(exact) != 1:
            raise LinksError(
                f"{root}: several folders for {role}: {', '.join(p.name for p in matches)}; give "
                f"--repo {role}=<the one that is meant>."
            )
        if matches:
            found[role] = Folder((exact or matches)[0])
    return found


def _plays(folder: Path, role: str) -> bool:
    names = {p.name for p in folder.iterdir()} if not folder.name.startswith(".") else set()
    if role == OUTER:
        return OUTER_MANIFEST in names or any(re.fullmatch(r"outer_\w+\.pt", n) for n in names)
    is_agent = INNER_MANIFEST in names or any(re.fullmatch(r"adapter.*\.pt", n) for n in names)
    words = re.split(r"[^a-z0-9]+", folder.name.lower())
    return is_agent and (role in words or ALIASES.get(role) in words)
