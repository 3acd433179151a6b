"""Eight rows of each benchmark in its published schema and kind of file; none is of the sets."""

from __future__ import annotations

import base64
import csv
import json
import pickle
import zlib
from pathlib import Path

import pyarrow
import pyarrow.parquet

NUMBERS = range(1, 9)
OPTIONS = ("lime", "plum", "pear", "fig")


def math500():
    return [
        {
            "problem": f"What is ${i} + \\frac{{1}}{{2}}$?",
            "solution": "Add.",
            "answer": rf"\frac{{{2 * i + 1}}}{{2}}",
            "subject": "Prealgebra",
            "level": 1,
            "unique_id": f"test/prealgebra/{i}.json",
        }
        for i in NUMBERS
    ]


def aime25():
    return [{"problem": f"Find {i}+{i}.", "answer": str(2 * i), "id": str(i)} for i in NUMBERS]


def aime26():
    return [{"problem_idx": i, "answer": 3 * i, "problem": f"Find 3 times {i}."} for i in NUMBERS]


def gpqa():
    return [
        {
            "Record ID": f"rec{i}",
            "Question": f'Which fruit, of crate {i}, is "green",\nand round?',
            "Correct Answer": f"lime {i}\n",
            "Incorrect Answer 1": f"plum {i}",
            "Incorrect Answer 2": f"pear, {i}",
            "Incorrect Answer 3": f"fig {i}",
            "Explanation": "It is so.",
        }
        for i in NUMBERS
    ]


def medqa_usmle():
    return [
        {
            "question": f"Patient {i} asks for fruit. Which?",
            "answer": OPTIONS[i % 4],
            "options": dict(zip("ABCD", OPTIONS, strict=True)),
            "meta_info": "step1",
            "answer_idx": "ABCD"[i % 4],
            "metamap_phrases": ["fruit"],
        }
        for i in NUMBERS
    ]


def medqa():
    """A list under ``options``, and the gold's text."""
    return [
        {"query": f"Patient {i} asks. Which?", "options": list(OPTIONS), "answer": OPTIONS[i % 4]}
        for i in NUMBERS
    ]


def mbppplus():
    return [
        {
            "task_id": i,
            "code": f"def times_{i}(n):\n    return n * {i}",
            "prompt": f"Write a function that multiplies a number by {i}.",
            "source_file": "none.ipynb",
            "test_imports": ["import math"],
            "test_list": [f"assert times_{i}(2)=={2 * i}", f"assert times_{i}(0)==0"],
            "test": f"for n in (1, 5, 9):\n    assert math.isclose(times_{i}(n), n * {i})\n",
        }
        for i in NUMBERS
    ]


def hide(cases) -> str:
    """Cases as the set hides them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def livecodebench():
    rows = []
    for i in NUMBERS:
        calls = i % 2 == 0
        kind = "functional" if calls else "stdin"
        cases = [
            {"input": f"[{n}, 1]\n{i}" if calls else f"{n} {i}\n", "testtype": kind}
            | {"output": f"[{n + i}, {1 + i}]" if calls else f"{n + i}\n"}
            for n in (1, 2, 3)
        ]
        starter = "class Solution:\n    def shift(self, xs: List[int], n: int) -> List[int]:\n"
        rows.append(
            {
                "question_title": f"Shift {i}",
                "question_content": f"Add {i}.",
                "platform": "leetcode" if calls else "atcoder",
                "question_id": f"q{i}",
                "contest_id": "c",
                "contest_date": "2025-01-01T00:00:00",
                "starter_code": starter if calls else "",
                "difficulty": "easy",
                "public_test_cases": json.dumps(cases[:1]),
                "private_test_cases": hide(cases[1:]) if i > 2 else json.dumps(cases[1:]),
                "metadata": json.dumps({"func_name": "shift"} if calls else {}),
            }
        )
    return rows


def hotpotqa():
    return [
        {
            "id": f"h{i}",
            "question": f"Who planted tree {i}?",
            "answer": f"the gardener {i}",
            "type": "bridge",
            "level": "easy",
            "supporting_facts": {"title": ["Tree"], "sent_id": [0]},
            "context": {"title": ["Tree"], "sentences": [["A tree."]]},
        }
        for i in NUMBERS
    ]


def bamboogle():
    return [{"Question": f"Who follows king {i}?", "Answer": f"King {i + 1}"} for i in NUMBERS]


# Benchmark -> its rows, and its file as the hub or the release has it.
SETS = {
    "math500": (math500, "test.jsonl"),
    "aime25": (aime25, "test.jsonl"),
    "aime26": (aime26, "data/train-00000-of-00001.parquet"),
    "gpqa": (gpqa, "gpqa_diamond.csv"),
    "medqa": (medqa, "medqa.json"),
    "medqa_usmle": (medqa_usmle, "phrases_no_exclude_test.jsonl"),
    "mbppplus": (mbppplus, "data/test-00000-of-00001-d5781c9c51e02795.parquet"),
    "livecodebench": (livecodebench, "test.jsonl"),
    "hotpotqa": (hotpotqa, "distractor/validation-00000-of-00001.parquet"),
    "bamboogle": (bamboogle, "data/test-00000-of-00001.parquet"),
}


def write(path: Path, rows) -> Path:
    """Rows as the kind of file that the path's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make(folder: Path, name: str, rows=None) -> Path:
    """The set's folder as the hub has it, or for ``medqa`` the release's file."""
    build, file = SETS[name]
    path = write(folder / name / file, build() if rows is None else rows)
    if name == "livecodebench":  # in several files
        whole = path.read_text().splitlines(keepends=True)
        path.write_text("".join(whole[:5]))
        (path.parent / "test2.jsonl").write_text("".join(whole[5:]))
    return path if name == "medqa" else folder / name
