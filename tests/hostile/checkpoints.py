"""Checkpoints: damage that the manifest shows, and damage under a manifest that was made to fit."""

from __future__ import annotations

from random import Random
from typing import Any

from hostile.case import ODD_TEXTS, ODD_VALUES, Case, Edit, Makers, paths

MAKERS = Makers()
FILES = ("state.json", "links.safetensors", "optimizer.safetensors", "random.safetensors")
STATE = paths("""
format step identity state identity/seed identity/links identity/agents identity/training/lr
state/updates state/schedule state/callbacks state/world state/backend
state/updates/outer.planner-critic state/schedule/last_epoch state/schedule/base_lrs
state/schedule/_step_count state/schedule/_last_lr state/schedule/lr_lambdas
state/callbacks/LinkWatch state/callbacks/Tracker
""")


def case(random: Random, name: str, *edits: tuple[str, str, Any], seal: bool = False) -> Case:
    """Edits in one checkpoint, or in both; resumed by name, or as the newest valid one.

    ``seal``: the manifest is made to fit what was done, so that content alone is wrong.
    """
    how = random.choice(["auto", "folder", "both"])
    steps = (
        ["step_00000001", "step_00000002"]
        if how == "both"
        else [random.choice(["step_00000001", "step_00000002"])]
    )
    found: list[Edit] = []
    for step in steps:
        folder = f"run/outer/checkpoints/{step}"
        found += [(what, f"{folder}/{file}", value) for what, file, value in edits]
        found += [("seal_checkpoint", folder, None)] if seal else []
    resume = f"run/outer/checkpoints/{steps[0]}" if how == "folder" else "auto"
    return Case(name, ["stage=outer", f"resume={resume}"], found, same=not seal)


def maybe_sealed(random: Random) -> bool:
    return random.random() < 0.7


def state(random: Random, name: str, keys: list[Any], value: Any) -> Case:
    return case(random, name, ("json", "state.json", [keys, value]), seal=maybe_sealed(random))


def tensors(random: Random, name: str, what: str) -> Case:
    edit = ("tensors", random.choice(FILES[1:]), [what, random.randrange(1000)])
    return case(random, name, edit, seal=maybe_sealed(random))


@MAKERS
def bit_flips(random: Random) -> Case:
    flips = [random.randrange(10**6), random.choice([1, 1, 3, 100])]
    return case(random, "bits flipped", ("flip", random.choice([*FILES, "manifest.json"]), flips))


@MAKERS
def sealed_flips(random: Random) -> Case:
    file = random.choice(FILES)
    what = random.choice(["flip", "flip_head"])
    return case(
        random, "bits flipped, resealed", (what, file, [random.randrange(10**6), 3]), seal=True
    )


@MAKERS
def truncated(random: Random) -> Case:
    file = random.choice([*FILES, "manifest.json"])
    return case(
        random,
        "truncated",
        ("truncate", file, random.random()),
        seal=maybe_sealed(random) and file != "manifest.json",
    )


@MAKERS
def no_file(random: Random) -> Case:
    how = random.choice(["remove", "folder", "loop", "empty"])
    return case(random, "no plain file", (how, random.choice([*FILES, "manifest.json"]), None))


@MAKERS
def odd_state(random: Random) -> Case:
    return state(random, "state of a wrong type", random.choice(STATE), random.choice(ODD_VALUES))


@MAKERS
def odd_state_again(random: Random) -> Case:
    return state(random, "state of a wrong type", random.choice(STATE), random.choice(ODD_VALUES))


@MAKERS
def odd_state_text(random: Random) -> Case:
    return state(random, "odd text in the state", random.choice(STATE), random.choice(ODD_TEXTS))


@MAKERS
def missing_state(random: Random) -> Case:
    edit = ("json_drop", "state.json", random.choice(STATE))
    return case(random, "state missing", edit, seal=maybe_sealed(random))


@MAKERS
def extra_state(random: Random) -> Case:
    keys = random.choice(
        [
            ["extra"],
            ["identity", "extra"],
            ["state", "schedule", "step"],
            ["state", "extra"],
            ["state", "updates", "extra"],
            ["state", "callbacks", "Nobody"],
            ["state", "schedule", "optimizer"],
        ]
    )
    return state(random, "state too many", keys, random.choice(ODD_VALUES))


@MAKERS
def odd_step(random: Random) -> Case:
    return state(
        random, "odd step", ["step"], random.choice([0, -1, 3, 10**9, "1", 1.0, True, None, 2])
    )


@MAKERS
def not_a_state(random: Random) -> Case:
    text = random.choice(["", "[]", "null", "1", "{}", "{", "NaN", "\x00", "[[]]", '{"format": 1}'])
    return case(random, "no state", ("text", "state.json", text), seal=maybe_sealed(random))


@MAKERS
def deep_state(random: Random) -> Case:
    edit = (
        "nested",
        random.choice(["state.json", "manifest.json"]),
        ["[", random.choice([1000, 200_000])],
    )
    return case(random, "deep nesting", edit, seal=edit[1] == "state.json")


@MAKERS
def not_a_manifest(random: Random) -> Case:
    text = random.choice(
        [
            "",
            "[]",
            "null",
            "{}",
            "{",
            '{"format": 1}',
            '{"format": 1, "files": []}',
            '{"format": 2, "files": {}}',
            '{"format": 1, "files": {"a": 1}}',
            '{"files": {}}',
        ]
    )
    return case(random, "no manifest", ("text", "manifest.json", text))


@MAKERS
def odd_manifest(random: Random) -> Case:
    keys = random.choice(
        [
            ["format"],
            ["files"],
            ["files", "state.json"],
            ["files", "state.json", "size"],
            ["files", "state.json", "sha256"],
            ["files", "../../../links/links.json"],
            ["files", "extra"],
        ]
    )
    return case(
        random, "odd manifest", ("json", "manifest.json", [keys, random.choice(ODD_VALUES)])
    )


@MAKERS
def missing_tensor(random: Random) -> Case:
    return tensors(random, "tensor missing", "drop")


@MAKERS
def renamed_tensor(random: Random) -> Case:
    return tensors(random, "tensor renamed or too many", random.choice(["rename", "extra"]))


@MAKERS
def other_shape(random: Random) -> Case:
    return tensors(random, "other shape", random.choice(["transpose", "flat", "scalar", "none"]))


@MAKERS
def other_dtype(random: Random) -> Case:
    return tensors(
        random, "other dtype", random.choice(["float64", "float16", "int64", "bool", "uint8"])
    )


@MAKERS
def not_finite(random: Random) -> Case:
    return tensors(random, "not finite", random.choice(["nan", "inf", "one_nan", "huge"]))


@MAKERS
def no_tensors(random: Random) -> Case:
    return tensors(random, "no tensors", "clear")
