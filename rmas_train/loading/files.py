"""What a model's files say before the library reads them: config, headers of the weights.

Only safetensors are read, and only in the model's own folder; no pickle is ever opened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmas_train.loading.model_files import ModelFiles
from rmas_train.support.reading import parse_json, short

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth")
DISTRIBUTED = (".metadata", "shard-*-model-*.safetensors")  # its .metadata is a pickle
LFS = b"version https://git-lfs"
LONGEST_HEADER = 1 << 27
COPY_AGAIN = "copy the file again"


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its shape, its dtype as safetensors names it, and the file's name."""

    shape: tuple[int, ...]
    dtype: str
    file: str


def read_settings(source: ModelFiles, name: str = CONFIG) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        AgentError: it does not; names the file.
    """
    path = source.file(name, is_needed=True)
    assert path is not None
    try:
        data = path.read_bytes()
        _check_not_lfs(source, path, data)
        values = parse_json(data.decode())
    except (OSError, ValueError) as error:
        raise source.error(f"{name} is not JSON ({error}); {COPY_AGAIN}") from error
    if not isinstance(values, dict):
        raise source.error(f"{name} holds {short(values)}, not an object with keys; {COPY_AGAIN}")
    return values


def check_folder(source: ModelFiles) -> None:
    """The folder is a whole model: no adapter, no pickled checkpoint, a config.

    Raises:
        AgentError: it is something else; says how to use it.
    """
    folder = Path(source.where)
    if source.file(ADAPTER) is not None:
        base = read_settings(source, ADAPTER).get("base_model_name_or_path")
        option = source.key.removesuffix(".model")
        raise source.error(
            f"it holds an adapter ({ADAPTER}) of {short(base)}, not a model; set "
            f"{option}.model=<that model> and {option}.adapter={source.model}"
        )
    if source.is_folder and not (folder / CONFIG).exists():
        raise source.error(f"no {CONFIG} there; give the folder that save_pretrained wrote")
    if source.is_folder and any(next(folder.glob(name), None) for name in DISTRIBUTED):
        raise source.error(
            "it holds a distributed checkpoint, whose .metadata is a pickle, and is not read; save "
            "the model again with save_pretrained"
        )


def stored_tensors(source: ModelFiles) -> dict[str, Stored]:
    """Key -> tensor of all weights, read from the headers of the files.

    Raises:
        AgentError: a file is missing, damaged, elsewhere, or no safetensors; names it.
    """
    if source.file(WEIGHTS) is not None:
        return read_header(source, WEIGHTS)
    if source.file(INDEX) is None:
        pickle = next((name for name in PICKLES if source.file(name) is not None), None)
        found = f"{pickle} is a pickle" if pickle else "it has no weights"
        raise source.error(
            f"{found}. Only safetensors are read ({WEIGHTS} or {INDEX}), no pickles; save it again "
            "with save_pretrained, or copy what is missing"
        )
    parts = read_settings(source, INDEX).get("weight_map")
    if not isinstance(parts, Mapping) or not parts:
        raise source.error(f"{INDEX}: key weight_map is {short(parts)}; {COPY_AGAIN}")
    found_: dict[str, Stored] = {}
    for part in sorted(set(map(str, parts.values()))):
        if Path(part).name != part or not part.endswith(".safetensors"):
            raise source.error(
                f"{INDEX} names {short(part)}; only .safetensors files in the same folder are read"
            )
        found_ |= read_header(source, part)
    if lost := sorted(set(map(str, parts)) - set(found_)):
        raise source.error(
            f"{INDEX} lists {len(lost)} tensors that {parts[lost[0]]} does not hold, the first is "
            f"{lost[0]}; copy the folder again"
        )
    return found_


def read_header(source: ModelFiles, name: str) -> dict[str, Stored]:
    """Key -> tensor of one safetensors file.

    Raises:
        AgentError: it is cut, empty, a pointer to a file, or none; names it.
    """
    path = source.file(name)
    if path is None:
        raise source.error(f"{name} is missing; copy it from where the model came")
    size = path.stat().st_size
    with path.open("rb") as file:
        _check_not_lfs(source, path, begin := file.read(64))
        if size == 0:
            raise source.error(f"{name} is empty; {COPY_AGAIN}")
        length = int.from_bytes(begin[:8], "little")
        file.seek(8)
        header = file.read(length) if length <= min(LONGEST_HEADER, size - 8) else b""
    try:
        if len(header) != length or size < 8:
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        entries: dict[str, Any] = parse_json(header.decode())
        tensors = {k: v for k, v in entries.items() if k != "__metadata__"}
        end = max((int(v["data_offsets"][1]) for v in tensors.values()), default=0)
        found = {
            k: Stored(tuple(map(int, v["shape"])), str(v["dtype"]), name)
            for k, v in tensors.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = f"not a safetensors file: {error}"
        raise source.error(f"{name} cannot be read ({reason}); {COPY_AGAIN}") from error
    if 8 + length + end != size:
        raise source.error(
            f"{name} has {size} bytes, its header says {8 + length + end}: it was not copied to "
            f"its end; {COPY_AGAIN}"
        )
    return found


def _check_not_lfs(source: ModelFiles, path: Path, begin: bytes) -> None:
    if begin.startswith(LFS):
        raise source.error(
            f"{path.name} is a Git LFS pointer, not the file itself; run `git lfs pull` in the "
            "folder where it was cloned"
        )


def check_tokenizer_file(source: ModelFiles) -> None:
    """tokenizer.json, where there is one, describes a tokenizer.

    Raises:
        AgentError: it does not.
    """
    if source.gguf or source.file("tokenizer.json") is None:
        return
    values = read_settings(source, "tokenizer.json")
    if not isinstance(values.get("model"), Mapping):
        raise source.error(
            f"tokenizer.json has no key `model` with a vocabulary ({short(json.dumps(values))}); "
            f"{COPY_AGAIN}"
        )
