"""What a run reuses is what it would have made: links, start, checkpoints, evaluation."""

import json
import shutil
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny import make_rows

from rmas_train.__main__ import main
from rmas_train.links.card import read_card
from rmas_train.support import files
from rmas_train.support.files import new_folder
from rmas_train.support.output import stop_log
from rmas_train.training.callbacks import MetricsFile

STEPS = ["training.inner.steps=2", "training.outer.steps=2", "evaluation.systems=[start,shuffled]"]


@pytest.fixture
def typed(overrides):
    yield [o for o in overrides if not o.startswith(("run_dir=", "training.inner.steps"))] + STEPS
    stop_log()


@pytest.fixture
def stop(monkeypatch):
    """Send this process a real SIGTERM after the first step of a stage; None: never."""
    plain = MetricsFile.__call__

    def after(stage):
        def call(self, step):
            plain(self, step)
            if self._path.parent.name == stage:
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(MetricsFile, "__call__", call)

    return after


def tensors(folder: Path) -> dict:
    return load_file(folder / "links.safetensors")


def same(a: Path, b: Path) -> bool:
    one, two = tensors(a), tensors(b)
    return one.keys() == two.keys() and all(one[k].equal(two[k]) for k in one)


def rows(run: Path) -> list[dict]:
    found = json.loads((run / "eval" / "results.json").read_text())["rows"]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


def assert_like_fresh(run: Path, fresh: Path) -> None:
    """The same links, the same control row of the start, the same results."""
    for name in ("outer/start", "outer/links"):
        assert same(run / name, fresh / name), name
    assert rows(run) == rows(fresh)


def test_inner_links_of_another_seed_are_refused_by_name(typed, capsys):
    assert main([*typed, "stage=inner", "run_dir=run"]) == 0
    assert main([*typed, "stage=outer", "run_dir=run", "seed=1"]) == 2
    message = capsys.readouterr().err
    assert "seed: 0 there, 1 now" in message and "inner=run/inner/links" in message
    assert main([*typed, "stage=outer", "run_dir=run", "seed=1", "inner=run/inner/links"]) == 0


@pytest.mark.slow
def test_own_inner_links_of_another_run_do_not_stand_in_for_equal_ones_beside(typed, capsys):
    for name, seed in (("a", 0), ("b", 1), ("b", 0)):
        assert main([*typed, f"run_dir={name}", f"seed={seed}"]) == 0
    assert "inner links from the same options exist: a/inner/links" in capsys.readouterr().out
    assert_like_fresh(Path("b"), Path("a"))
    assert not Path("b/inner").exists() and Path("b/earlier/1/inner/links").is_dir()


@pytest.mark.slow
def test_starting_over_leaves_no_mixture(typed):
    """The control row of the start, and all else, are those of a run in an empty folder."""
    assert main([*typed, "run_dir=x/run", "seed=1"]) == 0
    before = sorted(p.relative_to("x/run") for p in Path("x/run").rglob("*.safetensors"))
    Path("x/run/outer/notes.txt").write_text("mine")
    for folder in ("x", "y"):
        assert main([*typed, f"run_dir={folder}/run"]) == 0
    assert_like_fresh(Path("x/run"), Path("y/run"))
    aside = Path("x/run/earlier/1")
    assert sorted(p.relative_to(aside) for p in aside.rglob("*.safetensors")) == before
    assert (aside / "outer" / "notes.txt").read_text() == "mine"
    assert (aside / "results.json").is_file() and (aside / "report" / "index.html").is_file()
    assert set(json.loads(Path("x/run/results.json").read_text())["runs"]) == {"."}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["inner", "outer"])
def test_a_run_that_starts_over_where_another_ended_can_be_stopped_and_resumed(typed, stop, stage):
    assert main([*typed, "run_dir=x/run", "seed=1"]) == 0
    stop(stage)
    assert main([*typed, "run_dir=x/run"]) == 143
    assert not Path("x/run/outer/links").exists() and not Path("x/run/eval").exists()
    stop(None)
    assert main([*typed, "run_dir=x/run", "resume=auto"]) == 0
    assert main([*typed, "run_dir=y/run"]) == 0
    assert_like_fresh(Path("x/run"), Path("y/run"))


def test_a_retraining_that_fails_leaves_no_old_links_beside_its_start(typed, stop):
    assert main([*typed, "run_dir=run"]) == 0
    stop("outer")
    assert main([*typed, "stage=outer", "run_dir=run", "training.outer.lr=1e-2"]) == 143
    assert (Path("run/outer/start")).is_dir() and not Path("run/outer/links").exists()
    assert Path("run/earlier/1/outer/links").is_dir()


def test_changed_training_rows_are_not_finished(typed, workspace, capsys):
    assert main([*typed, "run_dir=run"]) == 0
    path = workspace / "data" / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in make_rows(24, first=30)))
    assert main([*typed, "run_dir=run", "resume=auto"]) == 2
    message = capsys.readouterr().err
    assert "data.inner.critic:" in message and "start over without resume" in message


@pytest.mark.slow
def test_changed_test_rows_are_evaluated_again(typed, workspace, capsys):
    assert main([*typed, "run_dir=run"]) == 0
    path = workspace / "data" / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in make_rows(4, first=100)))
    assert main([*typed, "run_dir=run", "resume=auto"]) == 0
    assert rows(Path("run"))[0]["n"] == 4 and rows(Path("run/earlier/1"))[0]["n"] == 6
    assert main([*typed, "run_dir=run", "resume=auto"]) == 0
    assert capsys.readouterr().out.count("is finished; there is nothing to do") == 1


@pytest.mark.slow
def test_a_killed_evaluation_of_fewer_rows_leaves_the_one_before(typed, monkeypatch):
    assert main([*typed, "run_dir=run"]) == 0
    before = rows(Path("run")), Path("run/eval/answers.jsonl").read_text()
    with monkeypatch.context() as patch:
        patch.setattr("rmas_train.stages.evaluate.write_json", killed)
        assert main([*typed, "stage=eval", "run=run", "evaluation.max_rows=2"]) == 130
    place = Path("run/eval") if Path("run/eval").exists() else Path("run/earlier/1/eval")
    assert (rows(place.parent), (place / "answers.jsonl").read_text()) == before
    assert main([*typed, "run_dir=run", "resume=auto"]) == 0
    assert rows(Path("run")) == before[0]


def killed(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        ("agents.critic.attention=eager", "agents.critic.attention: sdpa there, eager now"),
        ("version", "version: 0.1.0 there, 9.9.9 now"),
        ("prompt", "prompts: "),
        ("template", "rendered_prompts.critic: "),
        ("tokenizer", "agents.critic.tokenizer: "),
    ],
)
def test_what_decides_the_numbers_is_compared(
    typed, workspace, agent_folders, monkeypatch, stop, capsys, change, needle
):
    critic = shutil.copytree(agent_folders["critic"], workspace / "critic")
    typed = [*typed, f"agents.critic.model={critic}", "run_dir=run"]
    stop("outer")
    assert main(typed) == 143
    stop(None)
    more = [change] if "=" in change else []
    if change == "version":
        monkeypatch.setattr("rmas_train.runs.identity.VERSION", "9.9.9")
    if change == "prompt":
        path = workspace / "prompts" / "critic.yaml"
        path.write_text(path.read_text().replace("note", "so"))
    if change == "template":
        path = critic / "chat_template.jinja"
        path.write_text("today " + path.read_text())
    if change == "tokenizer":
        path = critic / "tokenizer.json"
        found = json.loads(path.read_text())
        found["model"]["merges"] = found["model"]["merges"][:-1]
        path.write_text(json.dumps(found))
    given = ["stage=outer", "inner=run/inner/links", "resume=auto"]
    assert main([*typed, *given, *more]) == 2
    assert needle in capsys.readouterr().err


def test_the_card_says_what_its_links_depend_on(typed):
    assert main([*typed, "run_dir=run"]) == 0
    inner, outer, start = (
        read_card(Path("run") / name) for name in ("inner/links", "outer/links", "outer/start")
    )
    assert inner.identity["seed"] == 0 and inner.identity["version"] == inner.package_version
    assert outer.identity == start.identity and start.stage == "start"
    assert set(outer.rendered_prompts) == {"planner", "critic", "solver"}
    hashes = {name: one["sha256"] for name, one in outer.rendered_prompts.items()}
    assert hashes == outer.identity["rendered_prompts"]
    assert "<<question>>" in outer.rendered_prompts["solver"]["user"]


def test_what_killed_writes_left_is_gone_and_what_they_moved_is_back(typed):
    assert main([*typed, "run_dir=run"]) == 0
    run = Path("run")
    for place in (run, run / "inner", run / "outer", run / "eval", run / "outer" / "checkpoints"):
        (place / ".links.tmp77").mkdir()
        (place / ".config.yaml.tmp78").write_text("half")
    (run / "outer" / "links").rename(run / "outer" / ".links.old77")
    (run / ".probe79").touch()
    assert main([*typed, "run_dir=run", "resume=auto"]) == 0
    assert (run / "outer" / "links" / "links.json").is_file()
    left = {p.name for p in run.rglob(".*")}
    assert left <= {".lock"}


def test_a_folder_is_never_lost_between_two_renames(tmp_path, monkeypatch):
    """Also where the second one fails: the old folder is there again."""
    path = tmp_path / "links"
    with new_folder(path) as work:
        (work / "a").write_text("old")
    plain = Path.rename

    def rename(self, to):
        if ".tmp" in self.name:
            raise OSError(28, "No space left on device")
        return plain(self, to)

    monkeypatch.setattr(files.Path, "rename", rename)
    with pytest.raises(OSError, match="No space"), new_folder(path) as work:
        (work / "a").write_text("new")
    assert (path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["links"]
