"""Link health: what is wrong with each link and with what crosses its edge, by name.

Warnings: ``untouched`` (no training reached the link), ``collapsed`` (all rows get nearly the same
message), ``loud`` and ``quiet`` (messages against the target's token embeddings), ``no content``
(another row's messages serve the answer as well as the row's own).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rmas_train.analysis.ablation import Means, at
from rmas_train.analysis.bench import Bench
from rmas_train.analysis.link_report import InspectedLink, neighbours_kept, report
from rmas_train.config import Config
from rmas_train.engine.inputs import LatentMessage
from rmas_train.links.modules import Link

FACTOR = 5.0  # louder or quieter than token embeddings by more than this
VARIATION = 0.01  # share of a collapsed message's power that differs between rows
VECTORS = 512  # that go through a link for its report


class Health:
    """``analyses=[health]``."""

    def __init__(self, config: Config) -> None:
        self._seed = config.seed

    @torch.no_grad()
    def run(self, bench: Bench) -> dict[str, Any]:
        """Plain data, see docs/insight.md: ``edges``, ``links`` and ``warnings``."""
        thoughts, messages = seen(bench)
        norms = {e.target: embedding_norm(bench, e.target) for e in bench.team.topology.edges}
        by_place = [
            {"round": round_, "edge": edge}
            | message_health(thoughts[round_, edge], vectors, norms[edge.split("-")[1]])
            for (round_, edge), vectors in sorted(messages.items())
        ]
        links = self._links(bench, thoughts)
        content = contents(bench, sorted({edge for _, edge in messages}))
        return {
            "places": by_place,
            "links": links,
            "content": content,
            "warnings": warnings_of(by_place, links, content),
        }

    def _links(self, bench: Bench, thoughts: dict[tuple[int, str], Tensor]) -> dict[str, Any]:
        """The report of each outer link that carried something, on what went into it."""
        begun = {} if bench.start is None else bench.start.links()
        inspected = {}
        for key, link in bench.links.outer.items():
            inputs = [x.flatten(0, 1) for (_, edge), x in thoughts.items() if edge == key]
            if not inputs or not isinstance(link, Link):
                continue
            vectors = torch.cat(inputs)[:VECTORS].float()
            what = f"{len(vectors)} of the rows' own thoughts"
            start = begun.get(f"outer.{key}")
            inspected[key] = InspectedLink(link, start=start, inputs=(vectors, what))
        return dict(report(inspected, seed=self._seed)["links"])


def seen(bench: Bench) -> tuple[dict[tuple[int, str], Tensor], dict[tuple[int, str], Tensor]]:
    """(round, edge) -> what its link read, and its messages; (rows, M, D) each."""
    channel_input = bench.team.edge_input
    thoughts: dict[tuple[int, str], list[Tensor]] = defaultdict(list)
    messages: dict[tuple[int, str], list[Tensor]] = defaultdict(list)
    for rows in bench.batches():
        for call in bench.unroll(rows):
            thought = call.latents if channel_input == "inner" else call.hidden
            for edge in call.edges:
                message = call.messages[edge.key]
                assert isinstance(message, LatentMessage) and thought is not None
                thoughts[call.round, edge.key].append(thought.float())
                messages[call.round, edge.key].append(message.vectors.float())
    whole = [{place: torch.cat(x) for place, x in found.items()} for found in (thoughts, messages)]
    return whole[0], whole[1]


def embedding_norm(bench: Bench, name: str) -> float:
    """Median norm of the embeddings of the tokens in an agent's own prompts."""
    agent, prompt = bench.team.agents[name], bench.team.prompts[name]
    ids = {i for encoded in prompt.encode(list(bench.rows), 1, first=True) for i in encoded.ids}
    tokens = torch.tensor(sorted(ids), device=agent.device)
    return float(agent.embed(tokens).float().norm(dim=-1).median())


def message_health(thoughts_BMD: Tensor, vectors_BMD: Tensor, norm: float) -> dict[str, float]:
    """One place's messages.

    ``loudness``: median norm over that of the target's token embeddings. ``variation``: share of
    the power that differs between rows at the same position, and ``variation_before`` that of what
    went into the link. ``cosine``: mean between rows at the same position. ``neighbours_kept``:
    share of rows whose nearest other row is the same before and after. ``effective_rank``: of all
    vectors less their mean.
    """
    flat = [x.flatten(1).cpu() for x in (thoughts_BMD, vectors_BMD)]
    return {
        "loudness": float(vectors_BMD.norm(dim=-1).median()) / norm,
        "variation": variation(vectors_BMD),
        "variation_before": variation(thoughts_BMD),
        "cosine": row_cosine(vectors_BMD),
        "neighbours_kept": neighbours_kept(*flat) if len(vectors_BMD) > 2 else float("nan"),
        "effective_rank": effective_rank(vectors_BMD.flatten(0, 1)),
    }


def variation(x_BMD: Tensor) -> float:
    """Power that differs between rows, over all power; 0: every row has the same."""
    centred = x_BMD - x_BMD.mean(0)
    return float(centred.pow(2).sum() / x_BMD.pow(2).sum().clamp_min(1e-30))


def row_cosine(x_BMD: Tensor) -> float:
    """Mean over positions and pairs of different rows."""
    unit_BMD, rows = F.normalize(x_BMD.double(), dim=-1), len(x_BMD)
    if rows < 2:
        return float("nan")
    return float(((unit_BMD.sum(0).pow(2).sum(-1) - rows) / (rows * (rows - 1))).mean())


def effective_rank(x_ND: Tensor) -> float:
    """Roy and Vetterli (2007): exp of the entropy of the singular values over their sum."""
    values = torch.linalg.svdvals((x_ND - x_ND.mean(0)).double().cpu())
    shares = values / values.sum().clamp_min(1e-30)
    return float(torch.special.entr(shares).sum().exp())


def contents(bench: Bench, edges: list[str]) -> dict[str, dict[str, Any]]:
    """Edge -> how far the gold answer's mean log p falls where rows get the next row's messages.

    In all rounds at once. ``mean`` over rows, and its ``ci95``. Of the gold answer, because a
    message may move what a system says without bringing it nearer to what is right.
    """
    change = Means(bench).change("shuffled")
    falls: dict[str, list[Tensor]] = defaultdict(list)
    for rows in bench.batches():
        ids = bench.gold(rows)
        whole_B = bench.scores(bench.last(rows), ids)
        for edge in edges:
            places = [(round_, edge) for round_ in range(1, bench.config.rounds + 1)]
            changed_B = bench.scores(bench.last(rows, [at(places, change)]), ids)
            falls[edge].append((whole_B - changed_B).cpu())
    return {edge: _mean(torch.cat(found)) for edge, found in falls.items()}


def _mean(falls_N: Tensor) -> dict[str, Any]:
    values = falls_N.double().numpy()
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("inf")
    return {
        "mean": float(values.mean()),
        "ci95": [float(values.mean() + s * 1.96 * error) for s in (-1, 1)],
    }


def warnings_of(
    places: list[dict[str, Any]], links: dict[str, Any], content: dict[str, Any]
) -> list[dict[str, str]]:
    """``edge``, ``name`` and ``why`` of each thing that is wrong."""
    found = [
        {"edge": edge, "name": "untouched", "why": str(link["why"])}
        for edge, link in links.items()
        if link["looks_untouched"]
    ]
    for edge in sorted({place["edge"] for place in places}):
        own = [place for place in places if place["edge"] == edge]
        loudest, quietest = (f(p["loudness"] for p in own) for f in (max, min))
        if loudest > FACTOR or quietest < 1 / FACTOR:
            name, value = ("loud", loudest) if loudest > FACTOR else ("quiet", quietest)
            why = f"messages are {value:.3g} times as loud as the target's token embeddings"
            found.append({"edge": edge, "name": name, "why": why})
        flat = [p for p in own if p["variation"] < min(VARIATION, p["variation_before"] / 10)]
        if flat:
            after, before = (100 * flat[0][key] for key in ("variation", "variation_before"))
            why = (
                f"{after:.2g}% of its messages' power differs between rows in round "
                f"{flat[0]['round']}; {before:.2g}% of what went in does"
            )
            found.append({"edge": edge, "name": "collapsed", "why": why})
        low, high = content[edge]["ci95"]
        if not low > 0:
            why = (
                "with another row's messages on this edge the gold answer's log p falls by "
                f"{content[edge]['mean']:.3g} ({low:.3g} to {high:.3g}), which may be nothing"
            )
            found.append({"edge": edge, "name": "no content", "why": why})
    return found
