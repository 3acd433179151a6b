"""More of the checkpoints' damages: what stands around them, and what ``resume`` is told."""

from __future__ import annotations

from random import Random

from hostile.case import ODD_TEXTS, Case, Edit
from hostile.checkpoints import FILES, MAKERS, case, maybe_sealed


@MAKERS
def another_run(random: Random) -> Case:
    folder = "run/outer/checkpoints"
    step = random.choice(["step_00000001", "step_00000002"])
    edits: list[Edit] = [("copy", f"{folder}/{step}", f"other/outer/checkpoints/{step}")]
    resume = random.choice([f"{folder}/{step}", "auto", f"other/outer/checkpoints/{step}"])
    return Case("another run's checkpoint", ["stage=outer", f"resume={resume}"], edits, same=True)


@MAKERS
def mixed(random: Random) -> Case:
    file = random.choice(FILES)
    source = f"other/outer/checkpoints/step_00000001/{file}"
    return case(random, "another run's file", ("copy", file, source), seal=maybe_sealed(random))


@MAKERS
def file_for_folder(random: Random) -> Case:
    folder = "run/outer/checkpoints"
    path = random.choice(
        [folder, f"{folder}/step_00000002", f"{folder}/step_00000001", f"{folder}/step_00000009"]
    )
    how = random.choice(["text", "loop", "folder"])
    resume = random.choice(["auto", path])
    edits: list[Edit] = [("remove", path, None), (how, path, "x" if how == "text" else None)]
    return Case("a plain file for a folder", ["stage=outer", f"resume={resume}"], edits, same=True)


@MAKERS
def renamed_folder(random: Random) -> Case:
    folder = "run/outer/checkpoints"
    name = random.choice(
        ["step_00000009", "step_99999999", "step_00000000", "step_1", "step_0000000x"]
    )
    edits: list[Edit] = [("copy", f"{folder}/{name}", f"{folder}/step_00000001")]
    resume = random.choice(["auto", f"{folder}/{name}"])
    return Case("a renamed checkpoint", ["stage=outer", f"resume={resume}"], edits, same=True)


@MAKERS
def odd_resume(random: Random) -> Case:
    paths = [
        *ODD_TEXTS,
        "run",
        "run/outer",
        "run/outer/checkpoints",
        "data",
        "/dev/null",
        "AUTO",
        "true",
        "run/inner/checkpoints/step_00000001",
    ]
    stage = random.choice(["outer", "inner", "pipeline"])
    return Case("odd resume", [f"stage={stage}", f"resume={random.choice(paths)}"])


@MAKERS
def leftovers(random: Random) -> Case:
    path = random.choice(
        [".step_00000003.tmp77", ".step_00000002.old77", ".step_00000001.tmp1/links"]
    )
    edits: list[Edit] = [("text", f"run/outer/checkpoints/{path}", "half")]
    return Case("a killed run's leftovers", ["stage=outer", "resume=auto"], edits, same=True)


@MAKERS
def odd_metrics(random: Random) -> Case:
    text = random.choice(
        ["", "{", "[]\n", '{"step": "a"}\n', "null\n", "\x00", '{"step": 1e999}\n', "[" * 10**5]
    )
    edits: list[Edit] = [("text", "run/outer/metrics.jsonl", text)]
    return Case("metrics of a resumed run", ["stage=outer", "resume=auto"], edits, same=True)


@MAKERS
def bad_metrics_bytes(random: Random) -> Case:
    edits: list[Edit] = [("insert", "run/outer/metrics.jsonl", [random.random(), "ff00c328"])]
    return Case("metrics of a resumed run", ["stage=outer", "resume=auto"], edits, same=True)


@MAKERS
def truncated_metrics(random: Random) -> Case:
    edits: list[Edit] = [
        ("truncate", "run/outer/metrics.jsonl", random.random()),
        ("remove", "run/outer/checkpoints/step_00000002", None),
    ]
    return Case("metrics of a resumed run", ["stage=outer", "resume=auto"], edits, same=True)
