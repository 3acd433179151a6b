"""Malformed inputs through the entry point: a one-line error, or a right result."""

import pytest

from hostile.generate import KINDS, ORDER, covered, make_case
from hostile.harness import run_cases

SHORT, LONG = 2 * len(ORDER), 50 * len(ORDER)


def check(found):
    shown = [f"{f['index']} {f['kind']}: {f['name']}: {f['problems']}" for f in found["failures"]]
    assert not shown, "\n".join(shown)
    assert found["ok_results"] + found["one_line_errors"] == found["cases"]


def test_a_seed_and_an_index_say_all():
    for index in range(0, 400, 7):
        once, again = make_case(3, index).to_json(), make_case(3, index).to_json()
        assert repr(once) == repr(again)  # repr: NaN is not equal to itself
    assert repr(make_case(3, 1).to_json()) != repr(make_case(4, 1).to_json())


def test_every_damage_is_among_the_cases():
    labels = {(c.kind, c.name.split(":")[0]) for c in (make_case(0, i) for i in range(LONG))}
    wanted = {(k, label.replace(" ", "_")) for k, of in covered().items() for label in of}
    assert labels == wanted and set(ORDER) == set(KINDS)


@pytest.mark.slow
def test_a_few_of_every_kind(tmp_path):
    """Every tenth round through the kinds, so that their damages vary too."""
    size = len(ORDER)
    indices = [size * (7 * i % 50) + j for i in range(SHORT // size) for j in range(size)]
    found = run_cases((make_case(0, i) for i in indices), tmp_path)
    assert found["cases"] == SHORT
    check(found)


@pytest.mark.slow
def test_many(tmp_path):
    """Other cases than those in docs/results/malformed.json."""
    found = run_cases((make_case(1, i) for i in range(LONG)), tmp_path)
    assert found["cases"] == LONG
    check(found)
