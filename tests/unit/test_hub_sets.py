"""Files of a set on the hub: over HTTP from a hub in miniature, from its cache, from a folder."""

import json

import benchmark_sets as sets
import hub_server
import pytest
from huggingface_hub import constants

from rmas_train.errors import DataError
from rmas_train.recipes import row_sources
from rmas_train.recipes.row_sources import open_source

REPO = "org/set"
PATTERNS = ("test.jsonl", "test2.jsonl")


def files():
    lines = [json.dumps(row) + "\n" for row in sets.aime25()]
    one, two = "".join(lines[:5]).encode(), "".join(lines[5:]).encode()
    return {"test.jsonl": one, "test2.jsonl": two, "train.jsonl": b"{", "set.py": b"raise"}


def ids(source):
    return [row["id"] for _, row in source.rows]


def test_files_come_from_the_hub_then_from_its_cache(tmp_path, monkeypatch):
    with hub_server.on(monkeypatch, tmp_path / "cache") as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        url = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        commit = hub.add(REPO, files())
        source = open_source(REPO, None, "test", None, None, PATTERNS)
        assert ids(source) == [str(i) for i in range(1, 9)]  # in the order of the patterns
        assert (source.name, source.revision, source.split) == (REPO, commit, "test")
        assert hub.fetched() == set(PATTERNS)  # no other file, and no script
        assert ids(open_source(REPO, None, "test", commit, None, PATTERNS[1:])) == ["6", "7", "8"]
        with pytest.raises(DataError, match=r"no other\*.jsonl there, but test.jsonl, test2.jsonl"):
            open_source(REPO, None, "test", None, None, ("other*.jsonl",))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for revision, patterns in ((None, PATTERNS), (commit, PATTERNS), (None, ())):
        cached = open_source(REPO, None, "test", revision, None, patterns)
        assert cached.revision == commit and len(ids(cached)) == 8
    with pytest.raises(DataError, match=r"org/none: the hub could not be reached.*source=<folder"):
        open_source("org/none", None, "test", None, None, PATTERNS)
    with pytest.raises(DataError, match="at revision aaaa"):
        open_source(REPO, None, "test", "a" * 40, None, PATTERNS)


def test_a_split_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    """The library raises what it likes, and reads no script."""
    monkeypatch.setattr(row_sources, "check_hub", lambda *a: row_sources.SetCard("c" * 40, None))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    folder = tmp_path / "set"
    sets.write(folder / "test.jsonl", sets.aime25())
    found = open_source(str(folder), None, "test", None, None)
    assert len(list(found.rows)) == 8
    source = open_source(str(folder), None, "tset", None, None)
    with pytest.raises(DataError, match=r"split tset: .*check config, split and network"):
        list(source.rows)


def test_a_folder_is_read_by_patterns_or_by_the_split(tmp_path):
    folder = sets.make(tmp_path, "hotpotqa")
    sets.write(folder / "distractor" / "train-0.parquet", [{"id": "x"}])
    for patterns in ((), ("distractor/validation-*.parquet",), ("*/validation*",)):
        found = open_source("", None, "validation", None, str(folder), patterns)
        assert [row["id"] for _, row in found.rows] == [f"h{i}" for i in range(1, 9)]
        assert found.name == "hotpotqa" and len(found.sha256) == 64
    with pytest.raises(DataError, match="no file with 'test' in its name there, but distractor/tr"):
        open_source("", None, "test", None, str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file of rows"):
        open_source("", None, "test", None, str(tmp_path / "empty"))
