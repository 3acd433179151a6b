"""The card of a links folder, ``links.json``: what its links are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from rmas_train.config import LinksConfig, TopologyConfig
from rmas_train.config.run import AGENT_NAME
from rmas_train.errors import LinksError
from rmas_train.support.files import check_inside
from rmas_train.support.output import CONTROL
from rmas_train.support.reading import check_type, parse_json, short

LONGEST = 4096  # characters of a path


def check_names(path: Path, values: Mapping[str, Any]) -> None:
    """Check that agents' names are valid in a config, so that no name is a path or several lines.

    Raises:
        LinksError: names the part of ``links.json`` and quotes the beginning of its value.
    """
    for where, name in _names(values):
        if not isinstance(name, str) or not AGENT_NAME.fullmatch(name):
            raise LinksError(
                f"{path}: {where}: {_quote(name)} is no agent's name ([a-z][a-z0-9_]*, at most 64 "
                "characters); use links from a source that you trust."
            )
    for where, text in _texts(values):
        if text is not None and (
            not isinstance(text, str) or len(text) > LONGEST or CONTROL.search(text)
        ):
            raise LinksError(
                f"{path}: {where}: {_quote(text)} is no line of text of at most {LONGEST} "
                "characters; use links from a source that you trust."
            )


def _names(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    topology = _mapping(values, "topology")
    for key in ("agents", "prompts"):
        yield from ((key, name) for name in _mapping(values, key))
    yield from (("topology.order", name) for name in _list(topology, "order"))
    for edge in _list(topology, "edges"):
        if isinstance(edge, Mapping):
            yield from (("topology.edges", edge.get(end)) for end in ("source", "target"))
    if "decoder" in topology:
        yield "topology.decoder", topology["decoder"]


def _texts(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "topology.name", _mapping(values, "topology").get("name")
    for name, about in _mapping(values, "agents").items():
        if isinstance(about, Mapping):
            yield from ((f"agents.{name}.{k}", about.get(k)) for k in ("model", "revision"))


def _mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The value, or an empty mapping if it is another type; reading the card reports that."""
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}


def _list(values: Mapping[str, Any], key: str) -> list[Any]:
    found = values.get(key)
    return found if isinstance(found, list) else []


def _quote(value: Any) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


FORMAT = 1
TENSORS, CARD = "links.safetensors", "links.json"


class AgentFields(TypedDict):
    """An agent that links were made for."""

    model: str
    revision: str | None
    dtype: str
    width: int
    fingerprint: str


class AgentCard(AgentFields, total=False):
    """Fields that older folders do not have, and of how it was loaded, where not by default."""

    attention: str
    tokenizer: str
    adapter: str
    adapter_revision: str | None
    quantization: str
    template: Any


class ReleasedFile(TypedDict):
    """The released file from which a link was imported."""

    file: str
    dtype: str
    sha256: str
    commit: str | None


class Origin(TypedDict, total=False):
    """Origin of imported links: the task of the files, and link -> file; or of a library's: edge ->
    folder and edge there."""

    task: str | None
    files: dict[str, ReleasedFile]
    library: dict[str, str]


class Fields(TypedDict):
    """Types inside ``links.json``, to check what is read from a file."""

    stage: str
    agents: dict[str, AgentCard]
    topology: TopologyConfig
    links: LinksConfig
    prompts: dict[str, dict[str, Any]]
    rounds: int | None
    latent_length: int | None
    max_new_tokens: int
    data_fingerprint: str
    package_version: str
    prompts_hash: str


class MoreFields(Fields, total=False):
    """Fields that older folders do not have."""

    options_hash: str
    alignment: dict[str, dict[str, Any]]
    released: Origin
    identity: dict[str, Any]
    rendered_prompts: dict[str, dict[str, str]]
    seal: str


@dataclass(kw_only=True)
class LinksCard:
    """The content of ``links.json``, which describes the tensors beside it.

    Attributes:
        stage: what was trained last: ``inner``, ``outer`` or ``start`` (nothing).
        agents: name -> model, revision, dtype, width, fingerprint (sha256 of the weights; empty if
            they are not known, as for released links), attention, hash of the tokenizer.
        topology, links: the options of these names.
        prompts: agent -> texts of its prompt file, so that a folder can answer without a config.
        rounds, latent_length: as trained; None for inner links.
        data_fingerprint: sha256 of the training file.
        alignment: per edge, number of shared tokens and cosines of the aligned start.
        released: files from which imported links were read; empty for links trained here.
        options_hash: of ``identity``.
        identity: all that these links depend on (``runs.identity``); empty in older folders.
        rendered_prompts: agent -> its prompt as its chat template wrote it, with a hash.
        seal: sha256 of all these fields and the tensors (``seal_of``); empty in older folders.
    """

    stage: str
    agents: dict[str, dict[str, Any]]
    topology: dict[str, Any]
    links: dict[str, Any]
    prompts: dict[str, dict[str, Any]]
    rounds: int | None
    latent_length: int | None
    max_new_tokens: int
    data_fingerprint: str
    package_version: str
    prompts_hash: str
    options_hash: str = ""
    alignment: dict[str, dict[str, float]] = field(default_factory=dict)
    released: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    rendered_prompts: dict[str, dict[str, str]] = field(default_factory=dict)
    format: int = FORMAT
    seal: str = ""


def read_card(folder: Path) -> LinksCard:
    """Read the card of a links folder.

    Raises:
        LinksError: missing, not JSON, of another format, or with other keys.
    """
    return parse_card(folder / CARD, read_values(folder))


def parse_card(path: Path, values: Any) -> LinksCard:
    """A card from plain data; ``path`` is where they were read.

    Raises:
        LinksError: another format, or other keys.
    """
    seen = values.get("format") if isinstance(values, dict) else None
    if type(seen) is not int or seen != FORMAT:
        raise LinksError(
            f"{path}: format {short(seen)}, this version reads {FORMAT}; use a matching version."
        )
    check_names(path, values)
    values = with_later_options(values)
    try:
        check_type(values, MoreFields, "")
        _check_card(values)
        return LinksCard(**values)
    except (TypeError, ValueError) as error:
        raise LinksError(
            f"{path}: {error}; the file is damaged, train or copy it again."
        ) from error


# Options of links that older folders do not name, and what these links were made with.
LATER_OPTIONS = {"readout": "hidden", "temperature": 1.0, "top_k": None, "start_pairs": "seen"}
LATER_OPTIONS |= {"message_update": "replace", "shared": False, "shared_space": None}


def with_later_options(values: dict[str, Any]) -> dict[str, Any]:
    """The card of an older folder with the options that came later."""
    links = values.get("links")
    return values | {"links": LATER_OPTIONS | links} if isinstance(links, dict) else values


def read_values(folder: Path) -> Any:
    path = folder / CARD
    check_inside(path)
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LinksError(f"{path}: {error.strerror}; give a links folder.") from error
    except ValueError as error:
        raise LinksError(
            f"{path}: not JSON ({error}); the folder is damaged, train again."
        ) from error


def _check_card(values: dict[str, Any]) -> None:
    """Check what types cannot express."""
    for key, least in (("rounds", 1), ("latent_length", 0), ("max_new_tokens", 1)):
        if values[key] is not None and not least <= values[key] <= 10**9:
            raise ValueError(f"key {key} is {short(values[key])}, not {least} or more")
    if missing := sorted(set(values["agents"]) - set(values["prompts"])):
        raise ValueError(f"key prompts has none for {missing[0]}")
