"""``links import|export|report`` from the command line, on released files made by hand."""

import json

import pytest
import torch
from hub_server import on
from released import EDGES, WIDTHS, edit_json, write_released

import rmas_train
from rmas_train.__main__ import main
from rmas_train.errors import LinksError, UnknownWeightsWarning
from rmas_train.support.output import stop_log

OUTER = "Sequential-Light-Outerlinks"


def fails(capsys, argv, *needles):
    capsys.readouterr()
    assert main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and len(error.splitlines()) == 1, error
    for needle in needles:
        assert needle in error, error


@pytest.fixture
def theirs(workspace):
    return write_released(workspace / "theirs")


@pytest.fixture
def options(overrides):
    """A run's options without the stage options that the import does not need."""
    return [o for o in overrides if not o.startswith("training.")]


def test_imported_links_answer_are_evaluated_and_go_back_bit_by_bit(
    theirs, options, workspace, capsys
):
    assert main(["links", "import", str(theirs), *options, "latent_length=3"]) == 0
    run = workspace / "run"
    with pytest.warns(UnknownWeightsWarning, match="which weights of critic, planner, solver"):
        system = rmas_train.load(run)
    assert (system.rounds, system.latent_length) == (2, 3)
    assert len(system.answer(["one two"])) == 1
    state = torch.load(next((theirs / OUTER).glob("Planner*(math).pt")), weights_only=True)
    link = system.links.outer["planner-critic"]
    assert torch.equal(link.proj1.weight, state["proj1.weight"].float()) and link.scale == 1
    with pytest.warns(UnknownWeightsWarning):
        assert main(["stage=eval", f"run={run}", "rounds=1", "evaluation.systems=[untrained]"]) == 0
    stop_log()
    assert (run / "eval" / "results.json").is_file()
    out = workspace / "back"
    assert main(["links", "export", str(run), str(out)]) == 0
    pairs = [(theirs / OUTER / p.name, p) for p in (out / "outerlinks").glob("*.pt")]
    pairs += [(next(theirs.glob(f"*-{a.capitalize()}-*")), out / a) for a in WIDTHS]
    for before, after in [
        (b / "adapter(math).pt", a / "adapter(math).pt") if b.is_dir() else (b, a) for b, a in pairs
    ]:
        one, other = (torch.load(p, weights_only=True) for p in (before, after))
        assert set(one) == set(other) and len(pairs) == 6
        assert all(torch.equal(one[k].view(torch.int16), other[k].view(torch.int16)) for k in one)
    files = [p.name for p in out.rglob("*") if p.is_file()]
    assert not any("safetensors" in name or name == "config.json" for name in files)


def test_an_agent_of_another_width_is_refused_when_it_is_loaded(theirs, options, capsys):
    swapped = [o.replace("agents.planner.model=", "agents.critic.model=") for o in options[:1]]
    assert main(["links", "import", str(theirs), *options, *swapped]) == 0
    with (
        pytest.warns(UnknownWeightsWarning),
        pytest.raises(LinksError, match="made for critic .*width 32"),
    ):
        rmas_train.load("run")


def test_what_import_refuses(theirs, options, workspace, capsys):
    base = ["links", "import", str(theirs), *options]
    fails(capsys, [*base, "links.norm=match_embedding"], "links.norm=match_embedding", "layernorm")
    fails(capsys, [*base, "agents.critic.model="], "agents.critic.model is empty")
    fails(capsys, [*base, "--task", "poetry"], "no inner link (adapter(poetry).pt or adapter.pt)")
    fails(capsys, [*base, "--repo", "judge=x"], "--repo judge=x", "planner")
    fails(capsys, [*base, "--repo", "outer=/no/where"], "outer=/no/where", "no such folder")
    fails(capsys, [*base, "other"], "other is one source too many")
    fails(capsys, ["links", "import", *options], "no repository with outer links", "--repo outer=")
    fails(capsys, [*base, "roundz=2"], "roundz", "Did you mean 'rounds'")
    fails(capsys, ["links", "improt"], "improt", "import")
    fails(capsys, ["links"], "COMMAND")
    fails(capsys, ["links", "export", "nowhere", "out"], "nowhere", "links.json")
    (workspace / "prompts" / "critic.yaml").write_text("user: <<question>>\n")
    fails(capsys, base, "critic.yaml", "0 slots for planner")
    assert not (workspace / "run").exists()


def test_links_that_are_there_are_not_replaced(theirs, options, workspace, capsys):
    base = ["links", "import", str(theirs), *options]
    assert main(base) == 0
    before = (workspace / "run" / "outer" / "links" / "links.json").read_bytes()
    fails(capsys, base, "links are there already", "run_dir=")
    assert (workspace / "run" / "outer" / "links" / "links.json").read_bytes() == before


@pytest.mark.parametrize("command", ["", "import", "export", "report", "push", "pull"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["links", *([command] if command else []), "--help"])
    assert stop.value.code == 0 and "python -m rmas_train links" in capsys.readouterr().out


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_from_the_hub_only_link_files_are_fetched(theirs, options, workspace, monkeypatch, capsys):
    """The base models stand beside the links there, and stay there."""
    with on(monkeypatch, workspace / "cache") as hub:
        repos = {}
        for role, folder in [(a, next(theirs.glob(f"*-{a.capitalize()}-*"))) for a in WIDTHS]:
            repos[role] = f"team/{folder.name}"
            hub.add(repos[role], content(folder))
        commit = hub.add(f"team/{OUTER}", content(theirs / OUTER))
        given = [f"--repo={role}={repo}" for role, repo in repos.items()]
        assert main(["links", "import", f"team/{OUTER}", *given, *options, "--task", "code"]) == 0
        names = {"adapter(code).pt", "innerlink_config.json", "adapter_config.json"}
        names |= {"outerlink_config.json"}
        names |= {f"{s}-{t}-Outerlink(code).pt" for s, t in EDGES.values()}
        assert hub.fetched() == names
        assert not any("safetensors" in request for request in hub.requests)
        contents = [r for r in hub.requests if r.startswith("GET ") and r.endswith(".pt")]
        assert len(contents) == 6
        card = json.loads((workspace / "run" / "outer" / "links" / "links.json").read_text())
        about = card["released"]["files"]["outer.planner-critic"]
        assert about["commit"] == commit and card["released"]["task"] == "code"
        fails(
            capsys,
            ["links", "import", "team/nothing", *given, *options, "run_dir=other"],
            "team/nothing",
            "no such repository",
        )


def fresh(root, names):
    """Outer links as they are drawn, in bfloat16; the others stay as they are."""
    from rmas_train.links.modules import make_link
    from rmas_train.release.released_file import write_link

    torch.manual_seed(11)
    for name in names:
        source, target = (WIDTHS[a.lower()] for a in name.split("-")[:2])
        link = make_link(source, target, outer=True, norm="layernorm").bfloat16().float()
        write_link(root / OUTER / name, link, "bfloat16")


def test_the_report_flags_links_that_look_untouched(theirs, workspace, capsys):
    untouched = ["Planner-Critic-Outerlink(math).pt", "Solver-Planner-Outerlink(math).pt"]
    fresh(theirs, untouched)
    assert main(["links", "report", str(theirs), "--json", "report.json"]) == 0
    out = capsys.readouterr().out
    assert "look untouched: outer.planner-critic, outer.solver-planner" in out
    found = json.loads((workspace / "report.json").read_text())["links"]
    assert set(found) == {f"inner.{a}" for a in WIDTHS} | {
        "outer.planner-critic",
        "outer.critic-solver",
        "outer.solver-planner",
    }
    for name, about in found.items():
        assert about["looks_untouched"] == (
            name in ("outer.planner-critic", "outer.solver-planner")
        )
        assert about["moved"] is None and "Gaussian" in about["inputs"]
        assert about["dtype"] == "bfloat16"
        least, most = about["fresh"]["largest"]
        assert 0 < least < most
    edit_json(theirs / OUTER / "outerlink_config.json", lambda m: m["tasks"].pop("math"))
    fails(capsys, ["links", "report", str(theirs)], "nothing for task math")
    fails(capsys, ["links", "report", "nowhere"], "nowhere: no such folder")
    fails(capsys, ["links", "report", str(workspace / "data")], "no released links")


def test_the_report_of_a_run_says_how_far_links_moved(overrides, workspace, capsys):
    assert main([*overrides, "stage=inner"]) == 0 and main([*overrides, "stage=outer"]) == 0
    stop_log()
    assert main(["links", "report", "run", "--json", "report.json", "--draws", "2"]) == 0
    found = json.loads((workspace / "report.json").read_text())["links"]
    link = found["outer.planner-critic"]
    assert link["moved"]["residual_proj.weight"] > 0 and not link["looks_untouched"]
    assert "token embeddings, LayerNormed, then the source's inner link" in link["inputs"]
    assert found["inner.planner"]["moved"] is None
    assert found["inner.planner"]["statistics"]["branch_over_residual"] is None, "no Infinity"
    start = workspace / "run" / "outer" / "start"
    for file in start.iterdir():
        (workspace / "run" / "outer" / "links" / file.name).write_bytes(file.read_bytes())
    assert main(["links", "report", "run", "--draws", "2"]) == 0
    assert "equal to its start" in " ".join(capsys.readouterr().out.split())


def test_an_import_takes_its_options_from_a_file(theirs, options, workspace, capsys):
    """The same links as from typed options."""
    assert main(["links", "import", str(theirs), *options, "latent_length=3"]) == 0
    typed = (workspace / "run" / "outer" / "links" / "links.json").read_bytes()
    (workspace / "my.yaml").write_text("experiment: relay\nlatent_length: 3\n")
    command = ["links", "import", str(theirs), "--config", f"{workspace}/my.yaml", *options]
    assert main([*command, f"run_dir={workspace}/again"]) == 0
    assert (workspace / "again" / "outer" / "links" / "links.json").read_bytes() == typed
    (workspace / "my.yaml").write_text("latent_lenght: 3\n")
    fails(capsys, [*command, f"run_dir={workspace}/no"], "my.yaml", "Did you mean 'latent_length'")
    fails(capsys, [*command[:3], "--config", "none.yaml"], "--config none.yaml: no such file")
