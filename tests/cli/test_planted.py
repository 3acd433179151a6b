"""Verdicts and health of systems whose channel is known, and of links with planted faults."""

import copy
import json
from pathlib import Path

import pytest

import rmas_train
from rmas_train.__main__ import main
from rmas_train.analysis.bench import Bench
from rmas_train.analysis.health import Health
from rmas_train.compose import compose
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


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The relay's aligned start carries content. Links that begin without any and learn from the
    messages of other rows have seen the answer's format and no content."""
    folder = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*FEW, "run_dir=good"]) == 0
        stop_log()
        bad = ["links.init=default", "training.outer.messages=shuffled", "training.outer.lr=5e-4"]
        assert main([*FEW, *bad, "run_dir=bad", "inner=good/inner/links"]) == 0
        stop_log()
        yield folder


@pytest.mark.slow
def test_the_verdict_on_a_planted_channel(runs):
    good, bad = verdicts_of(runs / "good"), verdicts_of(runs / "bad")
    for rounds in (1, 2):
        assert good[rounds]["content"] and good[rounds]["ci95"][0] > 0.1
        assert good[rounds]["line"].startswith("the channel brings +")
        assert not bad[rounds]["content"]
        assert bad[rounds]["line"].startswith("no content shown")


def warnings(run, change=None):
    """{(edge, name)} that the health report warns of; ``change``: plants a fault in the links."""
    system, start = rmas_train.load(run), rmas_train.load(run / "outer" / "start").links
    options = ["stage=analyse", f"run={run}", "data.recipe=relay", "rounds=2"]
    config = compose([*options, "evaluation.batch_size=100"])
    lines = (Path(config.data.folder) / "test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:100]]
    links = copy.deepcopy(system.links)
    if change is not None:
        change(links, start)
    found = Health(config).run(Bench(config, system.team, links, rows, start))
    return {(one["edge"], one["name"]) for one in found["warnings"]}


def untouched(links, start):
    links.outer["planner-critic"].load_state_dict(start.outer["planner-critic"].state_dict())


def collapsed(links, _):
    link = links.outer["critic-solver"]
    for layer in (link.residual_proj, link.proj2):
        layer.weight.data.mul_(1e-4)
    link.residual_proj.bias.data.normal_()


def loud(links, _):
    links.outer["solver-planner"].scale.mul_(50)


FAULTS = {
    "untouched": (untouched, "planner-critic"),
    "collapsed": (collapsed, "critic-solver"),
    "loud": (loud, "solver-planner"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named(runs, name):
    change, edge = FAULTS[name]
    assert (edge, name) in warnings(runs / "good", change)


@pytest.mark.slow
def test_a_good_system_raises_no_warning_and_one_without_content_does(runs):
    assert warnings(runs / "good") == set()
    named = {name for _, name in warnings(runs / "bad")}
    assert "no content" in named
