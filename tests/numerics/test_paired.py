"""Paired comparisons beside naive statements of them, and on simulated records."""

import itertools
import math

import numpy as np
import pytest
from statsmodels.api import OLS
from statsmodels.stats.contingency_tables import mcnemar

from rmas_train.evaluation.paired import compare, detectable, holm, interval, p_value


def records(rng, n, better, worse, both):
    """Scores of two systems: shares of questions that only a, only b, and both have right."""
    kind = rng.choice(4, size=n, p=[better, worse, both, 1 - better - worse - both])
    return np.isin(kind, (0, 2)).astype(float), np.isin(kind, (1, 2)).astype(float)


def exact_p(better, worse):
    """All sign flips of the questions that differ."""
    seen, count = abs(better - worse), 0
    for signs in itertools.product((1, -1), repeat=better + worse):
        count += abs(sum(signs)) >= seen
    return count / 2 ** (better + worse)


@pytest.mark.parametrize(("better", "worse"), [(7, 1), (5, 4), (0, 6), (3, 3)])
def test_mid_p_is_the_exact_one_less_half_of_what_was_seen(better, worse):
    a = [1] * better + [0] * worse + [1] * 20
    b = [0] * better + [1] * worse + [1] * 20
    found = compare(a, b)
    exact = exact_p(better, worse)
    assert exact == pytest.approx(mcnemar([[20, better], [worse, 0]], exact=True).pvalue)
    both = better + worse
    seen = math.comb(both, better) / 2**both * (1 if better == worse else 2)
    assert found.p == pytest.approx(1.0 if better == worse else exact - seen / 2)
    assert (found.better, found.worse, found.n) == (better, worse, 20 + both)
    assert found.difference == pytest.approx((better - worse) / found.n)


def test_shared_sources_are_the_librarys_clustered_errors():
    rng = np.random.default_rng(1)
    sources = rng.integers(12, size=60)
    a, b = rng.random(60), rng.random(60)
    found = compare(a, b, sources.tolist())
    fitted = OLS(a - b, np.ones(60)).fit(
        cov_type="cluster", cov_kwds={"groups": sources, "use_correction": True}, use_t=True
    )
    correct = math.sqrt((60 - 1) / 60)  # the library's correction for the fitted mean as well
    half = (found.ci95[1] - found.ci95[0]) / 2
    assert half == pytest.approx(fitted.bse[0] / correct * 2.2009851600, rel=0.02)
    assert found.sources == 12


def test_the_bootstrap_is_the_naive_one():
    rng = np.random.default_rng(2)
    a, b = records(rng, 80, 0.2, 0.1, 0.3)
    found = compare(a, b, seed=3)
    draw, means = np.random.default_rng(3), []
    for _ in range(10):
        for rows in draw.integers(80, size=(200, 80)):
            means.append(np.mean([a[i] - b[i] for i in rows]))
    assert found.ci95_bootstrap == pytest.approx(np.quantile(means, [0.025, 0.975]))


def test_holm_is_the_naive_one():
    p = [0.04, 0.001, 0.2, 0.012]
    adjusted, highest = [0.0] * 4, 0.0
    for rank, i in enumerate(sorted(range(4), key=p.__getitem__)):
        highest = max(highest, min(1.0, p[i] * (4 - rank)))
        adjusted[i] = highest
    assert holm(p) == pytest.approx(adjusted)
    assert holm([]) == []


@pytest.mark.parametrize(
    ("n", "disagree", "both"), [(200, 0.3, 0.4), (100, 0.1, 0.8), (500, 0.05, 0.5)]
)
def test_no_difference_is_found_in_five_percent(n, disagree, both):
    rng, trials = np.random.default_rng(4), 1000
    pairs = [records(rng, n, disagree / 2, disagree / 2, both) for _ in range(trials)]
    own = np.arange(n)
    p = np.array([p_value(a - b, own) for a, b in pairs])
    error = math.sqrt(0.05 * 0.95 / trials)
    assert (p < 0.05).mean() < 0.05 + 3 * error
    assert (p < 0.05).mean() > 0.02, "not timid either"
    covered = np.mean([lo <= 0 <= hi for lo, hi in (interval(a - b, own) for a, b in pairs)])
    assert covered > 0.95 - 3 * error


@pytest.mark.parametrize(("n", "disagree"), [(200, 0.2), (1000, 0.1), (60, 0.5)])
def test_the_stated_difference_is_found_in_eighty_percent(n, disagree):
    delta = detectable(n, disagree)
    share = max(disagree, delta)
    rng, trials = np.random.default_rng(5), 600
    better, worse = (share + delta) / 2, (share - delta) / 2
    pairs = [records(rng, n, better, worse, 0.3) for _ in range(trials)]
    power = np.mean([p_value(a - b, np.arange(n)) < 0.05 for a, b in pairs])
    assert abs(power - 0.8) < 3 * math.sqrt(0.16 / trials) + 0.02
    found = [interval(a - b, np.arange(n)) for a, b in pairs]
    covered = np.mean([low <= delta <= high for low, high in found])
    assert covered > 0.95 - 3 * math.sqrt(0.05 * 0.95 / trials)


def test_questions_of_one_source_count_as_little_as_they_are():
    """Ten copies of each question: the level holds only if sources are known."""
    rng, wrong, right = np.random.default_rng(6), 0, 0
    for _ in range(300):
        a, b = records(rng, 40, 0.15, 0.15, 0.3)
        gains = np.repeat(a - b, 10)
        wrong += p_value(gains, np.arange(400)) < 0.05
        right += p_value(gains, np.repeat(np.arange(40), 10)) < 0.05
    known = compare(np.repeat(a, 10), np.repeat(b, 10), np.repeat(np.arange(40), 10).tolist())
    assert known.detectable > compare(np.repeat(a, 10), np.repeat(b, 10)).detectable
    assert wrong / 300 > 0.3 and right / 300 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize(
    ("a", "b", "sources"), [([], [], None), ([1], [1, 0], None), ([1], [1], [])]
)
def test_what_cannot_be_paired_is_refused(a, b, sources):
    with pytest.raises(ValueError, match="cannot be paired"):
        compare(a, b, sources)


def test_all_equal_and_one_source():
    same = compare([1, 0, 1], [1, 0, 1])
    assert same.p == 1.0 and same.difference == 0 and same.ci95[0] < 0 < same.ci95[1]
    one = compare([1, 1, 1], [0, 0, 0], ["x"] * 3)
    assert one.ci95 == (-1.0, 1.0) and one.p > 0.9
