"""Push and pull links folders to and from the Hugging Face hub, and fetch released files.

The hub's own client sends and receives, and reads its own tokens. This module decides which files
are transferred: only the known ones, complete, at one commit.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import disable_progress_bars

from rmas_train.errors import HubError, LinksError
from rmas_train.links.card import CARD, TENSORS, read_card
from rmas_train.links.restore import restore_links
from rmas_train.release.released import OUTER
from rmas_train.support.files import new_folder, write_json
from rmas_train.support.hub_errors import HUB_ERRORS

MODEL_CARD, ORIGIN = "README.md", "hub.json"
FILES = (CARD, TENSORS, MODEL_CARD)  # no other file is sent or fetched
OWN = {".gitattributes"}  # files that the hub itself puts into a repository
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
# Repositories of the published systems: prefix, agent -> rest of its name.
SYSTEMS = {
    "sequential_light": (
        "RecursiveMAS/Sequential-Light",
        {
            "planner": "Planner-Qwen3-1.7B",
            "critic": "Critic-Llama3.2-1B",
            "solver": "Solver-Qwen2.5-Math-1.5B",
        },
    ),
    "sequential_scaled": (
        "RecursiveMAS/Sequential-Scaled",
        {
            "planner": "Planner-Gemma3-4B",
            "critic": "Critic-Llama3.2-3B",
            "solver": "Solver-Qwen3.5-4B",
        },
    ),
    "mixture": (
        "RecursiveMAS/Mixture",
        {
            "math": "Math-DeepSeek-R1-Distill-Qwen-1.5B",
            "code": "Code-Qwen2.5-Coder-3B",
            "science": "Science-BioMistral-7B",
            "summarizer": "Summarizer-Qwen3.5-2B",
        },
    ),
    "distillation": (
        "RecursiveMAS/Distillation",
        {"expert": "Expert-Qwen3.5-9B", "learner": "Learner-Qwen3.5-4B"},
    ),
    "deliberation": (
        "RecursiveMAS/Deliberation",
        {"reflector": "Reflector-Qwen3.5-4B", "toolcaller": "Toolcaller-Qwen3.5-4B"},
    ),
}


def system_repositories(name: str) -> dict[str, str]:
    """Role -> hub id of a published system."""
    prefix, agents = SYSTEMS[name]
    ids = {agent: f"{prefix}-{rest}" for agent, rest in agents.items()}
    return ids | {OUTER: f"{prefix}-Outerlinks"}


class HubRepository:
    """A hub repository at one commit; each file is fetched when it is needed."""

    def __init__(self, repo: str, revision: str | None = None) -> None:
        self.repo, self._names, self.commit = check_id(repo), set[str](), str(revision)
        with told(f"{repo}{f'@{revision}' if revision else ''}"):
            info = client().model_info(repo, revision=revision)
        if not info.sha:
            raise HubError(f"{repo}: the hub names no commit; try again later.")
        self.commit = info.sha
        self._names = {file.rfilename for file in info.siblings or []}
        self.where = f"{repo}@{self.commit[:12]}"

    def names(self) -> set[str]:
        """Names of the files in the top folder."""
        return {name for name in self._names if "/" not in name}

    def everything(self) -> set[str]:
        return set(self._names)

    def get(self, name: str) -> Path:
        """Path of one file in the hub's cache."""
        with told(f"{self.where}/{name}"):
            found = client().hf_hub_download(self.repo, name, revision=self.commit)
        return Path(found)


def client() -> HfApi:
    disable_progress_bars()  # its control characters would be written to log files
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="rmas_train")


def check_id(repo: str) -> str:
    if not HUB_ID.fullmatch(repo) or ".." in repo or "--" in repo:
        raise HubError(f"{repo}: no hub id; give organisation/name.")
    return repo


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn the client's errors into one line.

    Raises:
        HubError: no connection, no access, no such repository or file.
    """
    try:
        yield
    except RepositoryNotFoundError as error:
        raise HubError(
            f"{what}: no such repository on the hub, or no access to it; check the name, and log "
            "in (`hf auth login`) where it is private or gated."
        ) from error
    except (*HUB_ERRORS, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise HubError(
            f"{what}: {reason.rstrip('.')}; check the connection, the name and your access."
        ) from error


def check_sendable(folder: Path) -> None:
    """Check that a links folder may be sent: complete, sealed, and without symbolic links.

    Raises:
        LinksError: it may not be sent.
    """
    for name in (CARD, TENSORS):
        if (folder / name).is_symlink():
            raise LinksError(f"{folder / name}: a symbolic link; copy the file itself there.")
    restore_links(folder)
    if not read_card(folder).seal:
        raise LinksError(
            f"{folder / CARD}: no seal, so damage could not be found; train or import again."
        )


def push(folder: Path, repo: str, text: str, public: bool) -> str:
    """Send a links folder with its model card, as one commit.

    Args:
        folder: links folder that ``check_sendable`` has accepted.
        repo: hub id; the repository is created if it does not exist.
        text: text of ``README.md``.
        public: visible to everybody; needed to write to a public repository.

    Returns:
        the address of the commit.

    Raises:
        HubError: no connection or access, or a repository that is public or holds other files.
    """
    check_id(repo)
    sent = [CommitOperationAdd(name, str(folder / name)) for name in (CARD, TENSORS)]
    sent.append(CommitOperationAdd(MODEL_CARD, text.encode()))
    with told(repo):
        client().create_repo(repo, private=not public, exist_ok=True)
        info = client().model_info(repo)
    if not info.private and not public:
        raise HubError(f"{repo} is public; add --public, or give another name.")
    _check_known(repo, {file.rfilename for file in info.siblings or []})
    with told(repo):
        done = client().create_commit(
            repo, sent, commit_message="Links of a recursive multi-agent system"
        )
    return str(done.commit_url)


def pull(repo: str, folder: Path, revision: str | None) -> str:
    """Fetch a links folder, and record its repository and commit in ``hub.json``.

    Args:
        repo: hub id.
        folder: new, or empty.
        revision: branch, tag or commit; None: the newest.

    Returns:
        the commit.

    Raises:
        HubError: no connection or access, or files that do not belong to a links folder.
        LinksError: the fetched files are damaged; nothing is kept.
    """
    if folder.is_symlink() or folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise LinksError(f"{folder}: is there and not empty; choose a new folder.")
    remote = HubRepository(repo, revision)
    there = remote.everything()
    _check_known(remote.where, there)
    for name in (CARD, TENSORS):
        if name not in there:
            raise HubError(f"{remote.where}: no {name}, so no links folder; give another name.")
    with new_folder(folder) as work:
        for name in sorted(there & set(FILES)):
            shutil.copyfile(remote.get(name), work / name)
        try:
            check_sendable(work)
        except LinksError as error:
            raise LinksError(str(error).replace(str(work), remote.where)) from error
        write_json(
            work / ORIGIN, {"repository": repo, "commit": remote.commit, "revision": revision}
        )
    return remote.commit


def cached_links(repo: str, revision: str | None = None) -> Path:
    """A links folder of the hub on this machine; fetched once per commit, and verified then.

    Raises:
        HubError, LinksError: as ``pull``.
    """
    commit = HubRepository(repo, revision).commit
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    folder = cache / "rmas_train" / "links" / repo / commit
    if not (folder / CARD).is_file():
        pull(repo, folder, commit)
    return folder


def _check_known(where: str, names: set[str]) -> None:
    if odd := sorted(names - set(FILES) - OWN):
        raise HubError(
            f"{where}: holds {odd[0]!r}, which is none of {', '.join(FILES)}; such a repository is "
            "neither read nor written: use another, or remove the file there."
        )
