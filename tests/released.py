"""Released systems as files, written by hand from the public description of the layout."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from tiny import SEQUENTIAL

from rmas_train.config import LinksConfig
from rmas_train.links.card import LinksCard
from rmas_train.links.folder import save_links
from rmas_train.links.link_set import draw_links
from rmas_train.topology import build_topology

WIDTHS = {"planner": 24, "critic": 32, "solver": 28}
EDGES = {
    "outer_12": ("Planner", "Critic"),
    "outer_23": ("Critic", "Solver"),
    "outer_31": ("Solver", "Planner"),
}
TOPOLOGY = build_topology(SEQUENTIAL, WIDTHS)
INNER_KEYS = ("pre_ln", "proj1", "proj2", "post_ln")
OUTER_KEYS = ("ln_source", "proj1", "proj2", "residual_proj", "ln_target")


def draw(shape, generator, dtype):
    return torch.randn(shape, generator=generator).mul(0.3).to(dtype)


def inner_state(width: int, dtype=torch.float32, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = {k: (width, width) if k.startswith("proj") else (width,) for k in INNER_KEYS}
    weights = {f"{k}.weight": draw(s, g, dtype) for k, s in shapes.items()}
    return weights | {f"{k}.bias": draw((width,), g, dtype) for k in INNER_KEYS}


def outer_state(source: int, target: int, dtype=torch.float32, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    shapes = {
        "ln_source.weight": (source,),
        "ln_source.bias": (source,),
        "proj1.weight": (2 * target, source),
        "proj1.bias": (2 * target,),
        "proj2.weight": (target, 2 * target),
        "proj2.bias": (target,),
        "residual_proj.weight": (target, source),
        "residual_proj.bias": (target,),
        "ln_target.weight": (target,),
        "ln_target.bias": (target,),
    }
    return {k: draw(s, g, dtype) for k, s in shapes.items()}


def write_released(
    root: Path, form: str = "tasks", dtype=torch.bfloat16, tasks=("math", "code")
) -> Path:
    """A sequential system; ``form``: ``tasks`` or ``adapters`` manifest, or ``local`` folders."""
    folders = {a: f"Sequential-Light-{a.capitalize()}-Model-1.7B" for a in WIDTHS}
    for i, (agent, width) in enumerate(WIDTHS.items()):
        folder = root / folders[agent]
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"a base model that nobody should read")
        (folder / "adapter_config.json").write_text(json.dumps({"adapter_type": "ln_res_adapter"}))
        if form == "local":
            torch.save(inner_state(width, dtype, i), folder / "adapter.pt")
            continue
        for j, task in enumerate(tasks):
            torch.save(inner_state(width, dtype, i + 10 * j), folder / f"adapter({task}).pt")
        named = {t: {"adapter.pt": f"adapter({t}).pt"} for t in tasks}
        (folder / "innerlink_config.json").write_text(json.dumps({"tasks": named}))
    outer = root / "Sequential-Light-Outerlinks"
    outer.mkdir()
    manifest = {"format_version": 1, "paradigm": "sequential"}
    by_task = {}
    for j, task in enumerate(tasks if form == "tasks" else tasks[:1]):
        entries = []
        for i, (key, (source, target)) in enumerate(EDGES.items()):
            local = form != "tasks"
            name = f"{key}.pt" if local else f"{source}-{target}-Outerlink({task}).pt"
            widths = WIDTHS[source.lower()], WIDTHS[target.lower()]
            torch.save(outer_state(*widths, dtype, 5 + i + 10 * j), outer / name)
            sizes = {"in_dim": widths[0], "out_dim": widths[1]}
            kind = {"adapter_type": "outer_ln_res_adapter"}
            entries.append({"legacy_key": key, "filename": name} | sizes | kind)
        by_task[task] = {"task": task, "adapters": entries}
    if form == "tasks":
        manifest["tasks"] = by_task
    else:
        manifest |= by_task[tasks[0]]
        (outer / "outer_adapter_config.json").write_text(json.dumps({"mas_task": tasks[0]}))
    (outer / "outerlink_config.json").write_text(json.dumps(manifest))
    return root


def edit_json(path: Path, change) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def save(folder, topology, config, widths, released=None, scale=1.0, **options):
    """A links folder of ours with drawn links and LayerNorms that are not 1 and 0."""
    chosen = LinksConfig(init="default", **options)
    links = draw_links(chosen, topology, widths, dict.fromkeys(widths, scale), seed=3)
    with torch.no_grad():
        for parameter in links.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    about = {"model": "m", "revision": None, "dtype": "float32", "fingerprint": "f"}
    card = LinksCard(
        stage="outer",
        agents={a: about | {"width": w} for a, w in widths.items()},
        topology=asdict(config),
        links=asdict(chosen),
        prompts={a: {"user": "x"} for a in widths},
        rounds=2,
        latent_length=4,
        max_new_tokens=8,
        data_fingerprint="",
        package_version="0",
        prompts_hash="",
        released=released or {},
    )
    save_links(folder, links, card)
    return folder
