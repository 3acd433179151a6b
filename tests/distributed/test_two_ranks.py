"""Two processes under torchrun give the numbers of one."""

import json

import pytest
from launching import assert_same_curves, launch, lines


@pytest.mark.parametrize("micro", ["null", pytest.param("1", marks=pytest.mark.slow)])
def test_two_ranks_equal_one(overrides, workspace, micro):
    base = [
        *overrides,
        "training.outer.steps=4",
        "training.outer.lr=1e-3",
        "training.outer.train_inner=true",
        "training.outer.clip_message=0.05",
        "training.inner.log_every=1",
        "training.outer.log_every=1",
        "evaluation.systems=[shuffled,text]",
        f"training.outer.micro_batch_size={micro}",
    ]
    for processes in (1, 2):
        way = "agent" if processes == 2 and micro == "1" else "none"
        typed = [*base, f"training.outer.recompute={way}", f"run_dir={workspace}/{processes}/run"]
        out = launch(typed, processes)
        assert f"{processes} process(es)" in out
    one, two = (workspace / str(n) / "run" for n in (1, 2))
    assert [len(lines(one / s / "metrics.jsonl")) for s in ("inner", "outer")] == [3, 4]
    assert_same_curves(one, two)
    results = [json.loads((r / "results.json").read_text())["rows"] for r in (one, two)]
    for a, b in zip(*results, strict=True):
        assert (a["system"], a["control"], a["rounds"]) == (b["system"], b["control"], b["rounds"])
        assert a["accuracy"] == b["accuracy"]
