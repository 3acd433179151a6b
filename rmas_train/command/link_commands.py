"""What ``links import|export|from-checkpoint|...`` do, once their arguments are read."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rmas_train.errors import ConfigError, LinksError
from rmas_train.links.card import CARD, TENSORS, read_card
from rmas_train.links.folder import find_links
from rmas_train.support.output import clean

if TYPE_CHECKING:
    from rmas_train.release.released import Repository


def say(text: str) -> None:
    print(clean(text), flush=True)


def run_import(typed: argparse.Namespace) -> None:
    """``links import``."""
    from rmas_train.compose.stamp import needs_recipe
    from rmas_train.release.import_links import import_config, import_links

    sources = [a for a in typed.what if "=" not in a]
    if len(sources) > 1:
        raise ConfigError(f"links import: {sources[1]} is one source too many; give one.")
    flags = [f"--config={file}" for file in typed.config]
    flags += [f"--config-dir={folder}" for folder in typed.config_dir]
    config = import_config([*flags, *(a for a in typed.what if "=" in a)])
    named = dict(_role(text, [*config.topology.order, "outer"]) for text in typed.repo)
    models = {n: config.agents[n].model for n in config.topology.order}
    task = typed.task or task_of_data(config.data.task)
    repositories = find_all(sources[0] if sources else None, named, models)
    folders = import_links(config, repositories, task)
    files = read_card(folders[1]).released["files"]
    for name, about in files.items():
        say(f"{name}: {about['file']} ({about['dtype']})")
    say(f"wrote {folders[0]} and {folders[1]}")
    more = f" data.recipe={config.data.recipe}" if needs_recipe(config.data, config.seed) else ""
    say(f"next: python -m rmas_train stage=eval run={config.run_dir}{more}")


def task_of_data(task: str | None) -> str | None:
    """The release has links for code, and uses those for math everywhere else."""
    return None if task is None else "code" if task == "code" else "math"


def _role(text: str, roles: list[str]) -> tuple[str, str]:
    role, _, where = text.partition("=")
    if not where or role not in roles:
        raise ConfigError(f"--repo {text}: give <role>=<folder or hub id>, role one of {roles}.")
    return role, where


def find_all(
    source: str | None, named: Mapping[str, str], models: Mapping[str, str]
) -> dict[str, Repository]:
    """Role -> repository: as named, else found in the source, else the agent's own model.

    Args:
        source: local folder of repositories, name of a published system, or hub id of the outer
            links.
        named: of ``--repo``.
        models: agent -> ``agents.<name>.model``, which in the release holds the links too.
    """
    from rmas_train.release.hub import SYSTEMS, system_repositories
    from rmas_train.release.released import OUTER, find_repositories

    found: dict[str, Repository] = {}
    if source is not None and Path(source).exists():
        if not Path(source).is_dir():
            raise LinksError(f"{source}: not a folder; give the folder of the repositories.")
        found = find_repositories(Path(source), models)
    where = dict(named)
    if source in SYSTEMS and not Path(str(source)).exists():
        where = system_repositories(str(source)) | where
    elif source is not None and not Path(source).exists():
        where = {OUTER: source} | where
    found |= {role: open_repository(role, text) for role, text in where.items()}
    for agent, model in models.items():
        if agent not in found and (Path(model).is_dir() or "/" in model):
            found[agent] = open_repository(agent, model)
    return found


def open_repository(role: str, where: str) -> Repository:
    """A folder, or a hub repository at a commit.

    Raises:
        LinksError: no such folder, and no hub id.
    """
    from rmas_train.release.hub import HUB_ID, HubRepository
    from rmas_train.release.released import Folder

    if Path(where).is_dir():
        return Folder(Path(where))
    repo, _, revision = where.partition("@")
    if Path(where).exists() or not HUB_ID.fullmatch(repo):
        raise LinksError(f"{role}={where}: no such folder, and no hub id (organisation/name).")
    return HubRepository(repo, revision or None)


def run_export(typed: argparse.Namespace) -> None:
    """``links export``."""
    from rmas_train.release.export import export_links

    notes = export_links(find_links(typed.folder), typed.out, typed.task, typed.layout)
    for path in sorted(p for p in typed.out.rglob("*") if p.is_file()):
        say(str(path))
    for note in notes:
        say(f"note: {note}")


def run_from_checkpoint(typed: argparse.Namespace) -> None:
    """``links from-checkpoint``."""
    from rmas_train.release.from_checkpoint import links_from_checkpoint

    card, step = links_from_checkpoint(typed.checkpoint, typed.out)
    say(f"wrote {typed.out}: {card.stage} links after {step} step(s)")
    if card.stage == "inner":
        say(f"next: python -m rmas_train stage=outer inner={typed.out}")
    else:
        say(f"next: python -m rmas_train stage=eval run={typed.out}")


def run_report(typed: argparse.Namespace) -> None:
    """``links report``."""
    from rmas_train.analysis.link_report import report
    from rmas_train.release.inspect import find_inspected
    from rmas_train.reporting.link_table import finite, print_links
    from rmas_train.support.files import write_json

    if not 2 <= typed.draws <= 1000:
        raise ConfigError(f"--draws={typed.draws}: give 2 to 1000.")
    found = report(find_inspected(typed.folder, typed.task), typed.draws)
    print_links(found)
    if typed.json is not None:
        write_json(typed.json, finite(found))


def run_push(typed: argparse.Namespace) -> None:
    """``links push``."""
    from rmas_train.release.hub import MODEL_CARD, check_id, check_sendable, push
    from rmas_train.release.model_card import local_agents, model_card

    folder = find_links(typed.folder)
    check_id(typed.repo)
    check_sendable(folder)
    card = read_card(folder)
    text = model_card(folder, card, _run_dir(folder))
    kind = "public" if typed.public else "private"
    say(f"{'would send' if typed.dry_run else 'sending'} to {typed.repo} ({kind}):")
    contents = {n: (folder / n).read_bytes() for n in (CARD, TENSORS)}
    contents[MODEL_CARD] = text.encode()
    for name, content in contents.items():
        say(f"  {name}  {len(content)} bytes  sha256 {hashlib.sha256(content).hexdigest()}")
    if local := local_agents(card):
        models = ", ".join(f"{n}={card.agents[n]['model']}" for n in local)
        say(f"note: {CARD} names these agents by folders of this machine: {models}")
    if not typed.dry_run:
        say(f"sent: {push(folder, typed.repo, text, typed.public)}")


def _run_dir(links: Path) -> Path | None:
    """The run folder around ``<run>/outer/links`` or ``<run>/inner/links``."""
    links = links.resolve()
    is_run = links.name == "links" and links.parent.name in ("inner", "outer")
    return links.parent.parent if is_run else None


def run_pull(typed: argparse.Namespace) -> None:
    """``links pull``."""
    from rmas_train.release.hub import pull

    commit = pull(typed.repo, typed.folder, typed.revision)
    say(f"{typed.folder}: {typed.repo} at commit {commit}, seal verified")
    for name, about in read_card(typed.folder).agents.items():
        say(f"  {name}: {about['model']}, width {about['width']}")


def run_library(typed: argparse.Namespace) -> None:
    """``links library``."""
    from rmas_train.command.library_commands import ACTIONS

    ACTIONS[typed.action](typed)


COMMANDS = {
    "import": run_import,
    "export": run_export,
    "from-checkpoint": run_from_checkpoint,
    "library": run_library,
    "report": run_report,
    "push": run_push,
    "pull": run_pull,
}
