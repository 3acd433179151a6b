"""The release's procedure against ours on real small models: same work, one process.

    python benchmarks/released.py --small FOLDER [--out docs/results/bench_released.json]

Rollout: every call of an unroll of R = 2 rounds with 16 latent steps, a batch of questions. The
release runs the whole sequences again for each latent step. Teacher-forced step: forward and
backward, R = 3, the first 80 states of each text, sample by sample (``outer.released_loss``).
Latent steps and losses have to be equal; sides alternate; medians; peaks are resident memory above
the level before. The release reads whole texts and sends their first states, so the ratio of the
step depends on their length: operations are counted for several.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from memory import resident
from outer import compare, release_checkpointing, released_loss
from rollout import rerun
from torch import Tensor

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import Prompt
from rmas_train.channels import LatentChannel
from rmas_train.config import AgentConfig, EdgeConfig, LinksConfig, TopologyConfig
from rmas_train.data.rows import Table
from rmas_train.engine.inputs import LatentMessage, embed_prompts, positions
from rmas_train.engine.loading import load_agent
from rmas_train.links.link_set import LinkSet, draw_links
from rmas_train.links.modules import Link
from rmas_train.objectives.outer import OuterObjective
from rmas_train.objectives.outer_options import Backward
from rmas_train.planning.cost import Counter
from rmas_train.recursion import Recursion, Team
from rmas_train.runs.session import environment
from rmas_train.support.files import write_json
from rmas_train.topology import build_topology

MODELS = {"planner": "qwen_coder", "critic": "gemma3", "solver": "smollm2"}
BASE_MODELS = ("gemma3",)  # without a chat template
# Slots where the release has them: the planner's and the critic's after the question, the solver's
# before it.
PROMPTS = {
    "planner": "Make a plan.\n<<question>>\nFeedback:\n<<message:solver>>\nSteps:",
    "critic": "Mend the plan.\n<<question>>\nPlan:\n<<message:planner>>\nSteps:",
    "solver": "Follow the plan:\n<<message:critic>>\n<<question>>\nGive the answer.",
}
TEXTS = {"planner": "plan", "critic": "refined_plan", "solver": "answer"}
WORDS = "the a one two three train apple river costs leaves takes more than less each hour day of"
ROLLOUT_ROUNDS, ROLLOUT_LENGTH = 2, 16
STEP_ROUNDS, STEP_LENGTH = 3, 80
COUNTED_WORDS = (100, 300, 900)
EQUAL = 1e-3  # relative, float32


def build(folder: Path) -> tuple[Team, LinkSet]:
    """The three models in a loop with freshly drawn links, float32; messages are as loud as
    embeddings."""
    device = torch.device("cpu")
    agents = {}
    for name, model in MODELS.items():
        template = "plain" if model in BASE_MODELS else None
        options = AgentConfig(model=str(folder / model), dtype="float32", template=template)
        agents[name] = load_agent(name, options, device)
    order = list(MODELS)
    pairs = zip(order, [*order[1:], order[0]], strict=True)
    edges = [EdgeConfig(source=a, target=b, next_round=b == order[0]) for a, b in pairs]
    config = TopologyConfig(name="sequential", order=order, edges=edges, decoder=order[-1])
    topology = build_topology(config, agents)
    prompts = {name: Prompt(agents[name], {"user": text}) for name, text in PROMPTS.items()}
    widths = {name: agent.width for name, agent in agents.items()}
    norms = {name: embedding_norm(agent) for name, agent in agents.items()}
    links = draw_links(LinksConfig(init="default"), topology, widths, norms, seed=0)
    return Team(agents, prompts, topology), links


@torch.no_grad()
def embedding_norm(agent: Agent) -> float:
    """Median norm of the agent's token embeddings."""
    ids = torch.arange(0, len(agent.tokenizer), 100)
    return float(agent.embed(ids).norm(dim=-1).median())


def rows(count: int, words: int = 300) -> Table:
    """Questions of 150 words, and texts of so many."""
    rng = random.Random(0)

    def text(length: int) -> str:
        return " ".join(rng.choice(WORDS.split()) for _ in range(length))

    found = [
        {"question": text(150)} | {column: text(words) for column in TEXTS.values()}
        for _ in range(count)
    ]
    return Table(Path("made.jsonl"), found)


@torch.no_grad()
def ours(team: Team, links: LinkSet, table: Table) -> list[Tensor]:
    """All messages of the rollout, in the order of calls."""
    channel = LatentChannel.of(team, links, ROLLOUT_LENGTH, in_buffer=True)  # as in evaluation
    recursion = Recursion(team, channel)
    found = []
    for call in recursion.unroll(table.rows, ROLLOUT_ROUNDS):
        found += [x for message in call.messages.values() for x in message.tensors()]
    return found


@torch.no_grad()
def released(team: Team, links: LinkSet, table: Table) -> list[Tensor]:
    """The same messages; every latent step runs the whole sequences again."""
    inbox: dict[str, LatentMessage] = {}
    found = []
    for round_, name in team.topology.live_calls(ROLLOUT_ROUNDS)[:-1]:
        agent, inner = team.agents[name], links.inner[name]
        assert isinstance(inner, Link)
        prompts = team.prompts[name].encode(list(table.rows), round_, first=not inbox)
        slots = {source: message.slot(agent) for source, message in inbox.items()}
        latents = rerun(agent, inner, embed_prompts(agent, prompts, slots), ROLLOUT_LENGTH)
        (edge,) = team.topology.outgoing(name)
        found.append(links.outer[edge.key](latents))
        inbox = {name: LatentMessage(found[-1])}
    return found


@torch.no_grad()
def step_errors(team: Team, links: LinkSet, table: Table) -> list[float]:
    """Per call, how far our latents are from what the release's step makes of the same ones before.

    One forward over prompt and latents holds all steps. Left to themselves, the two sides come
    apart where an agent's rollout is chaotic, as Gemma's is with links that are not trained.
    """
    recursion = Recursion(team, LatentChannel.of(team, links, ROLLOUT_LENGTH, in_buffer=True))
    inbox: dict[str, LatentMessage] = {}
    found = []
    for call in recursion.unroll(table.rows, ROLLOUT_ROUNDS):
        if not call.messages:
            continue
        agent = team.agents[call.agent]
        prompts = team.prompts[call.agent].encode(list(table.rows), call.round, first=not inbox)
        slots = {source: message.slot(agent) for source, message in inbox.items()}
        batch = embed_prompts(agent, prompts, slots)
        assert call.latents is not None
        embeds = torch.cat([batch.embeds, call.latents[:, :-1]], dim=1)
        real = torch.cat([batch.real, batch.real.new_ones(call.latents[:, 1:].shape[:2])], dim=1)
        hidden = agent.hidden(embeds, positions(real), real)[:, -ROLLOUT_LENGTH:]
        found.append(relative(call.latents, links.inner[call.agent](hidden)))
        ((key, message),) = call.messages.items()
        assert isinstance(message, LatentMessage)
        assert relative(message.vectors, links.outer[key](call.latents)) < EQUAL
        inbox = {call.agent: message}
    return found


def relative(one: Tensor, other: Tensor) -> float:
    """Norm of the difference over the norm."""
    return ((one - other).norm() / other.norm()).item()


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and seconds."""
    begun = time.perf_counter()
    return run(), time.perf_counter() - begun


def peak(run: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and GiB at the peak, above the level before."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed before is no part of the level
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    return run(), (resident("VmHWM") - before) / 2**30


def measure_rollout(team: Team, links: LinkSet, table: Table, repeats: int) -> dict[str, Any]:
    sides = {"ours": ours, "released": released}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    peaks, messages = {}, {}
    ours(team, links, Table(table.path, table.rows[:1]))
    for _ in range(repeats):
        for name, side in sides.items():
            whole = partial(timed, partial(side, team, links, table))
            (messages[name], second), peaks[name] = peak(whole)
            seconds[name].append(second)
    steps = step_errors(team, links, table)
    assert max(steps) < EQUAL, steps
    pairs = zip(*messages.values(), strict=True)
    apart = [relative(one, other) for one, other in pairs]
    return {
        "ratio": median(seconds["released"]) / median(seconds["ours"]),
        "seconds": seconds,
        "peak_gib": peaks,
        "relative_error_of_a_step": steps,
        "relative_error_of_messages": apart,
        "rounds": ROLLOUT_ROUNDS,
        "latent_length": ROLLOUT_LENGTH,
        "rows": len(table.rows),
    }


def measure_step(team: Team, links: LinkSet, table: Table, repeats: int) -> dict[str, Any]:
    found = compare(team, links, table, STEP_LENGTH, STEP_ROUNDS, repeats, "released")

    def sample_by_sample() -> None:
        release_checkpointing(team, True)
        for row in table.rows:
            released_loss(team, links, row, STEP_ROUNDS, STEP_LENGTH).backward()
        release_checkpointing(team, False)

    peaks = {"released": peak(sample_by_sample)[1]}
    one = Table(table.path, table.rows[:1])
    ways = {"ours": (table, False), "recomputed": (table, True), "recomputed, one row": (one, True)}
    seconds = {}
    for name, (given, recompute) in ways.items():
        whole = partial(timed, partial(our_step, team, links, given, recompute))
        (_, second), peaks[name] = peak(whole)
        seconds[name] = second / len(given.rows)
    again = {"seconds_per_sample_by_way": seconds, "peak_gib": peaks}
    return found | again | {"latent_length": STEP_LENGTH}


def our_step(team: Team, links: LinkSet, table: Table, recompute: bool = False) -> None:
    objective = OuterObjective(
        team,
        links,
        table,
        STEP_ROUNDS,
        STEP_LENGTH,
        role_texts=TEXTS,
        backward=Backward(recompute=recompute),
    )
    objective(list(range(len(table.rows))), STEP_ROUNDS).sum().backward()


def counted(team: Team, links: LinkSet, words: int) -> float:
    """The release's operations over ours, for one sample with texts of so many words."""
    table = rows(1, words)
    with Counter([]) as own:
        our_step(team, links, table)
    release_checkpointing(team, True)
    with Counter([]) as theirs:
        released_loss(team, links, table.rows[0], STEP_ROUNDS, STEP_LENGTH).backward()
    release_checkpointing(team, False)
    return sum(theirs.cost.flops.values()) / sum(own.cost.flops.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=Path, required=True, help="folder with the small models")
    parser.add_argument("--rows", type=int, default=8, help="of the rollout's batch")
    parser.add_argument("--step_rows", type=int, default=2, help="of the step's; release: 2")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/results/bench_released.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    team, links = build(args.small)
    rollout = measure_rollout(team, links, rows(args.rows), args.repeats)
    print(f"rollout: {rollout['ratio']:.1f} times, peaks {rollout['peak_gib']}", flush=True)
    step = measure_step(team, links, rows(args.step_rows), args.repeats)
    print(f"step: {step['ratio']:.1f} times, peaks {step['peak_gib']}", flush=True)
    step["counted_by_words_of_texts"] = {n: counted(team, links, n) for n in COUNTED_WORDS}
    ratios = {"rollout": rollout["ratio"], "teacher_forced_step": step["ratio"]}
    found = {"ratios": ratios, "rollout": rollout, "teacher_forced_step": step}
    about = {"models": MODELS, "dtype": "float32", "threads": args.threads}
    write_json(args.out, found | about | {"environment": environment()})


if __name__ == "__main__":
    main()
