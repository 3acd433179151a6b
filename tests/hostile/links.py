"""Links folders: bits, keys, shapes, numbers and types of both files."""

from __future__ import annotations

from random import Random
from typing import Any

from hostile.case import ODD_TEXTS, ODD_VALUES, Case, Edit, Makers, names, paths

MAKERS = Makers()
FIELDS = names("""
stage agents topology links prompts rounds latent_length max_new_tokens data_fingerprint
package_version prompts_hash options_hash alignment format
""")
DEEP = paths("""
agents/planner/model agents/planner/revision agents/planner/dtype agents/planner/width
agents/planner/fingerprint topology/name topology/order topology/edges topology/decoder
topology/edges/0/source topology/edges/0/target topology/edges/0/next_round links/variant
links/norm links/edge_input links/init links/ridge links/start_noise prompts/solver
prompts/solver/user agents/critic topology/order/0 topology/edges/0
""")
# Where links are read, and by what.
USES: list[tuple[str, list[str], str]] = [
    ("run/outer/links", ["stage=eval"], "main"),
    ("run/outer/links", [], "load"),
    ("run/inner/links", ["stage=outer"], "main"),
    ("run/outer/start", ["stage=eval"], "main"),
]


def case(random: Random, name: str, *edits: tuple[str, str, Any], seal: bool = False) -> Case:
    """Edits of files of one links folder; ``seal``: its checksums are made anew."""
    folder, argv, call = random.choice(USES)
    found: list[Edit] = [(what, f"{folder}/{file}", value) for what, file, value in edits]
    if seal:
        found.append(("seal_links", folder, None))
    return Case(name, list(argv), found, call, same=argv == ["stage=outer"])


def card(random: Random, name: str, keys: list[Any], value: Any) -> Case:
    edit = ("json", "links.json", [keys, value])
    return case(random, name, edit, seal=random.random() < 0.8)


def tensors(random: Random, name: str, what: str) -> Case:
    edit = ("tensors", "links.safetensors", [what, random.randrange(1000)])
    found = case(random, name, edit, seal=random.random() < 0.8)
    found.same = False
    return found


def either(random: Random) -> str:
    return random.choice(["links.safetensors", "links.json"])


@MAKERS
def bit_flips(random: Random) -> Case:
    flips = [random.randrange(10**6), random.choice([1, 1, 3, 100])]
    return case(random, "bits flipped", ("flip", either(random), flips))


@MAKERS
def truncated(random: Random) -> Case:
    return case(random, "truncated", ("truncate", either(random), random.random()))


@MAKERS
def header_flips(random: Random) -> Case:
    edit = ("flip_head", "links.safetensors", [random.randrange(10**6), random.choice([1, 3])])
    return case(random, "bits flipped in the header", edit)


@MAKERS
def appended(random: Random) -> Case:
    return case(
        random, "bytes appended", ("insert", either(random), [1.0, random.randbytes(9).hex()])
    )


@MAKERS
def no_file(random: Random) -> Case:
    how = random.choice(["remove", "folder", "loop", "empty"])
    return case(random, "no plain file", (how, random.choice([either(random), "."]), None))


@MAKERS
def missing_tensor(random: Random) -> Case:
    return tensors(random, "key missing", "drop")


@MAKERS
def extra_tensor(random: Random) -> Case:
    return tensors(random, "key too many", "extra")


@MAKERS
def renamed_tensor(random: Random) -> Case:
    return tensors(random, "key renamed", "rename")


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
    return tensors(random, "not finite", random.choice(["nan", "inf", "one_nan"]))


@MAKERS
def huge_values(random: Random) -> Case:
    return tensors(random, "huge values", "huge")


@MAKERS
def no_tensors(random: Random) -> Case:
    return tensors(random, "no tensors", "clear")


@MAKERS
def odd_field(random: Random) -> Case:
    return card(random, "field of a wrong type", [random.choice(FIELDS)], random.choice(ODD_VALUES))


@MAKERS
def odd_deep_field(random: Random) -> Case:
    return card(
        random, "inner field of a wrong type", random.choice(DEEP), random.choice(ODD_VALUES)
    )


@MAKERS
def odd_deep_text(random: Random) -> Case:
    return card(random, "odd text in a field", random.choice(DEEP), random.choice(ODD_TEXTS))


@MAKERS
def missing_field(random: Random) -> Case:
    keys = random.choice([[f] for f in FIELDS] + DEEP)
    found = card(random, "field missing", keys, None)
    found.edits[0] = ("json_drop", found.edits[0][1], keys)
    return found


@MAKERS
def extra_field(random: Random) -> Case:
    keys = random.choice([["extra"], ["__class__"], ["agents", "extra"], ["links", "extra"], [""]])
    return card(random, "field too many", keys, random.choice(ODD_VALUES))


@MAKERS
def other_format(random: Random) -> Case:
    return card(
        random, "other format", ["format"], random.choice([0, 2, -1, "1", 1.0, True, None, [1]])
    )


@MAKERS
def other_width(random: Random) -> Case:
    width = random.choice([0, -1, 1, 25, 10**9, "24", 24.0])
    return card(
        random,
        "agents of another width",
        ["agents", random.choice(["planner", "solver"]), "width"],
        width,
    )
