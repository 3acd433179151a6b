"""The outer step against the released procedure, and against a plain true rollout.

    python benchmarks/outer.py [--out outputs/bench/outer.json]

Released: states of the role texts and of the gold answer are sent, one sample at a time, every
stage whole in every round, logits at all positions, the models' own gradient checkpointing. Ours
does equal work in its teacher-forced mode; both losses are compared. Plain: a true rollout without
cache, reuse or batching. Slow sides run at batch 1; samples per second, medians. Operations are
counted for both sides, so that the ratio they predict stands beside.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from systems import Size, build, rows
from torch import Tensor
from torch.nn import functional as F

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import tokenise_whole
from rmas_train.data.rows import Table
from rmas_train.engine.inputs import LatentMessage, embed_prompts
from rmas_train.engine.rollout import at_least_float32
from rmas_train.links.link_set import LinkSet
from rmas_train.objectives.outer import OuterObjective
from rmas_train.planning.cost import Counter
from rmas_train.recursion import Team
from rmas_train.runs.session import environment
from rmas_train.support.files import write_json

TEXTS = {"planner": "plan", "critic": "refined_plan", "solver": "answer"}
Row = dict[str, Any]


def sequence(team: Team, name: str, row: Row, round_: int, inbox: dict[str, Tensor]) -> Tensor:
    """Input embeddings of a prompt with its message, (1, L, D)."""
    agent = team.agents[name]
    prompts = team.prompts[name].encode([row], round_, first=not inbox)
    slots = {source: LatentMessage(x).slot(agent) for source, x in inbox.items()}
    return embed_prompts(agent, prompts, slots).embeds


def released_loss(team: Team, links: LinkSet, row: Row, rounds: int, length: int) -> Tensor:
    """One sample of the released procedure; summed cross-entropy of its answer."""
    inbox: dict[str, Tensor] = {}
    for round_ in range(1, rounds + 1):
        for name in team.topology.order:
            agent = team.agents[name]
            (ids,) = tokenise_whole(agent, [row[TEXTS[name]]])
            prompt = sequence(team, name, row, round_, inbox)
            whole = torch.cat(
                [prompt, agent.embed(torch.tensor([ids], device=agent.device))], dim=1
            )
            if (round_, name) == (rounds, team.topology.decoder):
                logits = agent.model(inputs_embeds=whole, use_cache=False).logits
                predicted = logits[0, prompt.shape[1] - 1 : -1]
                return answer_cross_entropy(predicted, ids)
            with torch.set_grad_enabled(bool(inbox)):
                out = agent.model.base_model(inputs_embeds=whole, use_cache=False)
                states = out.last_hidden_state[:, prompt.shape[1] :][:, :length]
                latents = links.inner[name](at_least_float32(states))
            (edge,) = team.topology.outgoing(name)
            inbox = {name: links.outer[edge.key](latents)}
    raise AssertionError("the decoder ends the last round")


def plain_loss(team: Team, links: LinkSet, row: Row, rounds: int, length: int) -> Tensor:
    """The loss of a true rollout of one sample, see ``plain_unroll``."""
    return plain_unroll(team, links, row, rounds, length)[1]


def plain_unroll(
    team: Team, links: LinkSet, row: Row, rounds: int, length: int
) -> tuple[dict[tuple[int, str], Tensor], Tensor]:
    """One sample, the whole sequence again for each latent step.

    Returns:
        messages by round and edge, (1, M, D) each; summed cross-entropy of the answer.
    """
    messages: dict[tuple[int, str], Tensor] = {}
    inbox: dict[str, Tensor] = {}
    for round_, name in team.topology.live_calls(rounds)[:-1]:
        agent = team.agents[name]
        whole, latents = sequence(team, name, row, round_, inbox), []
        for _ in range(length):
            latents.append(links.inner[name](_last_state(agent, whole)))
            whole = torch.cat([whole, latents[-1][:, None].to(agent.dtype)], dim=1)
        (edge,) = team.topology.outgoing(name)
        inbox = {name: links.outer[edge.key](torch.stack(latents, dim=1))}
        messages[round_, edge.key] = inbox[name]
    agent = team.agents[team.topology.decoder]
    (ids,) = tokenise_whole(agent, [row["answer"]])
    prompt = sequence(team, agent.name, row, rounds, inbox)
    whole = torch.cat([prompt, agent.embed(torch.tensor([ids], device=agent.device))], dim=1)
    logits = agent.model(inputs_embeds=whole, use_cache=False).logits[0, prompt.shape[1] - 1 : -1]
    return messages, answer_cross_entropy(logits, ids)


def answer_cross_entropy(logits_AV: Tensor, ids: list[int]) -> Tensor:
    labels_A = torch.tensor(ids, device=logits_AV.device)
    return F.cross_entropy(at_least_float32(logits_AV), labels_A, reduction="sum")


def _last_state(agent: Agent, embeds: Tensor) -> Tensor:
    out = agent.model.base_model(inputs_embeds=embeds, use_cache=False)
    return at_least_float32(out.last_hidden_state[:, -1])


def release_checkpointing(team: Team, on: bool) -> None:
    """The library's own gradient checkpointing; harmless here, where no cache is used."""
    for agent in team.agents.values():
        if on:
            agent.model.gradient_checkpointing_enable()
            agent.model.train()
        else:
            agent.model.gradient_checkpointing_disable()
            agent.model.eval()


def compare(
    team: Team, links: LinkSet, table: Table, length: int, rounds: int, repeats: int, slow: str
) -> dict[str, Any]:
    """Ours, all rows at once, against one slow side, alternating in this process."""
    batch = len(table)
    texts = TEXTS if slow == "released" else None
    objective = OuterObjective(team, links, table, rounds, length, role_texts=texts)
    loss_of = released_loss if slow == "released" else plain_loss

    def ours() -> Tensor:
        return objective(list(range(batch)), rounds).sum()

    def other() -> Tensor:
        return loss_of(team, links, table.rows[0], rounds, length)

    tolerance = 1e-3 if all(a.dtype == torch.float32 for a in team.agents.values()) else 0.05
    with torch.no_grad():
        torch.testing.assert_close(
            objective([0], rounds).sum(), other(), rtol=tolerance, atol=tolerance
        )
    seconds: dict[str, list[float]] = {"ours": [], slow: []}
    flops = {}
    for name, run, per in (("ours", ours, batch), (slow, other, 1)):
        # PyTorch's own counter hooks modules, which a backward inside backward cannot bear.
        with Counter([]) as counter, checkpointed(team, slow, name):
            run().backward()
        flops[name] = sum(counter.cost.flops.values()) / per
    for _ in range(repeats + 1):
        seconds["ours"].append(timed(ours) / batch)
        with checkpointed(team, slow, slow):
            seconds[slow].append(timed(other))
    seconds = {name: times[1:] for name, times in seconds.items()}  # the first one warms up
    ratio = median(seconds[slow]) / median(seconds["ours"])
    counted = flops[slow] / flops["ours"]
    return {
        "ratio": ratio,
        "counted_ratio": counted,
        "ratio_over_count": ratio / counted,
        "seconds_per_sample": seconds,
        "flops_per_sample": flops,
        "rounds": rounds,
        "batch": batch,
    }


class checkpointed:  # noqa: N801  a context manager
    """The release's checkpointing for its side."""

    def __init__(self, team: Team, slow: str, side: str) -> None:
        self._team, self._on = team, slow == side == "released"

    def __enter__(self) -> None:
        if self._on:
            release_checkpointing(self._team, True)

    def __exit__(self, *_: object) -> None:
        if self._on:
            release_checkpointing(self._team, False)


def timed(loss: Callable[[], Tensor]) -> float:
    began = time.perf_counter()
    loss().backward()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/outer.json"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--full", action="store_true", help="larger sizes, no time limit")
    args = parser.parse_args()
    base = Size(width=512, layers=8, prompt=400) if args.full else Size()
    found = {}
    for slot in ("late", "first"):
        size = replace(base, text=64, slot_first=slot == "first")
        found[slot] = measure(size, args.rounds, args.batch, args.repeats, "released")
        print(describe(f"released procedure, slot {slot}", found[slot]))
    plain = measure(base, args.rounds, args.batch, args.repeats, "plain")
    print(describe("plain rollout", plain))
    ratios = {
        "outer_vs_released": {slot: of["ratio"] for slot, of in found.items()},
        "outer_vs_released_over_count": {
            slot: of["ratio_over_count"] for slot, of in found.items()
        },
        "outer_rollout_vs_plain": plain["ratio"],
    }
    print(json.dumps(ratios))
    write_json(args.out, ratios | {"released": found, "plain": plain, "environment": environment()})


def measure(size: Size, rounds: int, batch: int, repeats: int, slow: str) -> dict[str, Any]:
    team, links = build(size)
    found = compare(team, links, rows(batch, size), size.latent_length, rounds, repeats, slow)
    return found | {"size": asdict(size)}


def describe(what: str, found: dict[str, Any]) -> str:
    return (
        f"{what}: ours is {found['ratio']:.1f} times as fast per sample; operations predict "
        f"{found['counted_ratio']:.1f}"
    )


if __name__ == "__main__":
    main()
