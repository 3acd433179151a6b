"""From a row in a published set's schema to a row with question, answer and tests."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import pickletools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rmas_train.data.files import parse_text
from rmas_train.errors import DataError, did_you_mean
from rmas_train.support.reading import short

Row = dict[str, Any]
LETTERS = "ABCDEFGHIJ"
GPQA = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
MOST_BYTES = 2**30  # of one problem's tests, unpacked
# A pickle of one text, and nothing else, has these operations; nothing is ever unpickled.
TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
AROUND = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"}


def text_of(row: Mapping[str, Any], column: str, where: str) -> str:
    """A column's text; a benchmark has no rows without it.

    Raises:
        DataError: it is not there, blank, or no text.
    """
    if column not in row:
        raise DataError(f"{where}: no column '{column}'. {did_you_mean(column, row)}")
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: column '{column}' is {short(value)}, no text; check the file.")
    return value.strip()


def plain(row: Row, where: str, args: argparse.Namespace) -> Row:
    """Question and answer as they are, with the other columns that hold text or numbers."""
    del args
    found = {name: text_of(row, name, where) for name in ("question", "answer")}
    return {k: v for k, v in row.items() if is_simple(v)} | found


def is_simple(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    return isinstance(value, str | int | float)


def gpqa(row: Row, where: str, args: argparse.Namespace) -> Row:
    """Four options, the right one first in the source."""
    options = [text_of(row, column, where) for column in GPQA]
    return with_options(text_of(row, "Question", where), options, 0, args.option_seed)


def medqa(row: Row, where: str, args: argparse.Namespace) -> Row:
    """Options as a dict by letter or as a list; the gold is a letter or an option's text."""
    question = text_of(row, "question" if "question" in row else "query", where)
    given = row.get("options")
    options = list(given.values()) if isinstance(given, dict) else given
    is_list = isinstance(options, list) and 2 <= len(options) <= len(LETTERS)
    if not is_list or not all(isinstance(o, str) and o.strip() for o in options or ()):
        raise DataError(f"{where}: column 'options' is {short(given)}; it needs 2 to 10 texts.")
    letters = [str(k) for k in given] if isinstance(given, dict) else list(LETTERS[: len(options)])
    gold = str(row.get("answer_idx") or text_of(row, "answer", where)).strip()
    texts = [option.strip() for option in options]
    if gold not in (*letters, *texts):
        raise DataError(f"{where}: answer {short(gold)} is none of the options; check the file.")
    right = letters.index(gold) if gold in letters else texts.index(gold)
    return with_options(question, texts, right, args.option_seed)


def with_options(question: str, options: Sequence[str], right: int, seed: int) -> Row:
    """The question with its options, and the letter of the right one.

    Their order depends on the seed and on question and options alone, so that it is the same
    whatever the order of rows, and of options in the source.
    """

    def key(i: int) -> tuple[bytes, int]:
        return hashlib.sha256(f"{seed}/{question}/{options[i]}".encode()).digest(), i

    order = sorted(range(len(options)), key=key)
    lines = [f"{letter}. {options[i]}" for letter, i in zip(LETTERS, order, strict=False)]
    answer = LETTERS[order.index(right)]
    return {"question": "\n".join((question, "", *lines)), "answer": answer}


def mbpp(row: Row, where: str, args: argparse.Namespace) -> Row:
    """The task with its three public assertions; graded by all of its test code."""
    del args
    shown, imports = row.get("test_list"), row.get("test_imports")
    for name, value in (("test_list", shown), ("test_imports", imports)):
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise DataError(f"{where}: column '{name}' is {short(value)}, no list of texts.")
    task, code = text_of(row, "prompt", where), text_of(row, "code", where)
    tests = "\n".join((*(imports or ()), text_of(row, "test", where)))
    return {
        "question": "\n".join((task, "", "It has to pass these tests:", *(shown or ()))),
        "answer": f"```python\n{code}\n```",
        "tests": [tests],
        "task_id": row.get("task_id"),
    }


def livecodebench(row: Row, where: str, args: argparse.Namespace) -> Row:
    """A contest's problem; cases by stdin, or calls of a method where there is starter code."""
    starter = str(row.get("starter_code") or "").rstrip()
    told = f"Complete this code:\n```python\n{starter}\n```"
    if not starter:
        told = "The program reads the input from stdin and prints the output."
    meta = parse_text(f"{where}, metadata", text_of(row, "metadata", where))
    public = parse_text(f"{where}, public_test_cases", text_of(row, "public_test_cases", where))
    found = {
        "question": f"{text_of(row, 'question_content', where)}\n\n{told}",
        "answer": "(a program that passes the tests)",
        "cases": cases_of(public, where),
        "question_id": row.get("question_id"),
        "difficulty": row.get("difficulty"),
    }
    if args.tests == "all":
        found["hidden_cases"] = packed(private_cases(row, where))
    function = meta.get("func_name") if isinstance(meta, dict) else None
    return found | ({"function": function} if function else {})


def cases_of(found: Any, where: str) -> list[dict[str, str]]:
    """Input and output of each case.

    Raises:
        DataError: they have another form.
    """
    try:
        return [{"input": str(one["input"]), "output": str(one["output"])} for one in found]
    except (TypeError, KeyError) as error:
        raise DataError(f"{where}: test cases {short(found)}: no {{input, output}}.") from error


def private_cases(row: Row, where: str) -> list[dict[str, str]]:
    """Hidden cases: JSON, or the text of JSON that was pickled and packed."""
    text = text_of(row, "private_test_cases", where)
    if not text.startswith("["):
        text = unpacked_text(text, where)
    return cases_of(parse_text(f"{where}, private_test_cases", text), where)


def unpacked_text(packed_text: str, where: str) -> str:
    """The one text in a packed pickle, found without unpickling it.

    Raises:
        DataError: there is something else in it.
    """
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(packed_text), MOST_BYTES)
        operations = [(code.name, value) for code, value, _ in pickletools.genops(data)]
    except (ValueError, zlib.error) as error:
        raise DataError(
            f"{where}: private_test_cases cannot be unpacked; check the file."
        ) from error
    texts = [value for name, value in operations if name in TEXTS]
    others = {name for name, _ in operations} - TEXTS - AROUND
    if len(texts) != 1 or others:
        raise DataError(
            f"{where}: private_test_cases is no plain text ({', '.join(sorted(others)) or 'none'});"
            " check the file."
        )
    return str(texts[0])


def packed(cases: Sequence[Mapping[str, str]]) -> str:
    """Smaller, for the grader ``code`` to unpack."""
    return base64.b64encode(zlib.compress(json.dumps(list(cases)).encode())).decode()


KINDS: dict[str, Callable[[Row, str, argparse.Namespace], Row]] = {
    "plain": plain,
    "gpqa": gpqa,
    "medqa": medqa,
    "mbpp": mbpp,
    "livecodebench": livecodebench,
}
