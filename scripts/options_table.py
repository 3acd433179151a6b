"""The option reference, docs/options.md, from the dataclasses of rmas_train/config.

    python scripts/options_table.py             # writes the file
    python scripts/options_table.py --check     # says whether it is up to date

A test keeps the file equal to what this prints.
"""

from __future__ import annotations

import argparse
import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rmas_train.compose import folded, groups  # noqa: E402
from rmas_train.compose.typed import RENAMED  # noqa: E402
from rmas_train.config import Config, describe  # noqa: E402

PATH = ROOT / "docs" / "options.md"
INTRODUCTION = """\
# Options

Made by `python scripts/options_table.py` from the dataclasses of `rmas_train/config`; do not edit.

An option is typed as `key=value` and a group's choice as `group=choice`, in any order, before or
after the flags. What is said later in this list wins:

1. the defaults below;
2. the groups' choices: `agents`, `topology`, `links`, `data`, `runtime`;
3. the experiment (`experiment=relay` if none is named);
4. `--config FILE`, in their order;
5. what is typed as `key=value`.

`--show` prints what comes out of it and runs nothing. A run prints what differs from its experiment
and writes all of it to `config.yaml` in each stage's folder.

**`--config my.yaml`** is a YAML file of options as nested keys, `training: {outer: {lr: 5e-4}}`. A
group's name with a text is a choice (`links: released`, `experiment: mixture`); with nested keys it
is options (`topology: {name: pair, order: [...], ...}`). A file that names no experiment stands on
`experiment=none` unless one is typed, because a shipped experiment's settings belong to its own
agents and data; on `none` the file's `agents`, `topology` and `data` are all there is of them. From
Python, `rmas_train.compose.config_from` takes the same as a path or a dict.

**`--config-dir my_conf`** is a folder with groups of your own: `my_conf/topology/pair.yaml` is
`topology=pair`, `my_conf/experiment/ours.yaml` is `experiment=ours` (begin an experiment with the
line `# @package _global_`, as the shipped ones in `conf/experiment` do). It is searched before the
shipped folder. Both flags can be repeated, and work in sweeps (`-m`) and from an installed wheel.

**`plugins=[my_module]`** imports Python modules before the config is checked, from what is
installed or from the folder that the command is started in; the names that they register can then
be used. It runs their code, so it counts only where you have said it yourself: typed, in your
files, or from Python. `stage=eval run=<folder>` of a run that used plugins asks you to type them
again.
"""


def table(rows: list[tuple[str, str, str]]) -> str:
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key, default, meaning in rows:
        cells = (f"`{key}`", f"`{default}`", meaning.replace("<", "&lt;"))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def section(key: str) -> str:
    """``training.outer`` of ``training.outer.lr``; nothing for what stands at the top."""
    return key.rpartition(".")[0]


def document() -> str:
    """The whole file."""
    parts = [INTRODUCTION, "## Groups\n", "| group | choices |", "|---|---|"]
    parts += [
        f"| `{g}` | {', '.join(f'`{c}`' for c in folded(cs))} |" for g, cs in groups().items() if cs
    ]
    rows = sorted(describe(Config), key=lambda row: section(row[0]) != "")
    for name, found in groupby(rows, key=lambda row: section(row[0])):
        title = f"`{name}`" if name else "The run"
        parts += [f"\n## {title}\n", table(list(found))]
    if RENAMED:
        parts += ["\n## Former names\n", "They work for one more release, with a warning.\n"]
        parts += ["| former | now |", "|---|---|"]
        parts += [f"| `{old}` | `{new}` |" for old, new in RENAMED.items()]
    return "\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args().check:
        PATH.write_text(document(), encoding="utf-8")
        print(f"wrote {PATH.relative_to(ROOT)}")
        return 0
    is_same = PATH.is_file() and PATH.read_text(encoding="utf-8") == document()
    print("up to date" if is_same else "out of date: python scripts/options_table.py")
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
