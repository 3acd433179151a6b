"""The tool ``search``: the best passages of a local file (BM25), or of a web service with a key."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rmas_train.errors import ConfigError, DataError
from rmas_train.support.output import redacted
from rmas_train.support.reading import check_type, parse_json, short

MOST_BYTES = 2**20  # of a web service's response
INSTALL = "pip install 'rmas_train[tools]'"


@dataclass(frozen=True)
class Passage:
    title: str
    text: str


class Source(Protocol):
    """A source of passages."""

    def find(self, query: str, most: int) -> Sequence[Passage]:
        """The best passages, best first.

        Raises:
            SearchError: the search failed.
        """
        ...


class SearchError(Exception):
    """A search failed; the text is for the decoder."""


class SearchTool:
    """Finds passages; one line each, cut to a length.

    Args:
        source: source of the passages.
        hits: passages per search.
        chars: longest passage, in characters.
    """

    name = "search"

    def __init__(self, source: Source, hits: int, chars: int) -> None:
        self._source, self._hits, self._chars = source, hits, chars

    def __call__(self, text: str) -> str:
        try:
            found = self._source.find(" ".join(text.split()), self._hits)
        except SearchError as error:
            return f"error: {error}"
        lines = [f"{i}. {self._line(p)}" for i, p in enumerate(found, start=1)]
        return "\n".join(lines) or "(no hits)"

    def _line(self, passage: Passage) -> str:
        title, text = (" ".join(part.split()) for part in (passage.title, passage.text))
        return (f"{title}: {text}" if title else text)[: self._chars]


class LocalIndex:
    """BM25 (``bm25s``, Lucene's form) over a JSONL file with columns ``title`` and ``text``.

    The index is built in memory: lower case, English stop words, words of two letters or more.

    Raises:
        ConfigError: the library is not installed.
        DataError: names the file and the line.
    """

    def __init__(self, path: Path) -> None:
        self._bm25s = _library("bm25s")
        self._passages = read_passages(path)
        self._index = self._bm25s.BM25()
        texts = [f"{p.title} {p.text}" for p in self._passages]
        words = self._bm25s.tokenize(texts, show_progress=False)
        if not words.vocab:
            raise DataError(f"{path}: no word of two letters or more to search; give other texts.")
        self._index.index(words, show_progress=False)

    def find(self, query: str, most: int) -> list[Passage]:
        words = self._bm25s.tokenize([query], show_progress=False)
        count = min(most, len(self._passages))
        places, scores = self._index.retrieve(words, k=count, show_progress=False)
        pairs = zip(places[0].tolist(), scores[0].tolist(), strict=True)
        return [self._passages[place] for place, score in pairs if score > 0]


def read_passages(path: Path) -> list[Passage]:
    """Rows of a JSONL file.

    Raises:
        DataError: names the file, the line and the key.
    """
    found = []
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    found.append(_passage(line, f"{path}, line {number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"tools.search_index={path}: cannot be read ({error}); give a JSONL file in UTF-8."
        ) from error
    if not found:
        raise DataError(f"tools.search_index={path}: no rows in it; add some.")
    return found


def _passage(line: str, where: str) -> Passage:
    try:
        row = parse_json(line)
        check_type(row, dict[str, Any], "")
        for key in ("title", "text"):
            check_type(row.get(key, "" if key == "title" else None), str, key)
    except ValueError as error:
        raise DataError(
            f'{where}: {error}; each line is an object {{"title": ..., "text": ...}}.'
        ) from error
    return Passage(row.get("title", ""), row["text"])


class WebService:
    """A search service over HTTPS with the request form of Tavily's API.

    POST ``{"query", "max_results"}`` with the key as bearer token. The response holds ``results``,
    a list of objects with ``title`` and ``content`` (or ``text``, or ``snippet``). Redirects are
    not followed, so the key is sent to no other address. No error quotes what was sent.

    Args:
        url: of the service.
        variable: the environment variable that holds the key.
        seconds: how long an answer may take.

    Raises:
        ConfigError: the variable is not set, or the library is not installed.
    """

    def __init__(self, url: str, variable: str, seconds: float) -> None:
        self._httpx = _library("httpx")
        self._url, self._seconds = url, seconds
        self._key = os.environ.get(variable, "").strip()
        if not self._key.isascii() or not self._key.isprintable() or not self._key:
            raise ConfigError(
                f"tools.search_url={url}: environment variable {variable} holds no key; set it, or "
                "name another with tools.search_key_variable."
            )

    def find(self, query: str, most: int) -> list[Passage]:
        try:
            value = parse_json(self._ask({"query": query, "max_results": most}))
            rows = value["results"]
            check_type(rows, list[dict[str, Any]], "results")
        except self._httpx.HTTPError as error:
            raise SearchError(f"the search failed ({type(error).__name__}).") from None
        except (ValueError, KeyError, TypeError):
            raise SearchError("the search service sent something that cannot be read.") from None
        return [self._read(row) for row in rows[:most]]

    def _ask(self, question: dict[str, Any]) -> str:
        end = time.monotonic() + self._seconds
        headers = {"Authorization": f"Bearer {self._key}"}
        with self._httpx.stream(
            "POST", self._url, json=question, headers=headers, timeout=self._seconds
        ) as response:
            if response.is_redirect:
                raise SearchError(
                    f"the search service answered with a redirect ({response.status_code}), which "
                    "is not followed."
                )
            if response.status_code != 200:
                raise SearchError(f"the search service answered {response.status_code}.")
            body = b""
            for chunk in response.iter_bytes():
                body += chunk
                if time.monotonic() > end:  # the library's limit is for each piece
                    raise SearchError("the search failed (it took too long).")
                if len(body) > MOST_BYTES:
                    raise SearchError(f"the search service sent more than {MOST_BYTES} bytes.")
        return body.decode("utf-8")

    def _read(self, row: dict[str, Any]) -> Passage:
        texts = [row.get(key) for key in ("content", "text", "snippet")]
        title, text = row.get("title") or "", next((t for t in texts if t), "")
        # If a service echoes its request, the key must not reach an answer.
        return Passage(*(redacted(str(t).replace(self._key, "***")) for t in (title, text)))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"tools.names=[search] needs the library {short(name)}: {INSTALL}."
        ) from error
