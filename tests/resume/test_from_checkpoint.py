"""``links from-checkpoint``: a links folder from any checkpoint."""

import hashlib
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import rmas_train
from rmas_train.__main__ import main
from rmas_train.links.card import read_card
from rmas_train.links.folder import check_seal
from rmas_train.support.output import stop_log

OLDER = Path(__file__).parents[1] / "older" / "v0_1" / "outer" / "checkpoints" / "step_00000003"


@pytest.fixture
def run(overrides):
    """A finished run with a checkpoint of each step."""
    every = [f"training.{s}.{o}" for s in ("inner", "outer") for o in ("save_every=1", "keep=9")]
    assert main([*overrides, *every, "evaluation.systems=[start]", "run_dir=run"]) == 0
    yield Path("run")
    stop_log()


def take(checkpoint, out, *words) -> int:
    return main(["links", *(words or ("from-checkpoint",)), str(checkpoint), str(out)])


def reseal(checkpoint: Path) -> None:
    """A manifest that fits what is there."""
    path = checkpoint / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, about in manifest["files"].items():
        content = (checkpoint / name).read_bytes()
        about |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(manifest))


def tensors(folder: Path) -> dict:
    return load_file(folder / "links.safetensors")


def same(a: Path, b: Path) -> bool:
    one, two = tensors(a), tensors(b)
    return one.keys() == two.keys() and all(one[k].equal(two[k]) for k in one)


def test_links_of_the_last_step_are_the_runs(run, capsys):
    assert take(run / "outer" / "checkpoints" / "step_00000003", "last") == 0
    assert "wrote last: outer links after 3 step(s)" in capsys.readouterr().out
    assert same(Path("last"), run / "outer" / "links")
    assert read_card(Path("last")).identity == read_card(run / "outer" / "links").identity
    ours = rmas_train.load("last").answer(["one two", "red"])
    assert ours == rmas_train.load(run).answer(["one two", "red"])


def test_links_of_an_earlier_step_answer_and_are_evaluated_with_their_start(run):
    assert take(run / "outer" / "checkpoints" / "step_00000001", "first", "from", "checkpoint") == 0
    first = Path("first")
    check_seal(first)
    assert not same(first, run / "outer" / "links")
    assert read_card(first).identity["step"] == 1
    assert len(rmas_train.load(first).answer(["one two"])) == 1
    assert main(["stage=eval", "run=first"]) == 0
    found = json.loads((first / "eval" / "results.json").read_text())
    assert {row["control"] for row in found["rows"]} == {None, "start"}
    assert found["trained_rounds"] == 2


def test_inner_links_of_an_earlier_step_are_for_the_outer_stage(run, overrides):
    assert take(run / "inner" / "checkpoints" / "step_00000002", "w/inner/links") == 0
    assert main([*overrides, "stage=outer", "run_dir=w2", "inner=w/inner/links"]) == 0
    inner = {k: v for k, v in tensors(Path("w2/outer/links")).items() if k.startswith("inner.")}
    taken = tensors(Path("w/inner/links"))
    assert inner.keys() == taken.keys() and all(inner[k].equal(taken[k]) for k in inner)
    # They are not taken for finished ones of the same options.
    assert main([*overrides, "stage=outer", "run_dir=x"]) == 0
    assert (
        read_card(Path("x/outer/links")).identity["inner_links"]
        != (read_card(Path("w2/outer/links")).identity["inner_links"])
    )


def test_what_cannot_be_taken_is_one_line(run, capsys):
    last = run / "outer" / "checkpoints" / "step_00000003"
    state = json.loads((last / "state.json").read_text())
    for values, needle in (
        (state | {"card": state["card"] | {"rounds": 0}}, "key rounds is 0"),
        (state | {"card": state["card"] | {"agents": {}}}, "unknown agent 'planner'"),
        ({k: v for k, v in state.items() if k != "card"}, "does not say which agents"),
    ):
        (last / "state.json").write_text(json.dumps(values))
        reseal(last)
        assert take(last, "out") == 2
        error = capsys.readouterr().err
        assert needle in error and len(error.splitlines()) == 1, error
        assert not Path("out").exists()
    (last / "state.json").write_text(json.dumps(state))
    moved = load_file(last / "links.safetensors")
    save_file({k: v[:1] if v.ndim else v for k, v in moved.items()}, last / "links.safetensors")
    reseal(last)
    for checkpoint, out, needle in (
        (last, "out", "its links do not fit its card"),
        (last.with_name("step_00000002"), "run", "there already; choose a new folder"),
        ("nowhere", "out", "no valid manifest.json"),
    ):
        assert take(checkpoint, out) == 2
        error = capsys.readouterr().err
        assert needle in error and len(error.splitlines()) == 1, error


def test_a_checkpoint_of_version_0_1(tmp_path):
    """It has no card; the one beside it is used."""
    assert take(OLDER, tmp_path / "out") == 0
    saved = load_file(OLDER / "links.safetensors")
    taken = tensors(tmp_path / "out")
    assert len(taken) == len(saved) and all(saved[f"links.{k}"].equal(taken[k]) for k in taken)
    assert read_card(tmp_path / "out").stage == "outer"
