"""``config.yaml`` of a finished run, which ``stage=eval run=...`` reads."""

from __future__ import annotations

from random import Random
from typing import Any

from hostile.case import ODD_TEXTS, ODD_VALUES, Case, Makers, paths

MAKERS = Makers()
PATH = "run/outer/config.yaml"
KEYS = paths("""
name stage rounds latent_length seed run_dir inner run resume tracking agents topology links
data training evaluation runtime plan agents/planner agents/planner/model
agents/solver/dtype topology/order topology/edges topology/edges/0 topology/decoder
links/variant links/ridge data/folder data/train data/prompts data/role_texts
data/answer_pattern data/max_length training/outer training/outer/lr training/outer/betas
evaluation/rounds evaluation/systems evaluation/batch_size runtime/threads
data/translations data/columns data/test_rows data/grader evaluation/judge
""")


def case(name: str, what: str, value: Any) -> Case:
    return Case(name, ["stage=eval", "run=run"], [(what, PATH, value)])


@MAKERS
def broken(random: Random) -> Case:
    texts = [
        "",
        "[",
        "{",
        "null",
        "- a",
        "text",
        "1",
        "\ta: b",
        "a: b: c",
        "rounds: *x",
        "%",
        "@",
        "? [a]: b",
    ]
    texts += [
        "--- a\n--- b",
        "rounds: !!python/object/apply:os.system [ls]",
        "rounds: !x 1",
        "1: 2",
        "a:",
    ]
    return case("broken YAML", "text", random.choice(texts))


@MAKERS
def truncated(random: Random) -> Case:
    return case("truncated", "truncate", random.random())


@MAKERS
def bit_flips(random: Random) -> Case:
    return case("bits flipped", "flip", [random.randrange(10**6), random.choice([1, 3, 50])])


@MAKERS
def bad_bytes(random: Random) -> Case:
    raw = random.choice(["ff", "c328", "00", "efbbbf", "eda080", "1b"])
    return case("bad bytes", "insert", [random.random(), raw])


@MAKERS
def no_file(random: Random) -> Case:
    return case("no plain file", random.choice(["remove", "folder", "loop"]), None)


@MAKERS
def odd_value(random: Random) -> Case:
    return case("wrong type", "yaml", [random.choice(KEYS), random.choice(ODD_VALUES)])


@MAKERS
def odd_value_again(random: Random) -> Case:
    return case("wrong type", "yaml", [random.choice(KEYS), random.choice(ODD_VALUES)])


@MAKERS
def odd_text(random: Random) -> Case:
    return case("odd text", "yaml", [random.choice(KEYS), random.choice(ODD_TEXTS)])


@MAKERS
def missing(random: Random) -> Case:
    return case("option missing", "yaml_drop", random.choice(KEYS))


@MAKERS
def extra(random: Random) -> Case:
    keys = random.choice(
        [["extra"], ["_target_"], ["agents", "extra"], ["links", "_target_"], [""], ["a.b"]]
    )
    return case("option too many", "yaml", [keys, random.choice(ODD_VALUES)])


@MAKERS
def interpolation(random: Random) -> Case:
    text = random.choice(
        ["${rounds}", "${nothing}", "${oc.env:HOME}", "${", "${oc.decode:${x}}", "???", "${.a}"]
    )
    return case("interpolation", "yaml", [random.choice(KEYS), text])


@MAKERS
def bomb(random: Random) -> Case:
    lines = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20))
    key = random.choice(["tracking", "x", "data"])
    return case("anchors that multiply", "text", f"a0: &a0 [x, x]\n{lines}{key}: *a19\n")


@MAKERS
def deep(random: Random) -> Case:
    count = random.choice([300, 20_000])
    return case("deep nesting", "text", "rounds: " + "[" * count + "]" * count)


@MAKERS
def odd_scalars(random: Random) -> Case:
    value = random.choice(
        ["2020-13-45", "9" * 5000, ".nan", "1:99:99", "!!float x", "!!binary x", "<<", "="]
    )
    return case("odd scalar", "text", f"rounds: {value}\n")
