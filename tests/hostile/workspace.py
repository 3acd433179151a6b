"""A good workspace of tiny agents, and what damages a copy of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny import TINY, make_agent, write_rows

from hostile.case import Case
from rmas_train.links.card import CARD, TENSORS
from rmas_train.links.folder import seal_of

OPTIONS = [
    *(f"agents.{name}.model=agents/{name}" for name in TINY),
    "data.name=tiny",
    "data.recipe=null",
    "data.folder=data",
    "data.prompts=prompts",
    "data.answer_pattern='(?P<answer>\\w+)'",
    *(f"training.{s}.{o}" for s in ("inner", "outer") for o in ("steps=2", "batch_size=2")),
    "training.outer.save_every=1",
    "training.outer.log_every=1",
    "evaluation.max_new_tokens=2",
    "evaluation.systems=[start]",
    "rounds=1",
    "latent_length=1",
    "runtime.device=cpu",
    "run_dir=run",
]
SOURCES = {"planner": "solver", "critic": "planner", "solver": "critic"}


def write_inputs(folder: Path) -> None:
    """Agents, data and prompts; ``run/`` and ``other/`` are for the entry point to make."""
    for name in TINY:
        agent = make_agent(name)
        agent.model.save_pretrained(folder / "agents" / name)
        agent.tokenizer.save_pretrained(folder / "agents" / name)
    write_rows(folder / "data" / "train.jsonl", 8)
    write_rows(folder / "data" / "test.jsonl", 3, first=100)
    (folder / "prompts").mkdir()
    for name, source in SOURCES.items():
        text = {"user": f"<<question>> note <<message:{source}>> go"}
        (folder / "prompts" / f"{name}.yaml").write_text(json.dumps(text))


def damaged_copy(base: Path, folder: Path, case: Case) -> None:
    """A copy of the good workspace with the case's edits; agents that are not edited are shared."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("agents"))
    own = {path.split("/")[1] for _, path, _ in case.edits if path.startswith("agents/")}
    (folder / "agents").mkdir()
    for agent in (base / "agents").iterdir():
        if agent.name in own:
            shutil.copytree(agent, folder / "agents" / agent.name)
        else:
            (folder / "agents" / agent.name).symlink_to(agent)
    for what, path, value in case.edits:
        place = folder / path
        if what in ("text", "bytes", "copy"):
            place.parent.mkdir(parents=True, exist_ok=True)
        if what == "copy":
            value = folder / value
        EDITS[what](place, value)


def remove(path: Path, _: Any = None) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def folder_instead(path: Path, _: Any) -> None:
    remove(path)
    path.mkdir()


def loop(path: Path, _: Any) -> None:
    remove(path)
    path.symlink_to(path.name if path.name else "x")


def empty(path: Path, _: Any) -> None:
    if path.is_dir():
        remove(path)
    path.write_bytes(b"")


def copy(path: Path, source: Path) -> None:
    remove(path)
    if source.is_dir():
        shutil.copytree(source, path)
    else:
        shutil.copy(source, path)


def truncate(path: Path, fraction: float) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * fraction)])


def flip(path: Path, value: list[int], within: int | None = None) -> None:
    """Random bits, ``value`` = [seed, how many]."""
    raw, random = bytearray(path.read_bytes()), Random(value[0])
    for _ in range(value[1]):
        raw[random.randrange(within or len(raw))] ^= 1 << random.randrange(8)
    path.write_bytes(raw)


def insert(path: Path, value: list[Any]) -> None:
    """Bytes at a fraction of the file."""
    raw = path.read_bytes()
    at = int(len(raw) * value[0])
    path.write_bytes(raw[:at] + bytes.fromhex(value[1]) + raw[at:])


def line(path: Path, value: list[Any]) -> None:
    """Another text for one line."""
    lines = path.read_text().splitlines()
    lines[min(value[0], len(lines) - 1)] = value[1]
    text(path, "\n".join(lines) + "\n")


def text(path: Path, value: str) -> None:
    path.write_bytes(value.encode("utf-8", "surrogatepass"))


def placed(tree: Any, keys: list[Any], value: Any, drop: bool) -> Any:
    """``tree`` with a value set or dropped at a path of keys."""
    at = tree
    for key in keys[:-1]:
        at = at[key] if isinstance(at, list) or key in at else at.setdefault(key, {})
    if drop and isinstance(at, dict):
        at.pop(keys[-1], None)
    elif not drop:
        at[keys[-1]] = value
    return tree


def edit_json(path: Path, keys: list[Any], value: Any = None, drop: bool = False) -> None:
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(placed(tree, keys, value, drop)))


def edit_yaml(path: Path, keys: list[Any], value: Any = None, drop: bool = False) -> None:
    tree = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(placed(tree, keys, value, drop)))


def nested(path: Path, value: list[Any]) -> None:
    opening, count = value
    closing = {"[": "]", '{"a":': "}"}[opening]
    path.write_text(opening * count + ("1" if closing == "}" else "") + closing * count)


def edit_tensors(path: Path, value: list[Any]) -> None:
    """What happens to one tensor, chosen by a number; ``clear``: to all."""
    what, number = value
    tensors = load_file(path)
    key = sorted(tensors)[number % len(tensors)]
    old = tensors.pop(key)
    if what == "clear":
        tensors = {}
    elif what == "extra":
        tensors |= {key: old, f"{key}.more": old.clone()}
    elif what == "rename":
        tensors[key.upper()] = old
    elif what != "drop":
        tensors[key] = changed(old, what).contiguous()
    save_file(tensors, path, metadata={"format": "1"})


def changed(old: torch.Tensor, what: str) -> torch.Tensor:
    shapes = {
        "transpose": lambda: torch.cat([old.flatten(), old.flatten()[:1]]),
        "flat": lambda: old.reshape(-1)[None, None],
        "scalar": lambda: old.reshape(-1)[:1].clone(),
        "none": lambda: old.new_zeros(0),
    }
    if what in shapes:
        return shapes[what]()
    if what in ("nan", "inf", "one_nan", "huge"):
        new = old.clone() if old.is_floating_point() else old.float()
        fill = {"nan": "nan", "one_nan": "nan", "inf": "inf", "huge": "1e38"}[what]
        new.view(-1)[: 1 if what == "one_nan" else None] = float(fill)
        return new
    return old.to(getattr(torch, what))


def seal_checkpoint(path: Path, _: Any) -> None:
    """A manifest that fits what lies there."""
    names = ("state.json", *(f"{n}.safetensors" for n in ("links", "optimizer", "random")))
    raw = {n: (path / n).read_bytes() for n in names}
    seals = {
        n: {"size": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in sorted(raw.items())
    }
    (path / "manifest.json").write_text(json.dumps({"format": 1, "files": seals}))


def seal_links(path: Path, _: Any) -> None:
    """A seal that fits what lies there."""
    card = json.loads((path / CARD).read_text())
    if isinstance(card, dict):
        card["seal"] = seal_of(card, path / TENSORS)
        (path / CARD).write_text(json.dumps(card))


EDITS: dict[str, Callable[[Path, Any], None]] = {
    "remove": remove,
    "folder": folder_instead,
    "loop": loop,
    "empty": empty,
    "copy": copy,
    "truncate": truncate,
    "flip": flip,
    "flip_head": lambda path, value: flip(path, value, within=200),
    "insert": insert,
    "line": line,
    "text": text,
    "bytes": lambda path, value: path.write_bytes(bytes.fromhex(value)) and None,
    "replace": lambda path, value: text(path, path.read_text().replace(*value)),
    "utf16": lambda path, _: path.write_bytes(path.read_text().encode("utf-16")) and None,
    "nested": nested,
    "json": lambda path, value: edit_json(path, *value),
    "json_drop": lambda path, keys: edit_json(path, keys, drop=True),
    "yaml": lambda path, value: edit_yaml(path, *value),
    "yaml_drop": lambda path, keys: edit_yaml(path, keys, drop=True),
    "tensors": edit_tensors,
    "seal_checkpoint": seal_checkpoint,
    "seal_links": seal_links,
}
