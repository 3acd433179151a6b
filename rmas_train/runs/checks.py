"""Rows against prompts: every column is there, and every prompt is short enough."""

from __future__ import annotations

from rmas_train.agents.prompts import Prompt
from rmas_train.config import Config
from rmas_train.errors import DataError
from rmas_train.recursion import Team
from rmas_train.runs.role_texts import needed_columns
from rmas_train.runs.tables import Tables


def check_rows(config: Config, team: Team, tables: Tables) -> None:
    """What the agents of this process need in the rows is there.

    Raises:
        DataError: names file, line and column.
    """
    for prompt in team.prompts.values():
        tables.train.require(prompt.columns, f"named in {prompt.file}")
        tables.test.require(prompt.columns, f"named in {prompt.file}")
    check_inner_columns(config, team, tables)
    if team.topology.decoder in team.agents:
        check_lengths(config, team, tables)
    for prompt in team.prompts.values():
        check_prompt(config, prompt, tables)


def check_inner_columns(config: Config, team: Team, tables: Tables) -> None:
    """Columns of the inner stage; all that one file lacks is named at once."""
    for table in {t.path: t for t in tables.inner.values()}.values():
        readers = [n for n in team.agents if tables.inner[n] is table]
        columns = set().union(*(needed_columns(team, config.data, n) for n in readers))
        table.require(
            columns.union(*(team.prompts[n].columns for n in readers)),
            f"for the inner links of {', '.join(readers)}; name other columns with "
            "data.role_texts.<agent>=<column> and data.feedback_texts.<agent>=<column>",
        )


def check_prompt(config: Config, prompt: Prompt, tables: Tables) -> None:
    """No prompt of an agent is longer than ``data.max_length``; only long texts are tokenised.

    Raises:
        DataError: names the row and the prompt.
    """
    most = config.data.max_length
    literal = sum(len(p.value.encode()) for p in prompt.user if p.kind == "text")
    for table in (tables.train, tables.test):
        sizes = [sum(len(row[c].encode()) for c in prompt.columns) for row in table.rows]
        # A token is a byte or more.
        long = [i for i, size in enumerate(sizes) if literal + size > most]
        encoded = prompt.encode([table.rows[i] for i in long], 1, first=False) if long else []
        for i, one in zip(long, encoded, strict=True):
            if (length := len(one.ids)) > most:
                raise DataError(
                    f"{table.where(i)}: {prompt.file} makes {length} tokens, data.max_length is "
                    f"{most}; shorten the row or the prompt, or raise data.max_length."
                )


def check_lengths(config: Config, team: Team, tables: Tables) -> None:
    """The decoder's prompt with its slots and the answer fit into ``data.max_length`` tokens.

    Raises:
        DataError: names the row.
    """
    decoder = team.agents[team.topology.decoder]
    prompt = team.prompts[decoder.name]
    for table in (tables.train, tables.test):
        encoded = prompt.encode(list(table.rows), 1, first=False)
        answers = decoder.tokenizer([r["answer"] for r in table.rows], add_special_tokens=False)
        for i, (one, answer) in enumerate(zip(encoded, answers["input_ids"], strict=True)):
            slots = len(one.slots) * config.latent_length
            total = len(one.ids) + slots + len(answer) + 1
            if total > config.data.max_length:
                raise DataError(
                    f"{table.where(i)}: {prompt.file} ({len(one.ids)}), slots ({slots}) and answer "
                    f"({len(answer) + 1} tokens) make {total} tokens, data.max_length is "
                    f"{config.data.max_length}; shorten the row or raise data.max_length."
                )
