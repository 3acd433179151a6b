"""The rows of a run: files, role texts, and whether they fit the prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompt_files import check_texts, columns_of
from rmas_train.agents.prompts import Prompt, tokenise, tokenise_whole
from rmas_train.config import Config, DataConfig
from rmas_train.data.rows import Table, read_table, table_of
from rmas_train.engine.inputs import fill_text
from rmas_train.errors import ConfigError, DataError, did_you_mean
from rmas_train.recipes.prepare import prepare
from rmas_train.recursion import Team
from rmas_train.runtime.runtime import Runtime
from rmas_train.topology import Topology

Sequence_ = tuple[list[int], list[int]]


def role_sequences(
    team: Team, config: DataConfig, name: str, rows: Sequence[Mapping[str, Any]]
) -> list[Sequence_]:
    """(prompt ids with slots filled, ids of the agent's own text with its end) of each row.

    A message of the same round is the sender's role text; one of the round before is the sender's
    feedback text, and a row whose feedback texts are empty stands for the first round.
    """
    agent, prompt = team.agents[name], team.prompts[name]
    columns = incoming_columns(team.topology, config, name)
    has_message = [any(row.get(c) for c in columns.values()) for row in rows]
    targets = tokenise_whole(agent, [str(row[config.role_texts[name]]) for row in rows])
    texts = {
        s: tokenise(agent, [str(r.get(c) or "") for r in rows], plain=True)
        for s, c in columns.items()
    }
    later = prompt.encode(list(rows), 2, first=False)
    first = prompt.encode(list(rows), 1, first=True)
    sequences = []
    for i, target in enumerate(targets):
        if has_message[i]:
            ids = fill_text(later[i], {s: t[i] for s, t in texts.items()})
        else:
            ids = fill_text(first[i], {})
        sequences.append((ids, target))
    return sequences


def incoming_columns(topology: Topology, data: DataConfig, name: str) -> dict[str, str]:
    """Source -> column with the text that it sends to ``name``; others are left out."""
    columns = {}
    for edge in topology.incoming(name):
        texts = data.feedback_texts if edge.next_round else data.role_texts
        if edge.source in texts:
            columns[edge.source] = texts[edge.source]
    return columns


Rows = Sequence[Mapping[str, Any]]
Texts = Mapping[str, Mapping[str, Any]]  # agent -> texts of its prompt file


@dataclass(frozen=True)
class Tables:
    """Rows by use.

    Attributes:
        train, test: rows of the outer stage and of the evaluation.
        inner: agent -> rows of its inner link; the same as ``train`` unless
            ``data.inner_files`` names others.
        valid: rows of validations during training; None: there are none.
        more_tests: name -> further test rows.
    """

    train: Table
    test: Table
    inner: dict[str, Table]
    valid: Table | None = None
    more_tests: Mapping[str, Table] = field(default_factory=dict)

    def outer(self) -> list[Table]:
        """What goes through the whole system: rows to train, to test and to validate on."""
        every = (self.train, self.test, self.valid, *self.more_tests.values())
        return [table for table in every if table is not None]


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
    given = None if test_rows is None else table_of(test_rows, "test_rows")
    if rows is not None:
        train = table_of(rows, "rows")
        test = given or train
    elif given is not None and config.stage == "eval":  # nothing is trained
        train = test = given
    else:
        if runtime.is_main:
            prepare(config.data, config.seed)
        runtime.barrier()
        if not config.data.folder:
            raise ConfigError("data.folder is empty; give the folder with train and test rows.")
        test = given or test_table(config)
        train = test if config.data.train is None else _read(config, config.data.train)
    more = more_tests(config) if given is None and rows is None else {}
    return Tables(train, test, inner_tables(config, train), valid_table(config), more)


def _read(config: Config, file: str) -> Table:
    return read_table(Path(config.data.folder) / file, config.data.columns)


def test_table(config: Config) -> Table:
    """``data.test``, with as many rows as ``data.test_rows`` says.

    Raises:
        DataError: it has another number of rows.
    """
    table, wanted = _read(config, config.data.test), config.data.test_rows
    if wanted is not None and len(table) != wanted:
        raise DataError(
            f"{table.path}: {len(table)} rows, but data.test_rows={wanted}; get the whole set, at "
            "the revision that you mean, or set data.test_rows=null to take what is there."
        )
    return table


def valid_table(config: Config) -> Table | None:
    """Rows of validations, where the outer stage runs and asks for some."""
    wanted = config.stage in ("outer", "pipeline") and config.training.outer.validate_every
    if not wanted or config.data.valid is None:
        return None
    return _read(config, config.data.valid)


def more_tests(config: Config) -> dict[str, Table]:
    """Further test rows, where there is an evaluation."""
    if config.stage not in ("eval", "pipeline"):
        return {}
    return {name: _read(config, file) for name, file in config.data.more_tests.items()}


def inner_tables(config: Config, train: Table) -> dict[str, Table]:
    """Agent -> rows that its inner link trains on; one table per file.

    Raises:
        ConfigError: ``data.inner_files`` names an unknown agent.
    """
    files, names = config.data.inner_files, config.topology.order
    for name in files:
        if name not in names:
            raise ConfigError(f"data.inner_files.{name}: {did_you_mean(name, names)}")
    tables = {file: _read(config, file) for file in set(files.values())}
    return {n: tables[files[n]] if n in files else train for n in names}


def check_columns(config: Config, topology: Topology, texts: Texts, tables: Tables) -> None:
    """What prompts, answers and stages read is in every row; known without agents.

    Args:
        config, topology, tables: of the run.
        texts: agent -> texts of its prompt file.

    Raises:
        DataError: names file, line and column.
    """
    for table in tables.outer():
        table.require_answers()
    for name, own in texts.items():
        file = f"{config.data.prompts}/{name}.yaml"
        check_texts(name, own, file, topology.sources(name))
        for table in tables.outer():
            table.require(columns_of(own), f"named in {file}")
    if config.data.source_column is not None and config.stage in ("eval", "pipeline"):
        for table in (tables.test, *tables.more_tests.values()):
            table.require([config.data.source_column], "for data.source_column")
    if config.stage in ("inner", "outer", "pipeline"):
        _check_inner_columns(config, topology, texts, tables.inner)
    if config.stage in ("outer", "pipeline") and (
        config.training.outer.latents == "teacher_forced"
    ):
        senders = [n for n in topology.agents if n != topology.decoder]
        columns = [config.data.role_texts[n] for n in senders if n in config.data.role_texts]
        tables.train.require(columns, "for training.outer.latents=teacher_forced")


def _check_inner_columns(
    config: Config, topology: Topology, texts: Texts, inner: Mapping[str, Table]
) -> None:
    """Columns of the inner stage; all that one file lacks is named at once."""
    for table in {t.path: t for t in inner.values()}.values():
        readers = [n for n in texts if inner[n] is table]
        columns = {config.data.role_texts[n] for n in readers if n in config.data.role_texts}
        for name in readers:
            columns |= set(incoming_columns(topology, config.data, name).values())
            columns |= columns_of(texts[name])
        table.require(
            columns,
            f"for the inner links of {', '.join(readers)}; name other columns with "
            "data.role_texts.<agent>=<column> and data.feedback_texts.<agent>=<column>",
        )


def check_rows(config: Config, team: Team, tables: Tables) -> None:
    """The rows fit into the prompts of this process's agents.

    Raises:
        DataError: names file and line.
    """
    if team.topology.decoder in team.agents:
        check_lengths(config, team, tables)
    for prompt in team.prompts.values():
        check_prompt(config, prompt, tables)


def check_shared(config: Config, columns: Sequence[str], tables: Tables) -> None:
    """No test row is a training row too, unless ``data.allow_shared_rows`` says so.

    Two rows are the same if all that the prompts show of them and the answer are the same, but for
    white space. A recipe decides on its own splits (one that draws problems may draw one twice), so
    what it made may share rows, but the two files may not be equal. Rows that Python gave without
    test rows are both on purpose.

    Args:
        config: of the run.
        columns: that the prompts of all agents show.
        tables: the rows by use.

    Raises:
        DataError: names the files, how many rows, and the first of them.
    """
    if config.data.allow_shared_rows:
        return
    for test in tables.outer()[1:]:
        _check_shared(config, columns, tables, test)


def _check_shared(config: Config, columns: Sequence[str], tables: Tables, test: Table) -> None:
    kind = "validation" if test is tables.valid else "test"
    shown = [_shown(row, columns) for row in test.rows]
    for table in {id(t): t for t in (tables.train, *tables.inner.values())}.values():
        is_made = config.data.recipe is not None and table.digest is test.digest is None
        if table is test or (is_made and table.fingerprint != test.fingerprint):
            continue
        seen = {_shown(row, columns): i for i, row in reversed(list(enumerate(table.rows)))}
        if shared := [i for i, key in enumerate(shown) if key in seen]:
            first = shared[0]
            raise DataError(
                f"{test.path}: {len(shared)} of its {len(test)} {kind} rows are training rows too "
                f"(the first: {test.where(first)} is {table.where(seen[shown[first]])}); remove "
                "them from one of the files, or set data.allow_shared_rows=true."
            )


def _shown(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(" ".join(str(row.get(c, "")).split()) for c in (*columns, "answer"))


def check_prompt(config: Config, prompt: Prompt, tables: Tables) -> None:
    """No prompt of an agent is too long for it; only long texts are tokenised.

    Raises:
        DataError: names the row and the prompt.
    """
    slots = len(prompt.slots) * config.latent_length
    most, why = most_tokens(config, prompt.agent, slots + config.latent_length)
    literal = sum(len(p.value.encode()) for p in prompt.user if p.kind == "text")
    for table in tables.outer():
        sizes = [sum(len(row[c].encode()) for c in prompt.columns) for row in table.rows]
        # A token is a byte or more.
        long = [i for i, size in enumerate(sizes) if literal + size > most]
        encoded = prompt.encode([table.rows[i] for i in long], 1, first=False) if long else []
        for i, one in zip(long, encoded, strict=True):
            if (length := len(one.ids)) > most:
                raise DataError(f"{table.where(i)}: {prompt.file} makes {length} tokens, {why}")


def most_tokens(config: Config, agent: Agent, beside: int) -> tuple[int, str]:
    """Tokens that a prompt of the agent may have, and why with what to do.

    ``beside``: positions that it reads besides; ``data.max_length`` does not count them.
    """
    most, limit = config.data.max_length, agent.most_positions
    if limit is None or limit - beside >= most:
        return most, f"data.max_length is {most}; shorten the row or raise data.max_length."
    return limit - beside, (
        f"and agent {agent.name} reads {limit} positions at most, {beside} of them latent "
        f"({agent.source}); shorten the row or the prompt, lower latent_length, or use another "
        "model."
    )


def check_lengths(config: Config, team: Team, tables: Tables) -> None:
    """The decoder's prompt with its slots and the answer are not too long.

    Raises:
        DataError: names the row.
    """
    decoder = team.agents[team.topology.decoder]
    prompt = team.prompts[decoder.name]
    slots = len(prompt.slots) * config.latent_length
    most, why = most_tokens(config, decoder, 0)
    for table in tables.outer():
        encoded = prompt.encode(list(table.rows), 1, first=False)
        answers = tokenise_whole(decoder, [r["answer"] for r in table.rows])
        for i, (one, answer) in enumerate(zip(encoded, answers, strict=True)):
            total = len(one.ids) + slots + len(answer)
            if total > most:
                raise DataError(
                    f"{table.where(i)}: {prompt.file} ({len(one.ids)}), slots ({slots}) and answer "
                    f"({len(answer)} tokens) make {total} tokens, {why}"
                )
