"""Every system and control on the relay, on notes with real models, and on a public set: one table.

    python scripts/results.py [--small FOLDER] [--out outputs/results] [--only PART ...] [KEY=VALUE]

For each part: links, links that learn the format alone, agents that are trained themselves, one
evaluation; then one report. Beside the relay stands a planted system that cannot carry content, so
that its verdict can be read. What is there already, with the same options, is not made again: the
command goes on where it was stopped. Options at the end go to every command.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rmas_train.compose import config_from
from rmas_train.recipes.prepare import prepare
from rmas_train.support.files import write_json, write_text

CONTROLS = (
    *("start", "null", "shuffled", "untrained", "mean", "thinking", "format", "cross_task"),
    *("noise", "rotation"),
)
SYSTEMS = (
    *("text", "text_capped", "decoder_alone", "single", "lora", "sft", "moa", "looplm"),
    *("textgrad", "latentmas", "budget"),
)
REAL = [
    *("data.recipe_options.train=4000", "evaluation.max_rows=100", "evaluation.beyond_reach=true"),
    *("training.outer.steps=40", "training.outer.validate_every=0", "training.outer.select=last"),
    *("training.inner.steps=20", "finetune.steps=20", "finetune.micro_batch_size=4"),
    "evaluation.textgrad_tokens=64",
]
PARTS = {
    "relay": ["experiment=relay", "evaluation.max_rows=300", "finetune.lr=1e-3"],
    "notes": ["experiment=notes", "data.more_tests={}", *REAL],
    "chain_sum": ["experiment=chain_sum", *REAL[1:]],
}
# Part -> whose test rows the control cross_task gets its messages from, and columns to add to them.
# The relay's agents know one language, so it has other problems of the same kind.
OTHERS: dict[str, tuple[list[str], dict[str, str]]] = {
    "relay": (["experiment=relay", "seed=1", "data.folder=outputs/data/relay_seed1"], {}),
    "notes": (["experiment=chain_sum"], {"passage": "", "lead": "The answer is"}),
    "chain_sum": (["experiment=notes"], {}),
}


def run(*options: str) -> None:
    command = [sys.executable, "-m", "rmas_train", *options]
    subprocess.run(command, check=True)


def cross_task_file(name: str, folder: Path) -> Path:
    """Test rows of another part's data, with the columns that this part's prompts name, and without
    questions that the part itself asks."""
    options, columns = OTHERS[name]
    path = folder / f"{name}_other.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        asked = {row["question"] for row in test_rows(PARTS[name])}
        rows = [columns | row for row in test_rows(options) if row["question"] not in asked]
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows[:500]))
    return path


def test_rows(options: list[str]) -> list[dict[str, Any]]:
    """Of an experiment's data, which are made if they are not there."""
    config = config_from(options)
    data = prepare(config.data, config.seed)
    lines = (data / config.data.test).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def make(name: str, folder: Path, more: list[str]) -> None:
    """Links, format links, trained agents, evaluation."""
    own, learnt = folder / name, folder / f"{name}_format"
    common = [*PARTS[name], *more, "resume=auto"]
    run(*common, "stage=inner", f"run_dir={own}")
    inner = f"inner={own}/inner/links"
    shuffled = "training.outer.messages=shuffled"
    run(*common, "stage=outer", inner, shuffled, f"run_dir={learnt}")
    other = cross_task_file(name, folder)
    systems = f"evaluation.systems=[{','.join((*CONTROLS, *SYSTEMS))}]"
    judged = [f"evaluation.format={learnt}", f"evaluation.cross_task={other}", systems]
    run(*common, *judged, f"run_dir={own}")


def make_planted(folder: Path, more: list[str]) -> None:
    """A system that cannot carry content: no aligned start, and the messages of other rows."""
    options = ["links.init=default", "training.outer.messages=shuffled", "training.outer.lr=5e-4"]
    options += ["data.name=relay_planted", f"inner={folder}/relay/inner/links", "resume=auto"]
    systems = "evaluation.systems=[null,shuffled,mean,noise,rotation,decoder_alone]"
    run(*PARTS["relay"], *more, *options, systems, f"run_dir={folder}/planted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", help="folder with the small models; default: the hub")
    parser.add_argument("--out", type=Path, default=Path("outputs/results"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_args()
    for name in args.only:
        small = [f"small={args.small}"] if args.small and name != "relay" else []
        with timed(args.out / "seconds.json", name):
            make(name, args.out, [*small, *args.options])
            if name == "relay":
                make_planted(args.out, args.options)
    run("stage=report", f"run_dir={args.out}")


@contextmanager
def timed(path: Path, name: str) -> Iterator[None]:
    """Seconds of a part, those of earlier calls and of one that was stopped included."""
    began = time.monotonic()
    try:
        yield
    finally:
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        spent = earlier.get(name, 0) + time.monotonic() - began
        write_json(path, earlier | {name: round(spent, 1)})


if __name__ == "__main__":
    main()
