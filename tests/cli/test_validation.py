"""Validation during training: against naive statements, kept over a kill, best links kept."""

import json
from pathlib import Path

import pytest
import torch
from tiny import write_rows

from rmas_train.__main__ import main
from rmas_train.agents.prompts import tokenise_whole
from rmas_train.compose import compose
from rmas_train.errors import ConfigError, SilentChannelWarning
from rmas_train.links.restore import restore_links
from rmas_train.recursion import last_call
from rmas_train.runs.evaluated import read_links
from rmas_train.runs.load import load_run
from rmas_train.runs.starting_links import drawn_links
from rmas_train.runtime.runtime import Runtime
from rmas_train.stages.train import check_layout
from rmas_train.stages.validation import warn_of_silence
from rmas_train.support.output import stop_log
from rmas_train.systems.controls import derangement
from rmas_train.systems.latent import System

pytestmark = pytest.mark.filterwarnings("ignore:at rounds=")  # three steps teach nothing
MORE = ["training.outer.validate_every=2", "training.outer.validate_rows=5", "data.valid=v.jsonl"]


@pytest.fixture
def typed(overrides, workspace):
    folder = next(Path(o.split("=", 1)[1]) for o in overrides if o.startswith("data.folder="))
    write_rows(folder / "v.jsonl", 6, first=500)
    return [*overrides, *MORE]


def lines(workspace):
    text = (workspace / "run" / "outer" / "validation.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def run(typed, *more):
    code = main([*typed, *more])
    stop_log()
    return code


def test_lines_are_what_the_links_of_that_step_give(typed, workspace, capsys):
    assert run(typed, "stage=inner") == 0
    assert run(typed, "stage=outer") == 0
    found = lines(workspace)
    assert [line["steps"] for line in found] == [0, 2, 3]
    folders = {0: "outer/start", 3: "outer/links"}
    config = compose([*typed, "stage=outer"])
    loaded = load_run(config, Runtime(config.runtime), None, None)
    rows = loaded.tables.valid.rows[:5]
    for line in (found[0], found[2]):
        folder = workspace / "run" / folders[line["steps"]]
        links = read_links(loaded, folder, drawn_links(loaded))
        for depth, figures in line["by_depth"].items():
            within = [row for row in rows if row["rounds_needed"] <= int(depth)]
            own, other, tokens = naive_losses(config, loaded, links, within, int(depth))
            assert figures["n"] == len(within)
            assert figures["loss"] == pytest.approx(own / tokens, rel=1e-5)
            assert figures["shuffled_loss"] == pytest.approx(other / tokens, rel=1e-5)


def naive_losses(config, loaded, links, rows, depth):
    """The loss of each row by itself; and of all rows, each with the messages of another one."""
    system = System(loaded.team, links, depth, config.latent_length)
    decoder, order = loaded.team.agents["solver"], derangement(len(rows), config.seed)
    answers = tokenise_whole(decoder, [row["answer"] for row in rows])
    swap = [lambda message, edge, round_: message.rows(order)]
    with torch.no_grad():
        own = [
            float(last_call(system.unroll([row], depth)).answer_loss([answer]))
            for row, answer in zip(rows, answers, strict=True)
        ]
        other = last_call(system.unroll(rows, depth, interventions=swap)).answer_loss(answers)
    return sum(own), float(other), sum(map(len, answers))


@pytest.mark.slow
def test_the_best_links_are_kept_and_chosen(typed, workspace, capsys):
    assert run(typed, "training.outer.select=best", "training.outer.lr=0.5") == 0
    found = lines(workspace)
    best = min(found, key=lambda line: (-line["accuracy"], line["loss"]))
    assert [line["steps"] for line in found if line["best"]][-1] == best["steps"]
    card, _, kept = restore_links(workspace / "run" / "outer" / "best")
    assert card.identity["step"] == best["steps"]
    _, _, final = restore_links(workspace / "run" / "outer" / "links")
    for a, b in zip(kept.parameters(), final.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("error")
def test_a_channel_that_brings_nothing_is_told():
    with pytest.warns(SilentChannelWarning, match="rounds=2.*0.7140 with a row's own.*0.7139"):
        warn_of_silence(2, {"loss": 0.714, "shuffled_loss": 0.7139, "n": 29})
    warn_of_silence(2, {"loss": 0.714, "shuffled_loss": 0.9, "n": 29})
    warn_of_silence(2, {"loss": 0.714, "shuffled_loss": 0.714, "n": 1})


def test_validation_is_refused_where_links_are_sharded():
    config = compose(["training.outer.validate_every=2", "data.valid=v.jsonl"])
    with pytest.raises(ConfigError, match="validate_every=2 with runtime.backend=zero3"):
        check_layout(config, "zero3", "replicate")
    check_layout(config, "zero2", "replicate")


def test_rows_out_of_reach_are_told(typed, workspace, capsys):
    folder = next(Path(o.split("=", 1)[1]) for o in typed if o.startswith("data.folder="))
    rows = [json.loads(line) for line in (folder / "v.jsonl").read_text().splitlines()]
    text = "".join(json.dumps(row | {"rounds_needed": 9}) + "\n" for row in rows)
    (folder / "v.jsonl").write_text(text)
    assert run(typed) == 2
    assert "none of its first 5 rows is within reach of rounds=2" in capsys.readouterr().err


@pytest.mark.slow
def test_validation_changes_no_training(typed, overrides, workspace, capsys):
    assert run(typed, "stage=inner") == 0
    assert run(typed, "stage=outer") == 0
    _, _, with_it = restore_links(workspace / "run" / "outer" / "links")
    inner = f"inner={workspace / 'run' / 'inner'}"
    assert run(overrides, "stage=outer", f"run_dir={workspace / 'plain'}", inner) == 0
    _, _, without = restore_links(workspace / "plain" / "outer" / "links")
    for a, b in zip(with_it.parameters(), without.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["data.valid=null"], "data.valid=null: name a file"),
        (["data.valid=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["data.valid=train.jsonl"], "rows are training rows too"),
        (["training.outer.validate_every=0", "training.outer.select=best"], "needs validations"),
        (["training.outer.validate_rows=0"], "validate_rows=0 is too small"),
    ],
)
def test_what_cannot_work_is_one_line(typed, more, said, capsys):
    assert run(typed, *more) == 2
    assert said in capsys.readouterr().err


def test_further_test_rows_are_benchmarks_of_their_own(overrides, workspace, capsys):
    folder = next(Path(o.split("=", 1)[1]) for o in overrides if o.startswith("data.folder="))
    write_rows(folder / "other.jsonl", 7, first=300)
    more = ["data.more_tests={other: other.jsonl}", "evaluation.systems=[]", "rounds=1"]
    assert run(overrides, *more) == 0
    results = json.loads((workspace / "run" / "results.json").read_text())
    counts = {row["task"]: row["n"] for row in results["rows"] if row["control"] is None}
    assert counts == {"tiny": 6, "tiny_other": 7}


def test_rows_that_need_another_depth_can_be_left_out(overrides, workspace, capsys):
    more = ["evaluation.beyond_reach=false", "evaluation.systems=[shuffled, decoder_alone]"]
    assert run(overrides, *more) == 0
    results = json.loads((workspace / "run" / "results.json").read_text())
    rows = [row for row in results["rows"] if row["system"] == "latent"]
    assert {row["rounds"]: (row["n"], row["n_beyond_reach"]) for row in rows} == {
        1: (3, 0),
        2: (6, 0),
    }
    alone = [row for row in results["rows"] if row["system"] == "decoder_alone"]
    assert [row["n"] for row in alone] == [3, 6]


def test_a_further_file_that_shares_rows_is_refused(overrides, workspace, capsys):
    assert run(overrides, "data.more_tests={other: train.jsonl}") == 2
    assert "rows are training rows too" in capsys.readouterr().err
