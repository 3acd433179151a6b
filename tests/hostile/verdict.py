"""Whether what happened to a malformed input is right."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from hostile.case import Case
from rmas_train.errors import escaped

REMEDY = re.compile(
    r"; |Did you mean|See --help|Known: |\b(set|give|choose|use|write|add|remove|mend|make|train"
    r"|run|resume|start over|lower|raise|put|check|fill|convert|rename|copy|shorten|drop|install"
    r")\b",
    re.IGNORECASE,
)
KEPT = ("run/inner/links", "run/outer/links")


@dataclass
class Outcome:
    """What a call left behind."""

    code: int
    out: str
    err: str


def snapshot(folder: Path) -> dict[str, bytes]:
    """Bytes of the outputs that a failing run must not touch."""
    files = [f for kept in KEPT for f in sorted((folder / kept).glob("*")) if f.is_file()]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def judge(case: Case, outcome: Outcome, folder: Path, before: dict[str, bytes], base: Path) -> list:
    """Problems, each beginning with its kind; an empty list is what is wanted."""
    if "Traceback (most recent call last)" in outcome.err + outcome.out:
        return [f"traceback: {outcome.err.strip().splitlines()[-1:]}"]
    problems = half_written(case, folder, outcome.code)
    if outcome.code == 0:
        return problems + wrong_result(case, folder, base)
    return problems + wrong_error(case, outcome) + changed_outputs(case, folder, before)


def wrong_error(case: Case, outcome: Outcome) -> list[str]:
    lines = outcome.err.strip().splitlines()
    if outcome.code != 2:
        return [f"error: exit code {outcome.code}"]
    if len(lines) != 1 or not lines[0].startswith("error: "):
        return [f"error: {len(lines)} lines on stderr"]
    problems = []
    if len(lines[0]) > 2500:
        problems.append(f"error: a line of {len(lines[0])} characters")
    if not lines[0].isprintable():
        problems.append("error: control characters")
    if not REMEDY.search(lines[0]):
        problems.append("error: no remedy")
    if not any(needle in lines[0] for needle in needles(case)):
        problems.append("error: names nothing of what is wrong")
    return problems


def needles(case: Case) -> set[str]:
    """What an error may name: the edited file or its folder, the typed key or value."""
    found = {part for _, path, _ in case.edits for part in Path(path).parts[-2:]}
    for typed in case.argv:
        key, _, value = typed.partition("=")
        found |= {
            key,
            key.split(".")[-1],
            key.split(".")[0],
            value[:30],
            typed[:30],
            escaped(value.strip("'"))[:30],
        }
    return {f for f in found if f.strip()}


def edited(case: Case, name: str) -> bool:
    return any(name == p or name.startswith(f"{p.removesuffix('/.')}/") for _, p, _ in case.edits)


def half_written(case: Case, folder: Path, code: int) -> list[str]:
    """Files that are not whole, temporary ones, and traces of code that ran."""
    problems = ["half-written: code ran"] if (folder / "hacked").exists() else []
    for path in sorted((folder / "run").rglob("*")):
        name = str(path.relative_to(folder))
        # What was set aside is as it was found.
        if edited(case, name) or {"checkpoints", "earlier"} & set(path.parts) or not path.is_file():
            continue
        if re.match(r"\..*\.(tmp|old)\d*|\.probe", path.name):
            problems.append(f"half-written: {name} is left")
        elif (why := unreadable(path, strict=code == 0)) is not None:
            problems.append(f"half-written: {name}: {why}")
    problems += [f"half-written: {p.name} is left" for p in folder.glob("*.tmp*")]
    for path in (folder / "run").rglob(".*.tmp*"):
        if path.is_dir() and not edited(case, str(path.relative_to(folder))):
            problems.append(f"half-written: {path} is left")
    return problems


def unreadable(path: Path, strict: bool) -> str | None:
    """Why a file is not whole; ``strict``: links have to be finite too."""
    ends = {".html": b"</html>\n", ".png": b"IEND\xaeB`\x82"}
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
            if strict and not all(t.isfinite().all() for t in tensors.values()):
                return "not finite"
        elif path.suffix in (".json", ".jsonl"):
            text = path.read_text(encoding="utf-8")
            for part in [text] if path.suffix == ".json" else text.splitlines():
                json.loads(part)
        elif not path.read_bytes().endswith(ends.get(path.suffix, b"")):
            return "cut off"
    except Exception as error:  # each reader has its own errors; any of them is the finding
        return repr(error)[:200]
    return None


def wrong_result(case: Case, folder: Path, base: Path) -> list[str]:
    """After success: the stage's outputs are there, and are the good run's where that is known."""
    problems = ["result: it should have been refused"] if case.refused else []
    stage = next((a.split("=")[1] for a in case.argv if a.startswith("stage=")), "")
    has_own_folder = any(a.startswith(("run_dir=", "-m")) for a in case.argv)
    wanted = {"inner": "inner/links/links.json", "outer": "outer/links/links.json"}
    wanted |= {"eval": "eval/results.json", "report": "results.json"}
    wanted |= {"plan": "plan/plan.json"}
    file = folder / "run" / wanted.get(stage, "")
    if case.call == "main" and not has_own_folder and not file.exists():
        problems.append(f"result: no {file}")
    if case.same:
        name = f"run/{stage}/links/links.safetensors"
        if (folder / name).read_bytes() != (base / name).read_bytes():
            problems.append(f"result: {name} is not the good run's")
    return problems


def changed_outputs(case: Case, folder: Path, before: dict[str, bytes]) -> list[str]:
    """Links that were there are as they were, also where a run that starts over set them aside."""
    after = snapshot(folder)
    lost = [n for n, raw in before.items() if after.get(n) != raw]
    aside = {n: folder / "run" / "earlier" / "1" / Path(n).relative_to("run") for n in lost}
    kept = {n for n, path in aside.items() if path.is_file() and path.read_bytes() == before[n]}
    return [f"half-written: {n} changed" for n in lost if n not in kept]
