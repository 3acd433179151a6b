"""Prompt files: YAML that is broken or hostile, wrong types; slots and columns that do not fit."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hostile.case import ODD_TEXTS, ODD_VALUES, Case, Makers

MAKERS = Makers()
SOURCES = {"planner": "solver", "critic": "planner", "solver": "critic"}
BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 25)
)


def case(random: Random, name: str, text: Any, agent: str | None = None) -> Case:
    agent = agent or random.choice(sorted(SOURCES))
    stage = random.choice(["inner", "outer", "eval"])
    return Case(name, [f"stage={stage}"], [("text", f"prompts/{agent}.yaml", text)])


def user(random: Random, name: str, before: str, **others: Any) -> Case:
    agent = random.choice(sorted(SOURCES))
    text = f"{before} <<message:{SOURCES[agent]}>> go"
    return case(random, name, json.dumps({"user": text} | others), agent)


@MAKERS
def broken_yaml(random: Random) -> Case:
    texts = [
        "user: [",
        "user: 'a",
        "\tuser: a",
        "user: a: b",
        "{",
        "- a\nuser: b",
        "user: *x",
        "%",
        "@",
    ]
    texts += [
        "user: |\n\n  a\n b",
        "a" * 5000 + ":",
        "---\nuser: a\n---\nuser: b",
        "user: !x a",
        "? [a]: b",
    ]
    return case(random, "broken YAML", random.choice(texts))


@MAKERS
def tags(random: Random) -> Case:
    tags_ = [
        "!!python/object/apply:os.system ['touch hacked']",
        "!!python/name:os.system",
        "!!binary x",
    ]
    tags_ += ["!!python/object/new:type {}", "!!set {a}", "!!timestamp x", "!!float x", "!!omap x"]
    return case(random, "YAML tag", f"user: {random.choice(tags_)}")


@MAKERS
def bomb(random: Random) -> Case:
    key = random.choice(["user", "system", "user_first"])
    return case(random, "anchors that multiply", f"{BOMB}user: a\n{key}: *a24\n")


@MAKERS
def bomb_in_a_key(random: Random) -> Case:
    top = BOMB.replace("\n", ", ")
    return case(random, "anchors that multiply", f"system: {{{top}}}\nuser: text\n")


@MAKERS
def recursion(random: Random) -> Case:
    texts = [
        "&a [*a]",
        "user: &a [*a]",
        "user: &a {b: *a}",
        "&a\nuser: a\nsystem: *a",
        "<<: &a {<<: *a}",
    ]
    return case(random, "an anchor within itself", random.choice(texts))


@MAKERS
def deep(random: Random) -> Case:
    count = random.choice([300, 20_000])
    return case(random, "deep nesting", f"user: {'[' * count}{']' * random.choice([0, count])}")


@MAKERS
def odd_scalars(random: Random) -> Case:
    values = [
        "2020-13-45",
        "9" * 5000,
        "1:99:99",
        ".nan",
        "0b2",
        "0o9",
        "2001-01-01T99:99:99Z",
        "~",
    ]
    values += ["yes", "=", "<<", "1e999", "0x", "2020-02-30"]
    return case(random, "odd scalar", f"user: {random.choice(values)}")


@MAKERS
def wrong_type(random: Random) -> Case:
    key = random.choice(["user", "system", "user_first", "users", ""])
    return user(random, "wrong type", "<<question>>", **{key: random.choice(ODD_VALUES)})


@MAKERS
def odd_top(random: Random) -> Case:
    texts = [
        "",
        "null",
        "[]",
        "text",
        "1",
        "{}",
        "[user]",
        "true: a",
        "1: a\nuser: b",
        "? [a]\n: b",
    ]
    return case(random, "no mapping", random.choice(texts))


@MAKERS
def unknown_column(random: Random) -> Case:
    return user(
        random, "unknown column", f"<<{random.choice(['quest', '_line', 'Question', 'self'])}>>"
    )


@MAKERS
def unknown_slot(random: Random) -> Case:
    name = random.choice(["nobody", "planner", "critic", "solver", "message", "x" * 5000])
    return user(random, "a slot too many", f"<<question>> <<message:{name}>>")


@MAKERS
def broken_marks(random: Random) -> Case:
    agent = random.choice(sorted(SOURCES))
    mark = f"<<message:{SOURCES[agent]}>>"
    texts = [
        mark[:-1],
        mark[1:],
        mark.replace(":", ""),
        mark.upper(),
        mark.replace(":", ": "),
        mark * 2,
    ]
    texts += [f"<{mark}>", f"<<{mark}>>", "", mark.replace("<", "＜"), mark.replace(">>", "\n>>")]
    return case(
        random, "broken mark", json.dumps({"user": f"<<question>> {random.choice(texts)}"}), agent
    )


@MAKERS
def slot_in_system(random: Random) -> Case:
    system = random.choice(["<<message:critic>>", "<<question>>", "<<nothing>>", "{{ messages }}"])
    return user(random, "a mark in the system text", "<<question>>", system=system)


@MAKERS
def odd_text(random: Random) -> Case:
    return user(random, "odd text", f"<<question>> {random.choice(ODD_TEXTS)}")


@MAKERS
def odd_first(random: Random) -> Case:
    first = random.choice([*ODD_TEXTS, "<<question", "<<none>>", "<<message:nobody>>", "<<round>>"])
    return user(random, "odd user_first", "<<question>>", user_first=first)


@MAKERS
def private_use(random: Random) -> Case:
    text = random.choice(
        ["\ue0000\ue001", "\ue0001\ue001", "\ue00099\ue001", "\ue000", "\ue001\ue000"]
    )
    return user(random, "private-use characters", f"<<question>> {text}")


@MAKERS
def duplicate_keys(random: Random) -> Case:
    agent = random.choice(sorted(SOURCES))
    text = f"<<question>> <<message:{SOURCES[agent]}>>"
    twice = [
        f"user: x\nuser: {text}",
        f"user: {text}\nuser: x",
        f"user: {text}\nsystem: a\nsystem: b",
    ]
    return case(random, "duplicate keys", random.choice(twice), agent)


@MAKERS
def bad_bytes(random: Random) -> Case:
    found = case(random, "bad bytes", None)
    raw = random.choice(["ff", "c328", "00", "fffe75000a00", "efbbbf", "1b", "eda080"])
    found.edits = [("insert", found.edits[0][1], [random.random(), raw])]
    return found


@MAKERS
def truncated(random: Random) -> Case:
    found = case(random, "truncated", None)
    found.edits = [("truncate", found.edits[0][1], random.random())]
    return found


@MAKERS
def bit_flips(random: Random) -> Case:
    found = case(random, "bits flipped", None)
    found.edits = [
        ("flip", found.edits[0][1], [random.randrange(10**6), random.choice([1, 4, 30])])
    ]
    return found


@MAKERS
def no_file(random: Random) -> Case:
    found = case(random, "no plain file", None)
    how, path = random.choice(["remove", "folder", "loop"]), found.edits[0][1]
    found.edits = [(how, random.choice([path, path, "prompts"]), None)]
    return found


@MAKERS
def huge_prompt(random: Random) -> Case:
    return user(random, "huge prompt", "<<question>> " + "one " * random.choice([5000, 200_000]))
