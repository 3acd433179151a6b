"""The link report's numbers against loops in float64."""

import math

import torch

from rmas_train.analysis.link_report import (
    InspectedLink,
    branch_over_residual,
    mean_cosine,
    neighbours_kept,
    proxy_inputs,
    report,
    statistics,
)
from rmas_train.links.modules import make_link


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


def test_collapse_is_what_it_says():
    torch.manual_seed(0)
    before, after = torch.randn(9, 5), torch.randn(9, 4)
    pairs = [cosine(a, b) for i, a in enumerate(after) for j, b in enumerate(after) if i != j]
    assert math.isclose(mean_cosine(after), sum(pairs) / len(pairs), abs_tol=1e-12)
    nearest = []
    for vectors in (before, after):
        scores = [[cosine(a, b) for b in vectors] for a in vectors]
        nearest.append(
            [max((j for j in range(9) if j != i), key=s.__getitem__) for i, s in enumerate(scores)]
        )
    kept = sum(a == b for a, b in zip(*nearest, strict=True)) / 9
    assert math.isclose(neighbours_kept(before, after), kept)
    assert neighbours_kept(before, 3 * before) == 1


@torch.no_grad()
def test_branch_over_residual_is_what_it_says():
    torch.manual_seed(0)
    link, x = make_link(6, 8, outer=True).double(), torch.randn(7, 6, dtype=torch.float64)
    ratios = []
    for row in x:
        branch = link.proj2(torch.nn.functional.gelu(link.proj1(link.pre_ln(row))))
        ratios.append(float(branch.norm() / link.residual_proj(row).norm()))
    assert math.isclose(branch_over_residual(link, x), sum(ratios) / 7, rel_tol=1e-9)


def draw(seed):
    torch.manual_seed(seed)
    return make_link(48, 64, outer=True, norm="layernorm").requires_grad_(False)


def test_fresh_links_are_flagged_and_links_that_moved_are_not():
    for seed in range(6):
        assert report({"a": InspectedLink(draw(seed))})["links"]["a"]["looks_untouched"]
    edits = {
        "closing bias": lambda k: k.post_ln.bias[0].add_(1e-3),
        "closing gain": lambda k: k.post_ln.weight[0].add_(1e-3),
        "W3": lambda k: k.residual_proj.weight.add_(0.1),
        "branch": lambda k: k.proj2.weight.mul_(4),
    }
    for edit in edits.values():
        link = draw(0)
        edit(link)
        assert not report({"a": InspectedLink(link)})["links"]["a"]["looks_untouched"]


def test_a_collapsing_link_is_seen():
    link = draw(0)
    healthy = statistics(link, proxy_inputs(48, 0))
    link.residual_proj.bias.add_(20.0 * torch.randn(64))
    collapsed = statistics(link, proxy_inputs(48, 0))
    # At these widths a drawn link keeps about half; chance is one in 511.
    assert healthy["neighbours_kept"] > 0.3 and abs(healthy["cosine_out"]) < 0.3
    assert collapsed["cosine_out"] > 0.9


def test_the_random_state_is_left_alone():
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    link = InspectedLink(draw(0))
    torch.manual_seed(5)
    report({"a": link})
    assert torch.equal(torch.rand(1), wanted)
