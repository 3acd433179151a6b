"""More of the links folders' damages: what only ``links.json`` can say."""

from __future__ import annotations

from random import Random
from typing import Any

from hostile.case import Case
from hostile.links import MAKERS, card, case


@MAKERS
def path_tricks(random: Random) -> Case:
    text = random.choice(
        ["../../../etc", "/etc/passwd", "../run", "a/b", "a.b", ".", "..", "\x00", "~"]
    )
    keys = random.choice(
        [
            ["agents", text],
            ["prompts", text],
            ["topology", "order", 0],
            ["topology", "decoder"],
            ["agents", "planner", "model"],
            ["topology", "edges", 0, "source"],
            ["topology", "name"],
        ]
    )
    value = {"model": "agents/planner"} if keys[-1] == text else text
    return card(random, "a path for a name", keys, value)


@MAKERS
def odd_depth(random: Random) -> Case:
    key = random.choice(["rounds", "latent_length", "max_new_tokens"])
    return card(
        random, "odd depth", [key], random.choice([0, -1, 1.5, "1", True, [], float("nan")])
    )


@MAKERS
def odd_prompts(random: Random) -> Case:
    values: list[Any] = [{}, {"user": None}, {"user": "no slot"}, {"user": 3}, {"system": "x"}, []]
    values += [{"user": "<<message:nobody>>"}, {"user": "<<message:critic>> <<message:critic>>"}]
    return card(random, "odd prompts", ["prompts", "solver"], random.choice(values))


@MAKERS
def not_a_card(random: Random) -> Case:
    texts = [
        "",
        "[]",
        "null",
        "1",
        "NaN",
        '"text"',
        "{}",
        '{"format": 1}',
        "{",
        "\ufeff{}",
        "\x00",
        "[[]]",
    ]
    return case(random, "no card", ("text", "links.json", random.choice(texts)))


@MAKERS
def deep_card(random: Random) -> Case:
    edit = ("nested", "links.json", [random.choice(["[", '{"a":']), random.choice([1000, 200_000])])
    return case(random, "deep nesting", edit)


@MAKERS
def large_card(random: Random) -> Case:
    return case(random, "50 MB of nested lists", ("nested", "links.json", ["[", 25_000_000]))


@MAKERS
def huge_number(random: Random) -> Case:
    edit = (
        "replace",
        "links.json",
        ['"rounds": 1', f'"rounds": {"9" * random.choice([30, 5000])}'],
    )
    return case(random, "huge number", edit, seal=False)


@MAKERS
def duplicate_keys(random: Random) -> Case:
    edit = ("replace", "links.json", ['"rounds": 1', '"rounds": 1, "rounds": 7'])
    return case(random, "duplicate keys", edit)


@MAKERS
def swapped(random: Random) -> Case:
    return case(
        random,
        "another run's tensors",
        ("copy", "links.safetensors", "other/outer/links/links.safetensors"),
    )
