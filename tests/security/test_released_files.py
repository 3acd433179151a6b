"""A released ``.pt`` file from somebody else cannot ask for more memory than it has bytes."""

import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from released import inner_state

from rmas_train.errors import LinksError
from rmas_train.release.released_file import read_link
from rmas_train.release.tensor_file import read_tensors

FAR = 10_000_000_000


def saved(state) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def repacked(content: bytes, edit=None, compression=zipfile.ZIP_STORED) -> bytes:
    """The same archive with its table of contents edited, or compressed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if edit is not None and name.endswith("data.pkl"):
                data = edit(data)
            new.writestr(name, data, compress_type=compression)
    return file.getvalue()


def swapped(old: bytes, new: bytes):
    """Put other bytes into the table, where they are for the first time."""

    def edit(table: bytes) -> bytes:
        assert old in table
        return table.replace(old, new, 1)

    return edit


class Called:
    """What a hostile table would call when it is unpickled."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def wide() -> bytes:
    """Ten tensors of a width of 1e9 over one number each (strides 0)."""
    state = inner_state(1)
    wanted = {k: (10**9,) * v.ndim for k, v in state.items()}
    return saved({k: torch.ones(1).as_strided(s, (0,) * len(s)) for k, s in wanted.items()})


def bomb() -> bytes:
    zeros = {k: torch.zeros_like(v) for k, v in inner_state(1000).items()}
    return repacked(saved(zeros), compression=zipfile.ZIP_DEFLATED)


def claimed() -> bytes:
    """A storage that says to have 2**31 - 1 numbers; the archive has four."""
    four = saved({"a": torch.ones(4)})
    return repacked(four, swapped(b"K\x04tq", b"J\xff\xff\xff\x7ftq"))


def far() -> bytes:
    """A tensor that begins behind the end of its storage."""
    return repacked(saved({"a": torch.ones(4)}), swapped(b"QK\x00K\x04\x85", b"QK\xc8K\x04\x85"))


def twins() -> bytes:
    content = io.BytesIO(saved({"a": torch.ones(4)}))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(content, "a") as archive:
        archive.writestr(archive.namelist()[0], b"another table")
    return content.getvalue()


def overlapping() -> bytes:
    """Two entries of the archive's directory that point to the same bytes."""
    content = saved({"a": torch.ones(1000), "b": torch.ones(1000)})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        places = [archive.getinfo(f"archive/data/{i}").header_offset for i in (0, 1)]
    first, second = (place.to_bytes(4, "little") for place in places)
    start = content.index(b"PK\x01\x02")
    return content[:start] + content[start:].replace(second, first, 1)


HOSTILE = {
    "stride 0 and a width of 1e9": (wide, "needs 4000000000"),
    "a deflate bomb": (bomb, "is compressed"),
    "a storage that is not there": (claimed, "needs 8589934588 bytes, but the file holds 16"),
    "a tensor outside its storage": (far, "but the file holds 16"),
    "two files of one name": (twins, "have one name"),
    "two files of the same bytes": (overlapping, "."),
    "bytearray": (lambda: saved({"a": Called(bytearray, FAR)}), "besides tensors"),
    "a storage by call": (lambda: saved({"a": Called(torch.FloatStorage, FAR)}), "besides tensors"),
    "a tensor by call": (lambda: saved({"a": Called(torch.Tensor, FAR)}), "besides tensors"),
    "code": (lambda: saved({"a": Called(Path, "/tmp")}), "could run code"),
    "a bare pickle": (lambda: pickle.dumps({"a": 1}), "not an archive"),
    "the old format": (lambda: old_format(), "not an archive"),
    "no table": (lambda: b"PK\x05\x06" + bytes(18), "no table of contents"),
    "a huge table": (lambda: saved({"a" * 2**21: torch.ones(1)}), "table of contents"),
    "sparse": (lambda: saved({"a": torch.ones(3, 3).to_sparse()}), "besides tensors"),
    "quantized": (
        lambda: repacked(saved({"a": torch.ones(4)}), swapped(b"FloatStorage", b"QInt8Storage")),
        "torch QInt8Storage",
    ),
    "a list": (lambda: saved([torch.ones(3)]), "holds list, not a dictionary of named tensors"),
    "a number": (lambda: saved({"a": 3}), "key 'a' holds int, not an ordinary tensor"),
    "nothing": (lambda: saved({}), "not a dictionary of named tensors"),
}


def old_format() -> bytes:
    file = io.BytesIO()
    torch.save({"a": torch.ones(4)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


READ = """
import resource, sys
from pathlib import Path
from rmas_train.errors import LinksError
from rmas_train.release.released_file import read_link
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[1]).glob("*.pt")):
    try:
        read_link(path, outer=False)
        print("READ")
    except LinksError as error:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f"{grown // 1024} {error}")
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """What a process of its own, with little memory, says of each file: MiB it took, the line."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, (make, _) in enumerate(HOSTILE.values()):
        (folder / f"{number:03}.pt").write_bytes(make())
    command = [sys.executable, "-c", READ, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == len(HOSTILE), done.stderr + done.stdout
    pairs = (line.partition(" ")[::2] for line in lines)
    return {name: (int(mib), text) for name, (mib, text) in zip(HOSTILE, pairs, strict=True)}


@pytest.mark.parametrize("name", HOSTILE)
def test_sizes_are_checked_before_memory_is_asked_for(told, name):
    mib, text = told[name]
    assert HOSTILE[name][1] in text and ".pt: not read: " in text
    assert mib < 200, f"{mib} MiB for {name}"


def test_no_device_and_no_endless_file_is_read(tmp_path):
    endless, large = tmp_path / "endless.pt", tmp_path / "large.pt"
    endless.symlink_to("/dev/zero")
    with large.open("wb") as file:
        file.truncate(10**11)  # a hole, which takes no place on the disk
    for path, needle in ((endless, "not a file"), (large, "100000000000 bytes")):
        with pytest.raises(LinksError, match=needle):
            read_link(path, outer=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_read_equals_what_was_saved(tmp_path, dtype):
    """Dictionaries, state dicts of modules, parameters, views and shared storages."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.LayerNorm(3)).to(dtype)
    whole = torch.randn(6, 4).to(dtype)
    views = {"turned": whole.t(), "part": whole[1:3], "last": whole[-1]}
    parameters = dict(module.named_parameters())
    for state in (module.state_dict(), parameters, {"a": whole}, inner_state(7, dtype)):
        found = read_tensors(saved(state))
        assert found.keys() == state.keys()
        assert all(torch.equal(found[k], v.detach()) for k, v in state.items())
    for key, view in views.items():
        assert torch.equal(read_tensors(saved({key: view}))[key], view)
