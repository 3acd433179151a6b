"""JSONL files: bytes, lines, columns, numbers, and texts that look like something else."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hostile.case import ODD_TEXTS, ODD_VALUES, Case, Makers

MAKERS = Makers()
COLUMNS = ("question", "answer", "plan", "refined_plan", "rounds_needed", "unused")
GOOD = {"question": "one two", "answer": " two", "plan": " one", "refined_plan": " two"}


def case(random: Random, name: str, what: str, value: Any = None, **options: Any) -> Case:
    file = random.choice(["data/train.jsonl", "data/train.jsonl", "data/test.jsonl"])
    stage = random.choice(["inner", "outer", "eval"])
    return Case(name, [f"stage={stage}"], [(what, file, value)], **options)


def line(random: Random, name: str, text: str) -> Case:
    return case(random, name, "line", [random.randrange(3), text])


def column(random: Random, name: str, key: str, value: Any) -> Case:
    return line(random, name, json.dumps(GOOD | {key: value}))


@MAKERS
def truncated(random: Random) -> Case:
    return case(random, "truncated", "truncate", random.random())


@MAKERS
def bit_flips(random: Random) -> Case:
    return case(
        random, "bits flipped", "flip", [random.randrange(10**6), random.choice([1, 5, 50])]
    )


@MAKERS
def bad_utf8(random: Random) -> Case:
    raw = random.choice(["ff", "c328", "eda080", "f8888080", "80", "fffe", "c0af"])
    return case(random, "bad UTF-8", "insert", [random.random(), raw])


@MAKERS
def byte_order_mark(random: Random) -> Case:
    found = case(random, "byte order mark", "insert", [0.0, "efbbbf"], same=True)
    found.argv = [f"stage={random.choice(['inner', 'outer'])}"]
    return found


@MAKERS
def utf16(random: Random) -> Case:
    return case(random, "UTF-16", "utf16")


@MAKERS
def windows_lines(random: Random) -> Case:
    found = case(random, "CRLF", "replace", ["\n", "\r\n"], same=True)
    found.argv = [f"stage={random.choice(['inner', 'outer'])}"]
    return found


@MAKERS
def null_bytes(random: Random) -> Case:
    return case(random, "null bytes", "insert", [random.random(), "00" * random.choice([1, 100])])


@MAKERS
def not_an_object(random: Random) -> Case:
    texts = [
        "[]",
        "[1,2]",
        "3",
        '"text"',
        "null",
        "true",
        "NaN",
        "{}",
        "{",
        "}",
        "{}{}",
        "'a'",
        "a=b",
    ]
    texts += [
        '{"question": "one" "answer": "two"}',
        "{'question': 'one'}",
        '{"question"}',
        "\\u0000",
    ]
    return line(random, "not a JSON object", random.choice(texts))


@MAKERS
def missing_column(random: Random) -> Case:
    key = random.choice(COLUMNS[:4])
    return line(random, "column missing", json.dumps({k: v for k, v in GOOD.items() if k != key}))


@MAKERS
def renamed_column(random: Random) -> Case:
    key = random.choice(COLUMNS[:4])
    other = random.choice([key.upper(), f" {key}", f"{key}s", key[:-1] + "\u0435", ""])
    row = {k: v for k, v in GOOD.items() if k != key} | {other: GOOD[key]}
    return line(random, "column renamed", json.dumps(row))


@MAKERS
def mistyped_column(random: Random) -> Case:
    return column(
        random, "column of a wrong type", random.choice(COLUMNS), random.choice(ODD_VALUES)
    )


@MAKERS
def odd_text(random: Random) -> Case:
    return column(random, "odd text", random.choice(COLUMNS[:4]), random.choice(ODD_TEXTS))


@MAKERS
def rounds_needed(random: Random) -> Case:
    values = [0, -1, 1.0, 1.5, "1", True, None, [], {}, 10**30, float("nan"), float("inf"), 99]
    return column(random, "rounds_needed", "rounds_needed", random.choice(values))


@MAKERS
def rounds_needed_everywhere(random: Random) -> Case:
    row = json.dumps(GOOD | {"rounds_needed": random.choice([2, 99, 10**30])})
    return case(random, "no row within reach", "text", f"{row}\n" * 4)


@MAKERS
def duplicate_keys(random: Random) -> Case:
    key = random.choice(COLUMNS[:2])
    return line(random, "duplicate keys", json.dumps(GOOD)[:-1] + f', "{key}": " three"}}')


@MAKERS
def very_long_line(random: Random) -> Case:
    text = random.choice(["x", "one ", "é", "\\u0041"]) * random.choice([20_000, 400_000])
    key = random.choice(COLUMNS[:4] + COLUMNS[5:])
    return line(
        random,
        "very long line",
        json.dumps(GOOD)[:-1].replace(f'"{key}"', '"was"') + f', "{key}": "{text}"}}',
    )


@MAKERS
def deep_nesting(random: Random) -> Case:
    count = random.choice([500, 100_000])
    inner = random.choice(
        ["[" * count + "]" * count, '{"a":' * count + "1" + "}" * count, "[" * count]
    )
    return line(random, "deep nesting", json.dumps(GOOD)[:-1] + f', "unused": {inner}}}')


@MAKERS
def huge_numbers(random: Random) -> Case:
    number = random.choice(["9" * 5000, "1e999", "-1e999", "1" * 400, "-0", "1E400", "0.1e-999"])
    key = random.choice(["unused", "rounds_needed"])
    return line(random, "huge number", json.dumps(GOOD)[:-1] + f', "{key}": {number}}}')


@MAKERS
def surrogates(random: Random) -> Case:
    text = random.choice(
        ["\\ud800", "one \\udfff two", "\\ud83d\\ude00", "\\ude00\\ud83d", "\\uDBFF"]
    )
    key = random.choice(COLUMNS[:4] + COLUMNS[5:])
    return line(random, "surrogate escapes", json.dumps(GOOD)[:-1] + f', "{key}": "{text}"}}')


@MAKERS
def markers(random: Random) -> Case:
    text = random.choice(
        ["<<message:solver>>", "<<question>>", "<<round>>", "<|e|>", "\ue0000\ue001"]
    )
    return column(random, "a marker in the data", random.choice(COLUMNS[:4]), f" one {text} two")


@MAKERS
def blank_lines(random: Random) -> Case:
    text = random.choice(["", "\n\n\n", " \t\n", "\u2028", "\x0c\n", "\ufeff", "\x85\n"])
    return case(random, "nothing but blanks", "text", text)


@MAKERS
def one_row(random: Random) -> Case:
    return case(random, "one row", "text", json.dumps(GOOD))


@MAKERS
def no_file(random: Random) -> Case:
    found = case(random, "no plain file", "remove")
    _, path, _ = found.edits[0]
    how = random.choice(["remove", "folder", "loop"])
    found.edits = [(how, path, None)]
    return found


@MAKERS
def line_separators(random: Random) -> Case:
    text = random.choice(["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
    return line(
        random,
        "line separators inside a text",
        json.dumps(GOOD | {"plan": f" a{text}b"}, ensure_ascii=False),
    )


@MAKERS
def random_bytes(random: Random) -> Case:
    return case(
        random, "random bytes", "bytes", random.randbytes(random.choice([1, 100, 3000])).hex()
    )


@MAKERS
def references(random: Random) -> Case:
    texts = ["", "[]", "{", "1", '{"1": 2}', '{"1": {"ceiling": "high"}}', '{"x": {}}', "[" * 10**5]
    edit = ("text", "data/references.json", random.choice(texts))
    return Case("references.json", ["stage=eval"], [edit])
