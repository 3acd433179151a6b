"""``links library``: links trained between two models, composed into other systems."""

import json

import pytest
from test_links_commands import fails

import rmas_train
from rmas_train.__main__ import main
from rmas_train.links.folder import find_links
from rmas_train.links.restore import restore_links
from rmas_train.support.output import stop_log


@pytest.fixture
def trained(overrides, workspace):
    """A finished run, evaluated."""
    assert main([*overrides, "evaluation.systems=[]"]) == 0
    stop_log()
    return workspace / "run"


@pytest.fixture
def typed(overrides):
    """The same system in a run folder of its own."""
    return [o for o in overrides if not o.startswith(("run_dir=", "resume="))]


def compose(workspace, typed, name, *more):
    run = workspace / name
    argv = ["links", "library", "compose", str(workspace / "library"), *typed, f"run_dir={run}"]
    return run, main([*argv, *more])


def test_composed_links_are_those_that_were_added(trained, typed, workspace, capsys):
    library = workspace / "library"
    assert main(["links", "library", "add", str(trained), str(library), "--name", "loop"]) == 0
    assert main(["links", "library", "list", str(library)]) == 0
    out = capsys.readouterr().out
    assert "loop planner-critic: " in out and "R=1" in out and "3 pair(s)" in out
    assert main(["links", "library", "find", str(library), "--source", "planner"]) == 0
    assert "1 pair(s)" in capsys.readouterr().out
    run, code = compose(workspace, typed, "composed")
    assert code == 0 and "next: python -m rmas_train stage=eval" in capsys.readouterr().out
    ours, theirs = (restore_links(find_links(folder))[2] for folder in (run, trained))
    for key, value in theirs.state_dict().items():
        assert value.equal(ours.state_dict()[key]), key
    before, after = (rmas_train.load(f).answer(["one two", "red"]) for f in (trained, run))
    assert before == after
    assert main(["stage=eval", f"run={run}", "evaluation.systems=[]", "rounds=1"]) == 0
    stop_log()


def test_ends_of_a_shared_space_join_agents_that_no_edge_joined(typed, workspace, capsys):
    """The loop goes planner, critic, solver; the system that is composed, planner to solver."""
    run, library = workspace / "space", workspace / "library"
    space = ["links.shared_space=32", "links.init=default"]
    assert main([*typed, *space, f"run_dir={run}", "evaluation.systems=[]"]) == 0
    stop_log()
    assert main(["links", "library", "add", str(run), str(library), "--name", "space"]) == 0
    out = capsys.readouterr().out
    assert "space planner-solver: " in out
    assert out.count("(ends of a shared space, not trained together)") == 3
    own = {
        "topology": {
            "name": "pair",
            "order": ["planner", "solver"],
            "edges": [{"source": "planner", "target": "solver"}],
            "decoder": "solver",
        },
        "data": {"prompts": str(workspace / "pair")},
        "rounds": 1,
    }
    (workspace / "pair").mkdir()
    for name, text in (("planner", "<<question>>"), ("solver", "<<question>> <<message:planner>>")):
        (workspace / "pair" / f"{name}.yaml").write_text(json.dumps({"user": text}))
    (workspace / "pair.yaml").write_text(json.dumps(own))
    mine = [o for o in typed if not o.startswith(("agents.critic", "data.prompts", "rounds="))]
    made, code = compose(workspace, [*mine, *space], "pair_run", "--config", "pair.yaml")
    assert code == 0, capsys.readouterr().err
    ours, theirs = (restore_links(find_links(folder))[2] for folder in (made, run))
    wanted = theirs.between("planner", "solver").state_dict()
    found = ours.outer["planner-solver"].state_dict()
    assert found.keys() == wanted.keys()
    assert all(value.equal(wanted[name]) for name, value in found.items())
    assert len(rmas_train.load(made).answer(["one two"])) == 1
    again = [*typed, *space, "seed=1", f"run_dir={workspace / 'other'}", "evaluation.systems=[]"]
    assert main(again) == 0
    stop_log()
    # A second space: which of the two is meant has to be said.
    assert main(["links", "library", "add", str(workspace / "other"), str(library)]) == 0
    which = ["links", "library", "compose", str(library), *mine, *space, "--config", "pair.yaml"]
    fails(capsys, [*which, f"run_dir={workspace / 'third'}"], "several links from", "other, space")


def test_they_go_into_another_topology_under_other_names(trained, typed, workspace, capsys):
    library, prompts = workspace / "library", workspace / "pair"
    assert main(["links", "library", "add", str(trained), str(library)]) == 0
    prompts.mkdir()
    for name, text in (("reader", "<<question>>"), ("writer", "<<question>> <<message:reader>>")):
        (prompts / f"{name}.yaml").write_text(json.dumps({"user": text}))
    models = dict(o.removeprefix("agents.").split(".model=") for o in typed if ".model=" in o)
    own = {
        "agents": {"reader": {"model": models["critic"]}, "writer": {"model": models["solver"]}},
        "topology": {
            "name": "pair",
            "order": ["reader", "writer"],
            "edges": [{"source": "reader", "target": "writer"}],
            "decoder": "writer",
        },
        "data": {"prompts": str(prompts)},
        "rounds": 1,
    }
    (workspace / "pair.yaml").write_text(json.dumps(own))
    mine = [o for o in typed if not o.startswith(("agents.", "data.prompts", "rounds="))]
    more = ["--config", str(workspace / "pair.yaml")]
    run, code = compose(workspace, mine, "pair_run", *more)
    assert code == 0, capsys.readouterr().err
    ours, theirs = (restore_links(find_links(folder))[2] for folder in (run, trained))
    wanted = theirs.outer["critic-solver"].state_dict()
    for name, value in ours.outer["reader-writer"].state_dict().items():
        assert value.equal(wanted[name])
    assert len(rmas_train.load(run).answer(["one two"])) == 1


def test_what_was_composed_is_trained_on(trained, typed, workspace):
    library = workspace / "library"
    assert main(["links", "library", "add", str(trained), str(library)]) == 0
    run, code = compose(workspace, typed, "composed", "rounds=3", "latent_length=2")
    assert code == 0
    more = workspace / "more"
    begun = f"training.outer.from_links={run}"
    done = main([*typed, f"inner={run}", begun, "stage=outer", "rounds=3", f"run_dir={more}"])
    stop_log()
    assert done == 0
    start, end = (restore_links(more / "outer" / name)[2] for name in ("start", "links"))
    theirs = restore_links(find_links(run))[2]
    for key, link in theirs.outer.items():
        for name, value in link.state_dict().items():
            assert value.equal(start.outer[key].state_dict()[name])
    moved = [k for k, v in end.state_dict().items() if not v.equal(start.state_dict()[k])]
    assert moved


def test_what_is_not_there_or_does_not_fit_is_told(trained, typed, workspace, capsys):
    library = workspace / "library"
    fails(capsys, ["links", "library", "list", str(library)], "no such folder")
    assert main(["links", "library", "add", str(trained), str(library), "--name", "one"]) == 0
    again = ["links", "library", "add", str(trained), str(library), "--name"]
    fails(capsys, [*again, "one"], "is there already")
    fails(capsys, [*again, "../one"], "is no name of a folder")
    assert main([*again, "two"]) == 0
    argv = ["links", "library", "compose", str(library), *typed]
    fails(capsys, [*argv, "run_dir=a"], "several links", "one, two", "--use")
    fails(capsys, [*argv, "run_dir=a", "links.norm=none"], "links.norm=match_embedding")
    same = next(a for a in typed if a.startswith("agents.planner.model=")).split("=", 1)[1]
    fails(
        capsys,
        [*argv, "run_dir=a", f"agents.critic.model={same}", "--use", "one"],
        "no link from",
        "Train one",
    )
    assert main([*argv, f"run_dir={workspace / 'b'}", "--use", "two"]) == 0
    fails(capsys, [*argv, f"run_dir={workspace / 'b'}", "--use", "two"], "links are there already")
    (library / "two" / "scores.json").write_text("{")
    fails(capsys, ["links", "library", "list", str(library)], "scores.json: cannot be read")
    inner = ["links", "library", "add", str(trained / "inner"), str(library), "--name", "three"]
    fails(capsys, inner, "inner links alone")


def test_links_of_another_form_or_topology_do_not_begin_a_stage(trained, typed, workspace, capsys):
    argv = [*typed, "stage=outer", f"inner={trained}", f"run_dir={workspace / 'c'}"]
    begun = f"training.outer.from_links={trained}"
    fails(capsys, [*argv, begun, "links.norm=none"], "links.norm=match_embedding there, none here")
    fails(capsys, [*argv, f"training.outer.from_links={workspace}"], "no links.json there")
    card = trained / "outer" / "links" / "links.json"
    assert json.loads(card.read_text())["stage"] == "outer"
