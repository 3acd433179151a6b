"""The rows of a run: its data recipe, its files, and which agent's inner link trains on which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmas_train.config import Config
from rmas_train.data.rows import Table, read_table, table_of
from rmas_train.errors import ConfigError, did_you_mean
from rmas_train.recipes.prepare import prepare
from rmas_train.runtime.runtime import Runtime

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Tables:
    """Rows by use.

    Attributes:
        train, test: rows of the outer stage and of the evaluation.
        inner: agent -> rows of its inner link; the same as ``train`` unless
            ``data.inner_files`` names others.
    """

    train: Table
    test: Table
    inner: dict[str, Table]

    @property
    def inner_fingerprint(self) -> str:
        """Of all files that inner links train on."""
        found = {table.path: table.fingerprint for table in self.inner.values()}
        return ",".join(found.values())


def load_tables(
    config: Config, runtime: Runtime, rows: Rows | None = None, test_rows: Rows | None = None
) -> Tables:
    """Run the data recipe if there is one, and read the files.

    Args:
        config: of the run.
        runtime: its rank 0 runs the data recipe.
        rows: in place of ``data.train``.
        test_rows: in place of ``data.test``; with ``rows`` alone, these are the test rows too.
    """
    if rows is not None:
        train = table_of(rows, "rows")
        test = train if test_rows is None else table_of(test_rows, "test_rows")
    else:
        if runtime.is_main:
            prepare(config.data, config.seed)
        runtime.barrier()
        if not config.data.folder:
            raise ConfigError("data.folder is empty; give the folder with train and test rows.")
        folder = Path(config.data.folder)
        train = read_table(folder / config.data.train)
        test = read_table(folder / config.data.test)
        if test_rows is not None:
            test = table_of(test_rows, "test_rows")
    return Tables(train, test, inner_tables(config, train))


def inner_tables(config: Config, train: Table) -> dict[str, Table]:
    """Agent -> rows that its inner link trains on; one table per file.

    Raises:
        ConfigError: ``data.inner_files`` names an unknown agent.
    """
    files, names = config.data.inner_files, config.topology.order
    for name in files:
        if name not in names:
            raise ConfigError(f"data.inner_files.{name}: {did_you_mean(name, names)}")
    tables = {file: read_table(Path(config.data.folder) / file) for file in set(files.values())}
    return {n: tables[files[n]] if n in files else train for n in names}
