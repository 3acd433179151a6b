"""Verdicts on systems whose channel is known: one that carries content, and one that cannot."""

import json

import pytest

from rmas_train.__main__ import main
from rmas_train.support.output import stop_log

SYSTEMS = "evaluation.systems=[null,shuffled,mean,noise,rotation,decoder_alone]"
FEW = [
    *("experiment=relay", "rounds=2", "training.inner.steps=100", "training.outer.steps=40"),
    *("data.recipe_options.train=4000", "evaluation.max_rows=300", SYSTEMS),
]


@pytest.fixture(autouse=True)
def logs():
    yield
    stop_log()


def verdicts_of(run):
    results = json.loads((run / "results.json").read_text())
    return {one["rounds"]: one for one in results["verdicts"]}


@pytest.mark.slow
def test_the_verdict_on_a_planted_channel(tmp_path, monkeypatch):
    """The relay's aligned start carries content. Links that begin without any and learn from the
    messages of other rows have seen the answer's format and no content."""
    monkeypatch.chdir(tmp_path)
    assert main([*FEW, "run_dir=good"]) == 0
    stop_log()
    bad = ["links.init=default", "training.outer.messages=shuffled", "training.outer.lr=5e-4"]
    assert main([*FEW, *bad, "run_dir=bad", "inner=good/inner/links"]) == 0
    good, bad = verdicts_of(tmp_path / "good"), verdicts_of(tmp_path / "bad")
    for rounds in (1, 2):
        assert good[rounds]["content"] and good[rounds]["ci95"][0] > 0.1
        assert good[rounds]["line"].startswith("the channel brings +")
        assert not bad[rounds]["content"]
        assert bad[rounds]["line"].startswith("no content shown")
