"""Result files that a report, a new evaluation or a resumed pipeline reads."""

from __future__ import annotations

from random import Random
from typing import Any

from hostile.case import ODD_TEXTS, ODD_VALUES, Case, Makers, paths

MAKERS = Makers()
RESULTS = "run/eval/results.json"
TOP = ["schema", "rows", "references", "links", "trained_rounds", "environment", "config"]
ROW = [
    "task",
    "system",
    "control",
    "rounds",
    "latent_length",
    "n",
    "accuracy",
    "ci95",
    "tokens",
    "latent_steps",
    "seconds",
]
ROW += ["n_within_reach", "accuracy_within_reach", "accuracy_beyond_reach"]
DEEP = paths("""
environment/command environment/versions environment/cpus environment/gpu config/seed rows/0
rows/1 rows/0/ci95/0 references/tiny
""")


def case(random: Random, name: str, what: str, value: Any, path: str = RESULTS) -> Case:
    argv = random.choice(
        [["stage=report"], ["stage=report"], ["stage=eval"], ["stage=pipeline", "resume=auto"]]
    )
    return Case(name, argv, [(what, path, value)])


def metrics(random: Random, name: str, what: str, value: Any) -> Case:
    path = f"run/{random.choice(['inner', 'outer'])}/metrics.jsonl"
    return Case(name, ["stage=report"], [(what, path, value)])


@MAKERS
def truncated(random: Random) -> Case:
    return case(random, "truncated", "truncate", random.random())


@MAKERS
def bit_flips(random: Random) -> Case:
    return case(
        random, "bits flipped", "flip", [random.randrange(10**6), random.choice([1, 3, 50])]
    )


@MAKERS
def not_results(random: Random) -> Case:
    texts = [
        "",
        "[]",
        "null",
        "1",
        "{}",
        "{",
        '{"rows": []}',
        '{"rows": {}}',
        '{"rows": [1]}',
        "\x00",
        "NaN",
    ]
    return case(random, "no results", "text", random.choice(texts))


@MAKERS
def odd_top(random: Random) -> Case:
    keys = [random.choice(TOP)]
    return case(random, "wrong type", "json", [keys, random.choice(ODD_VALUES)])


@MAKERS
def odd_row(random: Random) -> Case:
    keys = ["rows", 0, random.choice(ROW)]
    return case(random, "wrong type in a row", "json", [keys, random.choice(ODD_VALUES)])


@MAKERS
def odd_deep(random: Random) -> Case:
    return case(
        random, "wrong type inside", "json", [random.choice(DEEP), random.choice(ODD_VALUES)]
    )


@MAKERS
def odd_text(random: Random) -> Case:
    keys = random.choice(
        [["rows", 0, k] for k in ("task", "system", "control")] + [["links"]] + DEEP
    )
    return case(random, "odd text", "json", [keys, random.choice(ODD_TEXTS)])


@MAKERS
def missing(random: Random) -> Case:
    keys = random.choice([[k] for k in TOP] + [["rows", 0, k] for k in ROW] + DEEP)
    return case(random, "key missing", "json_drop", keys)


@MAKERS
def odd_references(random: Random) -> Case:
    values: list[Any] = [
        {"1": {}},
        {"one": {"ceiling": 1}},
        {"1": 1},
        {"1": {"ceiling": "x"}},
        [],
        "x",
    ]
    values += [
        {"1": {"ceiling": 1.0, "stops": None, "best_guess": 0.1}},
        {"1": {"ceiling": float("nan")}},
    ]
    return case(random, "odd references", "json", [["references", "tiny"], random.choice(values)])


@MAKERS
def deep(random: Random) -> Case:
    return case(random, "deep nesting", "nested", ["[", random.choice([1000, 200_000])])


@MAKERS
def no_file(random: Random) -> Case:
    how = random.choice(["remove", "folder", "loop", "empty"])
    return case(random, "no plain file", how, None, random.choice([RESULTS, "run/eval"]))


@MAKERS
def bad_bytes(random: Random) -> Case:
    return case(
        random,
        "bad bytes",
        "insert",
        [random.random(), random.choice(["ff", "00", "eda080", "1b"])],
    )


@MAKERS
def metrics_truncated(random: Random) -> Case:
    return metrics(random, "metrics truncated", "truncate", random.random())


@MAKERS
def metrics_line(random: Random) -> Case:
    lines = [
        "{",
        "[]",
        "null",
        "1",
        "{}",
        '{"step": 0}',
        '{"step": "a", "loss": 1, "gradient_norms": {}}',
    ]
    lines += [
        '{"step": 0, "loss": null, "gradient_norms": {}}',
        '{"step": 0, "loss": NaN, "gradient_norms": {}}',
    ]
    lines += [
        '{"step": 0, "loss": 1.0, "gradient_norms": []}',
        '{"step": 0, "loss": -1.0, "gradient_norms": {"a": "b"}}',
    ]
    lines += [
        "[" * 10**5,
        '{"step": 0, "loss": 1e999, "gradient_norms": {"outer.planner-critic": -1}}',
        "9" * 5000,
    ]
    return metrics(
        random, "odd line of metrics", "line", [random.randrange(2), random.choice(lines)]
    )


@MAKERS
def metrics_bytes(random: Random) -> Case:
    return metrics(
        random,
        "bad bytes in metrics",
        "insert",
        [random.random(), random.choice(["ff", "00", "c328"])],
    )


@MAKERS
def metrics_file(random: Random) -> Case:
    return metrics(
        random, "metrics no plain file", random.choice(["folder", "loop", "empty", "remove"]), None
    )


@MAKERS
def old_report(random: Random) -> Case:
    path = random.choice(
        ["run/results.json", "run/report", "run/report/index.html", "run/report/accuracy.png"]
    )
    how = random.choice(["folder", "loop", "empty"])
    return case(random, "an earlier report in the way", how, None, path)
