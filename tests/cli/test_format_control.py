"""Links that are trained with other rows' messages: a control that has seen the format only."""

import json

import pytest
import torch
from tiny import make_links, make_rows, make_team

from rmas_train.__main__ import main
from rmas_train.errors import ConfigError
from rmas_train.objectives.outer import OuterObjective
from rmas_train.support.output import stop_log

FEW = ["training.inner.steps=1", "training.outer.steps=2", "rounds=1"]


@pytest.fixture(autouse=True)
def logs():
    yield
    stop_log()


def test_shuffled_training_is_the_loss_of_the_next_rows_message(agents64, table):
    """Each row is answered from the next one's message; own messages give another loss."""
    team = make_team(agents64)
    links, rows = make_links(team).double(), make_rows(3)
    shuffled = OuterObjective(team, links, table(rows), 2, 2, shuffled=True)
    own = OuterObjective(team, links, table(rows), 2, 2)

    def instead(message, edge, round_):
        return message.with_tensors([message.tensors()[0][[1, 2, 0]]])

    calls = list(own._recursion.unroll(rows, 2, interventions=[instead]))
    naive = calls[-1].answer_loss(own.answers([0, 1, 2]))
    found = shuffled([0, 1, 2], 2).sum()
    torch.testing.assert_close(found, naive, rtol=1e-12, atol=0)
    assert abs(found.item() - own([0, 1, 2], 2).sum().item()) > 1e-6
    with pytest.raises(ConfigError, match="one row in a micro-batch"):
        shuffled([0], 2)


def texts(run, control):
    records = map(json.loads, (run / "eval" / "answers.jsonl").read_text().splitlines())
    return [(r["rounds"], r["index"], r["text"]) for r in records if r["control"] == control]


def texts_of_others(workspace):
    """What the format links write with the messages of other rows."""
    run = workspace / "shuffled"
    assert main(["stage=eval", f"run={run}", "evaluation.systems=[shuffled]"]) == 0
    stop_log()
    return texts(run, "shuffled")


@pytest.mark.slow
def test_the_control_stands_in_the_table_and_is_checked(overrides, workspace, capsys):
    typed = [*overrides, *FEW]
    assert main([*typed, "evaluation.systems=[]"]) == 0
    stop_log()
    alone = [*typed, "training.outer.messages=shuffled", "stage=outer", "run_dir=shuffled"]
    assert main([*alone, f"inner={workspace / 'run' / 'inner' / 'links'}"]) == 0
    stop_log()
    asked = ["stage=eval", f"run={workspace / 'run'}", "evaluation.systems=[format]"]
    assert main([*asked, "evaluation.format=shuffled"]) == 0
    stop_log()
    rows = json.loads((workspace / "run" / "eval" / "results.json").read_text())["rows"]
    assert [(r["system"], r["control"]) for r in rows] == [("latent", None), ("latent", "format")]
    assert texts(workspace / "run", "format") == texts_of_others(workspace)
    for given, message in (
        ([], "evaluation.format=null: train links with"),
        ([f"evaluation.format={workspace / 'run'}"], "were not trained with"),
        (["evaluation.format=nowhere"], "nowhere"),
    ):
        capsys.readouterr()
        assert main([*asked, *given]) == 2
        stop_log()
        assert message in capsys.readouterr().err


def test_a_batch_of_one_row_is_refused(overrides, capsys):
    typed = ["training.outer.messages=shuffled", "training.outer.micro_batch_size=1"]
    assert main([*overrides, *typed]) == 2
    assert "a row has nobody to get messages from" in capsys.readouterr().err
