"""Links against naive statements of their formulas, in float64."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from rmas_train.errors import ConfigError, LowRankWarning
from rmas_train.links import start
from rmas_train.links.modules import Link, make_link
from rmas_train.links.start import Moments, Pairs, align_outer, held_out_cosine, ridge
from rmas_train.registry import LINK_VARIANTS

VARIANTS = ["ln_res_2layer", "linear", "linear_res", "2layer", "res_2layer"]


def naive(link: Link, x: torch.Tensor) -> torch.Tensor:
    """The formula, written out, from the parameters alone."""
    p = dict(link.named_parameters())
    h = x
    if link.variant == "ln_res_2layer":
        mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        h = (x - mean) / torch.sqrt(var + 1e-5) * p["pre_ln.weight"] + p["pre_ln.bias"]
    y = h @ p["proj1.weight"].T + p["proj1.bias"]
    if "2layer" in link.variant:
        y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
        y = y @ p["proj2.weight"].T + p["proj2.bias"]
    if "res" in link.variant:
        w3 = x @ p["residual_proj.weight"].T + p["residual_proj.bias"] if link.outer else x
        y = y + w3
    if link.variant == "ln_res_2layer":
        mean, var = y.mean(-1, keepdim=True), y.var(-1, unbiased=False, keepdim=True)
        y = (y - mean) / torch.sqrt(var + 1e-5) * p["post_ln.weight"] + p["post_ln.bias"]
    return y


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_link_is_its_formula(variant, outer):
    torch.manual_seed(0)
    width = 7 if outer else 5
    link = make_link(5, width, outer=outer, variant=variant, norm="none").double()
    for p in link.parameters():
        torch.nn.init.normal_(p, std=0.5)
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(link(x), naive(link, x), rtol=1e-12, atol=1e-12)


def test_the_released_outer_link_is_twice_as_wide_in_the_middle():
    assert make_link(5, 7, outer=True).proj1.out_features == 14
    assert make_link(5, 7, outer=True, variant="res_2layer").proj1.out_features == 7
    assert make_link(5, 5, outer=False).proj1.out_features == 5


@pytest.mark.parametrize("variant", VARIANTS)
def test_match_embedding_gives_the_target_norm(variant):
    link = make_link(16, 16, outer=True, variant=variant, norm="match_embedding", target_norm=2.5)
    norms = link(100 * torch.randn(50, 16)).norm(dim=-1)
    torch.testing.assert_close(norms, torch.full((50,), 2.5), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_links_compute_in_float32_whatever_comes_in(dtype):
    link = make_link(6, 6, outer=False)
    x = torch.randn(4, 6).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = link(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, link(x.float()), rtol=0, atol=0)


def test_ridge_is_the_minimum_of_its_penalised_squares():
    torch.manual_seed(0)
    x, y = torch.randn(40, 6).double(), torch.randn(40, 3).double()
    weight, bias = ridge(Moments.of(Pairs(x, y)), 0.1)
    penalty = 0.1 * (x - x.mean(0)).pow(2).sum() / 6
    w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    ((x @ w.T + b - y).pow(2).sum() + penalty * w.pow(2).sum()).backward()
    assert w.grad.abs().max() < 1e-8
    assert b.grad.abs().max() < 1e-8


def test_the_aligned_start_recovers_a_linear_map_and_says_so_on_held_out_tokens():
    torch.manual_seed(0)
    source = torch.randn(300, 12)
    target = F.layer_norm(source @ torch.randn(12, 20), (20,)) * 0.3
    link = make_link(12, 20, outer=True, target_norm=0.3 * math.sqrt(20))
    pairs = Pairs(source, target)
    align_outer(link, pairs, 1e-6)
    assert link.proj2.weight.abs().max() == 0
    assert torch.cosine_similarity(link(source), target).mean() > 0.99
    assert held_out_cosine(pairs, link, 1e-6) > 0.98
    random = Pairs(source, torch.randn(300, 20))
    assert held_out_cosine(random, link, 1e-2) < 0.2


def test_moments_by_blocks_and_folds_are_those_of_the_pairs(monkeypatch):
    """Held-out cosine subtracts a fold's sums; naively, every fold is fitted from its own pairs."""
    torch.manual_seed(0)
    pairs = Pairs(torch.randn(60, 5), torch.randn(60, 3))
    link = make_link(5, 3, outer=True, target_norm=1.0)
    monkeypatch.setattr(start, "BLOCK", 7)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    found = []
    for fold in range(5):
        test, trial = order[fold::5], copy.deepcopy(link)
        train = torch.tensor([i for i in range(60) if i not in test.tolist()])
        align_outer(trial, pairs.take(train), 0.1)
        with torch.no_grad():
            out = trial(pairs.source[test])
        found.append(torch.cosine_similarity(out, pairs.target[test], dim=-1))
    naive_cosine = torch.cat(found).mean().item()
    assert held_out_cosine(pairs, link, 0.1) == pytest.approx(naive_cosine, abs=1e-6)


def test_one_model_at_both_ends_starts_with_the_identity():
    torch.manual_seed(0)
    embeds = torch.randn(40, 64)  # fewer pairs than directions: a fit would miss most of them
    link = make_link(64, 64, outer=True, target_norm=8.0)
    align_outer(link, Pairs(embeds, embeds), 1e-2)
    assert torch.equal(link.residual_proj.weight, torch.eye(64))
    assert held_out_cosine(Pairs(embeds, embeds), link, 1e-2) > 0.97


def test_too_few_pairs_for_the_width_are_told():
    torch.manual_seed(0)
    link = make_link(64, 48, outer=True)
    with pytest.warns(LowRankWarning, match="20 pairs.*at most 19 of 48"):
        start.warn_of_rank("a-b", link, Pairs(torch.randn(20, 64), torch.randn(20, 48)))


def test_hidden_units_of_an_aligned_branch_differ_and_learn():
    link = make_link(8, 8, outer=True)
    align_outer(link, Pairs(torch.randn(50, 8), torch.randn(50, 8)), 1e-2)
    assert torch.linalg.matrix_rank(link.proj1.weight) == 8
    optimizer = torch.optim.SGD(link.parameters(), lr=0.1)
    for _ in range(2):  # a zero last layer passes no gradient in the first step
        optimizer.zero_grad()
        link(torch.randn(9, 8)).pow(3).sum().backward()
        optimizer.step()
    assert all(p.grad.abs().sum() > 0 for p in link.parameters())


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "2layer"])
def test_an_aligned_inner_link_starts_as_the_identity(variant):
    link = make_link(8, 8, outer=False, variant=variant, norm="none")
    link.start_inner()
    x = torch.randn(5, 8)
    expected = F.layer_norm(x, (8,)) if variant == "ln_res_2layer" else x
    torch.testing.assert_close(link(x), expected)


def test_a_variant_that_keeps_its_main_path_cannot_have_a_readout(monkeypatch):
    class Keeps(Link):
        def __init__(self, d_source, d_target, **options):
            super().__init__(d_source, d_target, **options)
            self.whole = torch.nn.Linear(d_source, d_target)

        def body(self, x):
            return self.whole(x)

        @property
        def main_path(self):
            return self.whole

    monkeypatch.setitem(LINK_VARIANTS._found, "keeps", Keeps)
    assert make_link(4, 4, outer=True, variant="keeps", norm="none").variant == "keeps"
    with pytest.raises(ConfigError, match="variant=keeps keeps a main path"):
        make_link(4, 4, outer=True, variant="keeps", norm="none", has_readout=True)
