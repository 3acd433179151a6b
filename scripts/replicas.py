"""Tiny replicas of the five published systems, trained for real through the commands users type.

    python scripts/replicas.py [sequential_light ...] [--short] [--out outputs/replicas]

Each has its system's families, topology, prompts and data columns (``replica_agents.py``,
``replica_data.py``), goes through inner, outer, eval, load, export, import and load again, and
leaves ``<out>/<system>/results.json``:

    loss_first, loss_last   outer loss on the same 32 training rows, before and after training
    links_moved             links of which every tensor differs from where it began
    links_unmoved           the others
    rows                    what the evaluation measured, controls included
    same_answers            the imported links answer every test row as the trained ones

Exit code 1 if a loss did not fall, a link did not move or an answer differs.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts")]
import replica_agents  # noqa: E402
import replica_data  # noqa: E402

import rmas_train  # noqa: E402
from rmas_train.compose import compose  # noqa: E402
from rmas_train.config import Config, first_alike  # noqa: E402
from rmas_train.links.link_set import LinkSet  # noqa: E402
from rmas_train.objectives.outer import OuterObjective  # noqa: E402
from rmas_train.runs.evaluated import read_links  # noqa: E402
from rmas_train.runs.load import Loaded, load_run  # noqa: E402
from rmas_train.runs.session import environment  # noqa: E402
from rmas_train.runs.starting_links import untrained_links  # noqa: E402
from rmas_train.runs.tables import role_sequences  # noqa: E402
from rmas_train.runtime.runtime import Runtime  # noqa: E402
from rmas_train.support.files import write_json  # noqa: E402

SYSTEMS = ("sequential_light", "sequential_scaled", "mixture", "distillation", "deliberation")
VOCABULARY = 900
SHORT, LONG = "In short:", "Let us count together."


def options(system: str, folder: Path, short: bool) -> list[str]:
    """What is typed on top of ``experiment=<system>``: sizes, and where things are."""
    shapes = compose([f"experiment={system}", f"agents={system}_shapes"])
    agents = [
        f"agents.{n}.model={folder}/agents/{Path(a.model).name}" for n, a in shapes.agents.items()
    ]
    inner, outer = (10, 20) if short else (30, 40)
    return [
        f"experiment={system}",
        *agents,
        f"run_dir={folder}/run",
        f"data.folder={folder}/data",
        f"data.recipe_options.source={folder}/source",
        "data.recipe_options.evaluation=none",
        "rounds=2",
        "latent_length=4",
        "links.start_pairs=seen",  # these agents know the words of their rows alone
        f"training.inner.steps={inner}",
        f"training.outer.steps={outer}",
        "training.inner.batch_size=8",
        "training.outer.batch_size=8",
        "training.inner.lr=1e-3",
        "training.outer.lr=1e-3",
        "training.inner.log_every=1",
        "training.outer.log_every=1",
        "training.outer.recompute=agent",
        "training.outer.depth=fixed",
        "evaluation.max_new_tokens=16",
        "evaluation.batch_size=64",
        f"evaluation.max_rows={4 if short else 24}",
    ]


def build_agents(folder: Path, typed: list[str], short: bool) -> dict[str, float]:
    """Models and tokenizers, taught their roles' texts; their last losses."""
    replica_data.write_sets(folder / "source", 60 if short else 400)
    config = compose(typed)
    texts = [p.read_text(encoding="utf-8") for p in (folder / "source").glob("*.jsonl")]
    texts += [f"{SHORT} {LONG}"] * 50
    texts += [p.read_text(encoding="utf-8") for p in ROOT.glob("prompts/*/*.yaml")]
    alike = first_alike(config.agents, config.topology.order)
    for seed, name in enumerate(sorted(set(alike.values()))):
        place = Path(config.agents[name].model)
        tokenizer = replica_agents.make_tokenizer(
            replica_agents.family_of(place.name), texts, VOCABULARY + 8 * seed
        )
        shape = ROOT / "shapes" / place.name / "config.json"
        replica_agents.save_as_published(replica_agents.make_model(shape, tokenizer, seed), place)
        tokenizer.save_pretrained(place)
    loaded = load_run(config, Runtime(config.runtime))
    losses = {}
    for name in sorted(set(alike.values())):
        sequences = [
            s
            for role in config.topology.order
            if alike[role] == name
            for s in role_sequences(loaded.team, config.data, role, lessons(config, loaded, role))
        ]
        model = loaded.team.agents[name].model.float().requires_grad_(True)
        losses[name] = replica_agents.teach(model, sequences, 80 if short else 120, seed=0)
        place = Path(config.agents[name].model)
        replica_agents.save_as_published(model.to(torch.bfloat16), place)
    return losses


def lessons(config: Config, loaded: Loaded, role: str) -> list[dict[str, Any]]:
    """Rows that teach a role its texts, in a way that leaves links something to do.

    The decoder answers at length, and as the data want it only where what it is sent begins with
    a mark. No agent writes that mark, so the links have to learn what it does.
    """
    rows = loaded.tables.inner[role].rows
    if role != config.topology.decoder:
        return rows
    columns = config.data.role_texts
    sent = [c for n, c in columns.items() if n != role]
    short = [r | {c: f"{SHORT} {r[c]}" for c in sent} for r in rows]
    return short + [r | {columns[role]: f"{LONG} {r[columns[role]]}"} for r in rows]


def run(arguments: Sequence[str], log: Path) -> float:
    """A command of the package in a process of its own; seconds."""
    command = [sys.executable, "-m", "rmas_train", *arguments]
    began = time.perf_counter()
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        file.flush()
        done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1]
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}: {last} (see {log})")
    return time.perf_counter() - began


def moved(config: Config, run_dir: Path) -> tuple[list[str], list[str]]:
    """Links of which every tensor has moved, inner ones since drawn, outer ones since the start."""
    drawn = dict(state(untrained_links(load_run(config, Runtime(config.runtime)))))
    pairs = {
        "inner": (drawn, load_file(run_dir / "inner" / "links" / "links.safetensors")),
        "outer": (
            load_file(run_dir / "outer" / "start" / "links.safetensors"),
            load_file(run_dir / "outer" / "links" / "links.safetensors"),
        ),
    }
    still: dict[str, bool] = {}
    for kind, (before, after) in pairs.items():
        for key in after:
            link, _, parameter = key.rpartition(".")
            link = ".".join(key.split(".")[:2])
            if key.startswith(kind) and parameter != "scale":
                still[link] = still.get(link, False) or torch.equal(before[key], after[key])
    return [n for n in still if not still[n]], [n for n in still if still[n]]


def state(links: LinkSet) -> dict[str, torch.Tensor]:
    return {k: v.cpu() for k, v in links.state_dict().items()}


@torch.no_grad()
def losses(config: Config, run_dir: Path) -> tuple[float, float]:
    """Cross-entropy per answer token on the same training rows, at the start and as trained."""
    loaded = load_run(config, Runtime(config.runtime))
    found = []
    for folder in ("start", "links"):
        links = read_links(loaded, run_dir / "outer" / folder, untrained_links(loaded))
        objective = OuterObjective(
            loaded.team, links, loaded.train, config.rounds, config.latent_length
        )
        rows = list(range(min(len(loaded.train), 32)))
        loss = objective(rows, config.rounds).sum() / objective.count(rows).sum()
        found.append(float(loss))
    return found[0], found[1]


def answers(run_dir: Path, rows: list[dict[str, Any]], config: Config) -> list[str]:
    system = rmas_train.load(run_dir)
    found = system.answer(rows, rounds=config.rounds, latent_length=config.latent_length)
    return [a.text for a in found]


def replica(system: str, out: Path, short: bool) -> dict[str, Any]:
    """Everything about one system; its folder is made anew."""
    folder = out / system
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    typed, log, seconds = options(system, folder, short), folder / "log.txt", {}
    began = time.perf_counter()
    taught = build_agents(folder, typed, short)
    seconds["agents"] = time.perf_counter() - began
    seconds["run"] = run(typed, log)
    config, run_dir = compose(typed), folder / "run"
    exported, imported = folder / "exported", folder / "imported"
    seconds["export"] = run(["links", "export", str(run_dir), str(exported)], log)
    again = [t for t in typed if not t.startswith("run_dir=")]
    seconds["import"] = run(
        ["links", "import", str(exported), *again, f"run_dir={imported}", "links=released"], log
    )
    test = Path(config.data.folder) / "test.jsonl"
    rows = [json.loads(line) for line in test.read_text(encoding="utf-8").splitlines()]
    rows = rows[: config.evaluation.max_rows]
    first, last = losses(config, run_dir)
    has_moved, has_not = moved(config, run_dir)
    measured = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    return {
        "schema": 1,
        "system": system,
        "loss_first": first,
        "loss_last": last,
        "links_moved": has_moved,
        "links_unmoved": has_not,
        "same_answers": answers(run_dir, rows, config) == answers(imported, rows, config),
        "taught_loss": taught,
        "seconds": seconds,
        "rows": measured["rows"],
        "command": f"python scripts/replicas.py {system}{' --short' if short else ''}",
        "seed": config.seed,
        "environment": environment(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="*", default=list(SYSTEMS), help="default: all five")
    parser.add_argument("--short", action="store_true", help="fewer rows and steps, for the tests")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "replicas")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # imported links do not know which weights they belong to
    logging.disable(logging.WARNING)
    failed = []
    for system in args.systems:
        result = replica(system, args.out.resolve(), args.short)
        write_json(args.out / system / "results.json", result)
        fine = (
            result["loss_last"] < result["loss_first"]
            and not result["links_unmoved"]
            and result["same_answers"]
        )
        failed += [] if fine else [system]
        print(
            f"{system}: loss {result['loss_first']:.3f} -> {result['loss_last']:.3f}, "
            f"{len(result['links_moved'])} links moved, {len(result['links_unmoved'])} not, "
            f"same answers after export and import: {result['same_answers']}, "
            f"{sum(result['seconds'].values()):.0f} s",
            flush=True,
        )
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
