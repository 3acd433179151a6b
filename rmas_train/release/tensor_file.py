"""The tensors of a file that ``torch.save`` wrote, read without unpickling it.

Such a file is an archive: a pickle, which is its table of contents, and the bytes of each storage.
The table is read as data: instructions that describe a dictionary of plain tensors are followed,
every other one is refused. Nothing is imported or called, and nothing is allocated before all
sizes fit the bytes that are there.
"""

from __future__ import annotations

import io
import math
import pickletools
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MOST_TABLE = 2**20  # bytes of the table of contents; ten tensors need one thousandth of it
ORDERED, REBUILD = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
PARAMETER = "torch._utils _rebuild_parameter"
STORAGES = {
    "torch FloatStorage": torch.float32,
    "torch BFloat16Storage": torch.bfloat16,
    "torch HalfStorage": torch.float16,
    "torch DoubleStorage": torch.float64,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class _Name:
    """Something that a pickle would import."""

    text: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class _Plan:
    """A tensor that has been described, and not made."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.size) * self.storage.dtype.itemsize


def read_tensors(content: bytes) -> dict[str, Tensor]:
    """The tensors of a state dict, by name.

    Raises:
        ValueError: the content is something else, or its sizes do not fit its bytes; the reason.
    """
    records = _records(content)
    table = next((name for name in records if name.endswith("/data.pkl")), None)
    if table is None or records[table].file_size > MOST_TABLE:
        size = "no" if table is None else f"{records[table].file_size} bytes of"
        raise ValueError(f"{size} table of contents (data.pkl) in it")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        root = table.removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in records and archive.read(order) != sys.byteorder.encode():
            raise ValueError("its bytes are in the other order than this machine's")
        plans = _Table(archive.read(table)).tensors()
        _check_sizes(plans, records, root, len(content))
        return {k: _make(p, archive.read(f"{root}data/{p.storage.key}")) for k, p in plans.items()}


def _records(content: bytes) -> dict[str, zipfile.ZipInfo]:
    """The archive's files, whose bytes stand in it as they are: none may grow when it is read."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            every = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ValueError(f"not an archive as torch.save writes it ({error})") from error
    found = {one.filename: one for one in every}
    if len(found) < len(every):
        raise ValueError("two of its files have one name")
    for one in every:
        stored = one.compress_type == zipfile.ZIP_STORED and one.flag_bits & 1 == 0
        if not stored or one.file_size != one.compress_size:
            raise ValueError(f"{one.filename} in it is compressed, which torch.save does not do")
    total = sum(one.file_size for one in every)
    if total > len(content):
        raise ValueError(f"its files would have {total} bytes, it has {len(content)}")
    return found


def _check_sizes(
    plans: dict[str, _Plan], records: dict[str, zipfile.ZipInfo], root: str, most: int
) -> None:
    """Every tensor lies inside the bytes of its storage, and all together are no more than these.

    Raises:
        ValueError: names the key.
    """
    for key, plan in plans.items():
        record = records.get(f"{root}data/{plan.storage.key}")
        here = 0 if record is None else record.file_size
        wanted = plan.storage.count * plan.storage.dtype.itemsize
        steps = zip(plan.size, plan.stride, strict=True)
        last = plan.offset + sum((size - 1) * stride for size, stride in steps)
        if wanted != here or last >= plan.storage.count or plan.bytes > here:
            raise ValueError(
                f"key {key!r} of shape {list(plan.size)} needs {max(wanted, plan.bytes)} bytes, "
                f"but the file holds {here} for it"
            )
    total = sum(plan.bytes for plan in plans.values())
    if total > most:
        raise ValueError(f"its tensors need {total} bytes, the file has {most}")


def _make(plan: _Plan, data: bytes) -> Tensor:
    flat = torch.frombuffer(bytearray(data), dtype=plan.storage.dtype)
    return flat.as_strided(plan.size, plan.stride, plan.offset)


def _numbers(value: Any) -> tuple[int, ...]:
    """A shape or strides; small enough that no product overflows."""
    if not isinstance(value, tuple) or not all(type(n) is int and 0 <= n < 2**40 for n in value):
        raise ValueError(f"a shape that is {str(value)[:80]}")
    return value


class _Table:
    """Follows a pickle's instructions as far as a dictionary of tensors needs them."""

    def __init__(self, data: bytes) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._result: Any = None
        for code, argument, _ in pickletools.genops(data):
            self._follow(code.name, argument)

    def tensors(self) -> dict[str, _Plan]:
        """What the pickle describes.

        Raises:
            ValueError: it is not a dictionary of named tensors.
        """
        found = self._result
        if not isinstance(found, dict) or not found:
            raise ValueError(f"holds {_kind(found)}, not a dictionary of named tensors")
        for key, value in found.items():
            if not isinstance(value, _Plan):
                raise ValueError(f"key {key!r} holds {_kind(value)}, not an ordinary tensor")
        return found

    def _follow(self, name: str, argument: Any) -> None:
        if name in PUSHED:
            self._stack.append(PUSHED[name](argument))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(self._stack))
        elif name == "STOP":
            (self._result,) = self._stack
        elif name not in ("PROTO", "FRAME"):
            act = getattr(self, f"_{name.lower()}", None)
            if act is None:
                raise ValueError(f"an instruction that no file of tensors has ({name})")
            act()

    def _taken(self, count: int) -> list[Any]:
        if not 0 <= count <= len(self._stack):
            raise ValueError("a damaged table of contents")
        split = len(self._stack) - count
        taken = self._stack[split:]
        del self._stack[split:]
        return taken

    def _marked(self) -> list[Any]:
        return self._taken(len(self._stack) - self._marks.pop())

    def _tuple(self) -> None:
        self._stack.append(tuple(self._marked()))

    def _tuple1(self) -> None:
        self._stack.append(tuple(self._taken(1)))

    def _tuple2(self) -> None:
        self._stack.append(tuple(self._taken(2)))

    def _tuple3(self) -> None:
        self._stack.append(tuple(self._taken(3)))

    def _stack_global(self) -> None:
        module, name = self._taken(2)
        self._stack.append(_Name(f"{module} {name}"))

    def _binpersid(self) -> None:
        """A storage: ('storage', its type, key of its record, device, number of elements)."""
        (value,) = self._taken(1)
        _, kind, key, _, count = value
        if not isinstance(kind, _Name) or kind.text not in STORAGES:
            raise ValueError(f"a storage of {_kind(kind)}")
        (count,) = _numbers((count,))
        self._stack.append(_Storage(str(key), STORAGES[kind.text], count))

    def _reduce(self) -> None:
        """The three calls of a state dict; none of them is made."""
        called, arguments = self._taken(2)
        what = called.text if isinstance(called, _Name) else None
        if what == ORDERED and arguments == ():
            self._stack.append({})
        elif what == REBUILD and isinstance(arguments[0], _Storage):
            (offset,) = _numbers((arguments[1],))
            size, stride = _numbers(arguments[2]), _numbers(arguments[3])
            if len(size) != len(stride) or 0 in size:
                raise ValueError(f"a tensor of shape {list(size)} and strides {list(stride)}")
            self._stack.append(_Plan(arguments[0], offset, size, stride))
        elif what == PARAMETER and isinstance(arguments[0], _Plan):
            self._stack.append(arguments[0])
        else:
            raise ValueError(
                f"it holds Python objects besides tensors, which could run code ({_kind(called)})"
            )

    def _setitem(self) -> None:
        self._set(self._taken(2))

    def _setitems(self) -> None:
        self._set(self._marked())

    def _set(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        keys, values = pairs[::2], pairs[1::2]
        if not isinstance(target, dict) or not all(isinstance(key, str) for key in keys):
            raise ValueError("a key that is no text")
        target.update(zip(keys, values, strict=True))

    def _append(self) -> None:
        self._taken(1)  # lists are refused in the end, by their name

    def _appends(self) -> None:
        self._marked()

    def _build(self) -> None:
        """Attributes of the dictionary, such as a state dict's versions: not needed."""
        self._taken(1)
        if not isinstance(self._stack[-1], dict):
            raise ValueError(f"attributes of {_kind(self._stack[-1])}")


PUSHED: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), lambda value: value),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE"), lambda value: value),
    **{"NONE": lambda _: None, "NEWTRUE": lambda _: True, "NEWFALSE": lambda _: False},
    **{"EMPTY_DICT": lambda _: {}, "EMPTY_TUPLE": lambda _: (), "EMPTY_LIST": lambda _: []},
    "GLOBAL": lambda value: _Name(str(value)),
}


def _kind(value: Any) -> str:
    return value.text if isinstance(value, _Name) else type(value).__name__.strip("_")
