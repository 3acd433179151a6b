"""What can be known before agents load is told before, in one line; no agent is loaded here."""

import json

import pytest
from test_bad_input import fails

import rmas_train.runs.load
from rmas_train.__main__ import main
from rmas_train.support.output import stop_log
from rmas_train.training import trackers
from rmas_train.training.trackers import check_trackers


@pytest.fixture(autouse=True)
def no_agents(monkeypatch):
    """Loading an agent fails the test."""

    def load(*_):
        raise AssertionError("an agent was loaded before the fault was told")

    monkeypatch.setattr(rmas_train.runs.load, "load_agents", load)


def rewrite(path, line, **values):
    """Change one row of a JSONL file."""
    rows = path.read_text().splitlines()
    rows[line - 1] = json.dumps(json.loads(rows[line - 1]) | values)
    path.write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize(("stage", "answer"), [("inner", 42), ("pipeline", float("nan"))])
def test_an_answer_that_is_no_text(capsys, overrides, workspace, stage, answer):
    rewrite(workspace / "data" / "train.jsonl", 3, answer=answer)
    seen = json.dumps(answer)
    needles = ["train.jsonl, line 3:", f"column 'answer' is {seen}, a number, not a text"]
    fails(capsys, [*overrides, f"stage={stage}"], *needles)


def test_a_blank_answer_passes_no_pattern_and_no_stage(capsys, overrides, workspace):
    rewrite(workspace / "data" / "test.jsonl", 6, answer="  ")
    typed = [*overrides, "stage=inner", r"data.answer_pattern='(?P<answer>.*)'"]
    fails(capsys, typed, "test.jsonl, line 6: column 'answer' is blank")


@pytest.mark.parametrize(
    ("typed", "needles"),
    [
        ("data.role_texts.plannr=plan", ["data.role_texts.plannr: no such agent", "'planner'"]),
        ("data.feedback_texts.solvr=x", ["data.feedback_texts.solvr", "'solver'"]),
        ("data.inner_files.critc=a.jsonl", ["data.inner_files.critc", "'critic'"]),
        ("data.translations={solver-critic: {a: b}}", ["solver-critic: no such edge", "Did you"]),
        ("data.translations={planner: {a: b}}", ["data.translations.planner: no such edge"]),
    ],
)
def test_agents_and_edges_that_data_names(capsys, overrides, typed, needles):
    fails(capsys, [*overrides, typed], *needles)


def test_columns_are_told_before_agents_load(capsys, overrides, workspace):
    (workspace / "prompts" / "solver.yaml").write_text('user: "<<quest>> <<message:critic>>"')
    fails(capsys, overrides, "train.jsonl, line 1", "'quest'", "Did you mean 'question'")
    (workspace / "prompts" / "solver.yaml").write_text('user: "<<question>>"')
    fails(capsys, overrides, "solver.yaml", "0 slots for critic")


def test_role_texts_are_told_before_agents_load(capsys, overrides, workspace):
    typed = [*overrides, "data.role_texts.critic=refinedplan", "stage=inner"]
    fails(capsys, typed, "train.jsonl, line 1", "refinedplan", "'refined_plan'")
    train = workspace / "data" / "train.jsonl"
    train.with_name("inner.jsonl").write_text(train.read_text())
    rewrite(train, 2, plan=7)
    files = ",".join(f"{name}: inner.jsonl" for name in ("planner", "critic", "solver"))
    outer = ["stage=outer", "training.outer.latents=teacher_forced"]
    typed = [*overrides, *outer, f"data.inner_files={{{files}}}"]
    fails(capsys, typed, "train.jsonl, line 2: column 'plan' is 7", "latents=teacher_forced")


def test_a_role_text_that_is_not_named(capsys, overrides, workspace, agent_folders):
    values = {
        "agents": {n: {"model": str(f)} for n, f in agent_folders.items()},
        "topology": {"order": ["planner", "solver"], "decoder": "solver"},
        "data": {"folder": str(workspace / "data"), "prompts": str(workspace / "prompts")},
        "run_dir": str(workspace / "run"),
    }
    values["topology"]["edges"] = [{"source": "planner", "target": "solver"}]
    values["data"]["role_texts"] = {"solver": "solution"}
    values["agents"].pop("critic")
    (workspace / "my.yaml").write_text(json.dumps(values))
    typed = [f"--config={workspace}/my.yaml"]
    fails(capsys, [*typed, "stage=inner"], "a text that planner should write", "role_texts.planner")
    forced = [*typed, "stage=outer", "training.outer.latents=teacher_forced"]
    fails(capsys, forced, "latents=teacher_forced needs a text of planner")


def test_a_decoder_that_no_message_reaches_in_round_one(capsys, overrides, workspace):
    typed = [*overrides, "topology.decoder=planner", "training.outer.depth=growing"]
    needles = ["topology.decoder=planner", "at rounds=1 no link", "depth=fixed and rounds=2"]
    fails(capsys, typed, *needles)
    assert not (workspace / "run" / "inner").exists()
    with pytest.raises(AssertionError, match="an agent was loaded"):
        main([*overrides, "topology.decoder=planner", "training.outer.depth=fixed"])
    stop_log()


def test_links_that_no_depth_reaches(capsys, overrides):
    typed = [*overrides, "topology.decoder=planner", "training.outer.gradient_rounds=1"]
    fails(capsys, [*typed, "rounds=3"], "gradient", "rounds=1 no link")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home without logins."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_wandb_without_a_login(capsys, overrides, home):
    needles = ["tracking=wandb: not logged in", "wandb login", "WANDB_MODE=offline"]
    fails(capsys, [*overrides, "tracking=wandb"], *needles)


def test_wandb_with_a_login_or_offline(home, monkeypatch):
    check_trackers(["wandb"], {"WANDB_MODE": "offline"})
    check_trackers(["wandb"], {"WANDB_API_KEY": "x"})
    (home / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    (home / ".netrc").chmod(0o600)
    check_trackers(["wandb"], {"HOME": str(home)})
    with pytest.raises(trackers.ConfigError, match="not logged in"):
        check_trackers(["wandb"], {"HOME": str(home), "WANDB_BASE_URL": "https://wandb.corp"})


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "trackio"])
def test_a_tracker_that_is_not_installed(capsys, overrides, monkeypatch, name):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: None)
    fails(capsys, [*overrides, f"tracking={name}"], f"tracking={name}: not installed", "[track]")


@pytest.mark.parametrize(
    ("typed", "needle"),
    [
        (["evaluation.systems=[format]"], "evaluation.format=null: train links with"),
        (["evaluation.systems=[format]", "evaluation.format=nowhere"], "nowhere"),
        (["evaluation.systems=[cross_task]"], "evaluation.cross_task=None: give a JSONL file"),
        (
            ["evaluation.systems=[cross_task]", "evaluation.cross_task=data/test.jsonl"],
            "test.jsonl, line 1: shows the agents the same as a test row",
        ),
        (
            ["evaluation.systems=[textgrad]", "evaluation.textgrad_url=http://localhost:1/v1"],
            "give evaluation.textgrad_model",
        ),
    ],
)
def test_what_controls_and_baselines_need(capsys, monkeypatch, overrides, workspace, typed, needle):
    monkeypatch.chdir(workspace)
    fails(capsys, [*overrides, *typed], needle)
    assert not (workspace / "run" / "inner").exists()
