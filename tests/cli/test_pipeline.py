"""Whole runs through the entry point, on tiny agents."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

import matplotlib.image
import pytest
import torch
from tiny import make_rows, write_workspace

import rmas_train
from rmas_train.__main__ import main
from rmas_train.errors import DataError, LinksError
from rmas_train.support.output import stop_log
from rmas_train.systems.looks import system_name


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One folder for all tests, so that its run, made once, can be put back."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def workspace(place, monkeypatch):
    shutil.rmtree(place)
    place.mkdir()
    write_workspace(place)
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def finished(overrides, workspace, capsys):
    run, kept = workspace / "run", workspace.with_name(f"{workspace.name}_kept")
    if not kept.is_dir():
        assert main(overrides) == 0
        capsys.readouterr()
        stop_log()
        shutil.copytree(run, kept)
    elif not run.is_dir():
        shutil.copytree(kept, run)
    return run


def test_a_run_folder_holds_everything(finished):
    for stage in ("inner", "outer", "eval"):
        for name in ("config.yaml", "environment.json"):
            assert (finished / stage / name).stat().st_size > 0
    assert "outer 3/3" in (finished / "run.log").read_text()
    lines = (finished / "outer" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 2


class Page(HTMLParser):
    """Pictures, table cells and texts of a report."""

    def __init__(self, path):
        super().__init__()
        self.figures, self.cells, self.texts, self.open = [], [], [], []
        self.feed(path.read_text())
        self.close()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "figure":
            self.figures.append(dict(attrs)["id"])
        if tag == "tr":
            self.cells.append([])

    def handle_data(self, data):
        self.texts.append(data)
        if self.open[-1] in ("td", "th"):
            self.cells[-1].append(data)


def test_the_report_shows_every_result_and_pictures_that_can_be_read(finished):
    page = Page(finished / "report" / "index.html")
    results = json.loads((finished / "results.json").read_text())
    drawn = ["accuracy-0", "cost", "loss-0", "gradients-0", "profile-map", "profile"]
    assert page.figures == drawn
    images = re.findall(r"!\[(.+)\]\((.+)\)", (finished / "report" / "report.md").read_text())
    assert [name for _, name in images] == ["accuracy.png", "cost.png", "training.png"]
    for _, name in images:
        pixels = matplotlib.image.imread(finished / "report" / name)
        assert pixels.shape[0] > 300 and pixels.shape[1] > 400
        assert pixels[..., :3].std() > 0.02, "not an empty sheet"
    header, *rows = (cells for cells in page.cells if cells)
    rows = [cells for cells in rows if len(cells) > 8]  # not those of answers
    assert header[:2] == ["task", "system"] and len(rows) == len(results["rows"])
    shown = Counter((cells[1], cells[2 if len(cells) < len(header) else 3]) for cells in rows)
    wanted = Counter((system_name(r), str(r["rounds"])) for r in results["rows"])
    assert shown == wanted
    environment = results["runs"]["."]["environment"]
    said = "".join(page.texts)
    assert environment["versions"]["torch"] in said and "seed 0" in said


def test_results_have_every_row_of_the_schema(finished):
    results = json.loads((finished / "results.json").read_text())
    rows = results["rows"]
    seen = {(r["system"], r["control"], r["rounds"]) for r in rows}
    controls = [("latent", c) for c in (None, "start", "null", "shuffled", "untrained")]
    systems = [*controls, ("text", None), ("decoder_alone", None)]
    assert seen == {(*s, depth) for s in systems for depth in (1, 2)}
    for r in rows:
        assert r["task"] == "tiny" and r["n"] == 6
        low, high = r["ci95"]
        assert 0 <= low <= r["accuracy"] <= high <= 1
        assert r["seconds"] > 0 and r["tokens"] > 0
    cost = {(r["system"], r["control"], r["rounds"]): r["latent_steps"] for r in rows}
    assert cost["latent", None, 1] == 4 and cost["latent", None, 2] == 10
    assert cost["latent", "null", 2] == 0 and cost["text", None, 2] == 0
    environment = results["runs"]["."]["environment"]
    assert environment["versions"]["torch"] == torch.__version__


def test_saved_links_answer_as_in_evaluation(finished):
    """``load`` needs nothing but the folder; answers equal those that the run wrote down."""
    system = rmas_train.load(finished)
    rows = make_rows(6, first=100)
    answers = system.answer([r["question"] for r in rows], rounds=2)
    lines = [
        json.loads(line) for line in (finished / "eval" / "answers.jsonl").read_text().splitlines()
    ]
    written = [
        line["text"]
        for line in lines
        if line["system"] == "latent" and line["control"] is None and line["rounds"] == 2
    ]
    assert [a.text for a in answers] == written
    assert all(a.latent_steps == 10 and 1 <= a.tokens <= 3 for a in answers)
    messages = system.messages(["red two"], rounds=2, latent_length=4)
    assert set(messages) == {
        (1, "planner-critic"),
        (1, "critic-solver"),
        (1, "solver-planner"),
        (2, "planner-critic"),
        (2, "critic-solver"),
    }
    assert messages[1, "critic-solver"].shape == (1, 4, 28)


def test_one_text_is_no_list_of_questions(finished):
    with pytest.raises(DataError, match="one text, 'red two'; give a list"):
        rmas_train.load(finished).answer("red two", rounds=1)


def test_results_of_other_links_are_called_so(finished, overrides, capsys):
    def report():
        stop_log()
        capsys.readouterr()
        assert main(["stage=report", f"run_dir={finished}"]) == 0
        return capsys.readouterr().out

    assert "warning" not in report()
    for stage in ("inner", "outer"):  # both are finished, so the same links are written again
        assert main([*overrides, f"stage={stage}", "resume=auto"]) == 0
        stop_log()
    assert "warning" not in report()
    links = finished / "outer" / "links" / "links.safetensors"
    links.write_bytes(links.read_bytes() + b" ")
    assert "trained again after its evaluation" in report()


def test_results_that_name_no_links_are_told_by_their_age(finished, capsys):
    path = finished / "eval" / "results.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in found.items() if k != "identity"}))
    for newer in (False, True):
        assert main(["stage=report", f"run_dir={finished}"]) == 0
        assert ("trained again" in capsys.readouterr().out) == newer
        (finished / "inner" / "links" / "links.safetensors").touch()


@pytest.mark.parametrize("links", ["a\x00b", "x" * 5000, "", "~"])
def test_results_whose_links_name_no_folder_are_reported(finished, links, capsys):
    path = finished / "eval" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"links": links}))
    assert main(["stage=report", f"run_dir={finished}"]) == 0
    assert "trained again" not in capsys.readouterr().out


def test_results_of_links_that_are_trained_again_are_set_aside(finished, overrides, capsys):
    assert main([*overrides, "stage=inner", "seed=1"]) == 0
    stop_log()
    assert main(["stage=report", f"run_dir={finished}"]) == 2
    assert "no eval/results.json" in capsys.readouterr().err
    assert main(["stage=report", f"run_dir={finished / 'earlier' / '1'}"]) == 0


def test_load_refuses_inner_links_and_empty_folders(finished, tmp_path):
    with pytest.raises(LinksError, match="inner links only"):
        rmas_train.load(finished / "inner")
    with pytest.raises(LinksError, match=r"no links\.json"):
        rmas_train.load(tmp_path)


@pytest.mark.slow
def test_the_same_command_twice_gives_the_same_numbers(overrides, workspace, capsys):
    runs = []
    for name in ("a", "b"):
        run = workspace / name / "run"
        assert main([*overrides, f"run_dir={run}"]) == 0
        stop_log()
        rows = json.loads((run / "results.json").read_text())["rows"]
        metrics = [
            json.loads(line) for line in (run / "outer" / "metrics.jsonl").read_text().splitlines()
        ]
        answers = answers_of(run)
        for record in [*rows, *metrics]:
            record.pop("seconds")
        runs.append((rows, metrics, answers))
    assert runs[0] == runs[1]


def answers_of(run):
    """Every record of an evaluation, but for the time that it took."""
    lines = (run / "eval" / "answers.jsonl").read_text().splitlines()
    return [json.loads(line) | {"seconds": 0} for line in lines]


def test_stages_one_by_one_equal_the_pipeline(overrides, workspace, finished, capsys):
    run = workspace / "single" / "run"
    for stage in ("inner", "outer", "eval"):
        assert main([*overrides, f"run_dir={run}", f"stage={stage}"]) == 0
        stop_log()
    for name in ("outer/links/links.safetensors", "inner/links/links.safetensors"):
        assert (run / name).read_bytes() == (finished / name).read_bytes(), name
    assert answers_of(run) == answers_of(finished)


def test_a_finished_run_is_evaluated_with_its_own_config(finished, capsys):
    typed = ["rounds=1,3", "evaluation.systems=[text,null]"]
    assert main(["stage=eval", f"run={finished}", *typed]) == 0
    stop_log()
    rows = json.loads((finished / "eval" / "results.json").read_text())["rows"]
    systems = [("latent", None), ("latent", "null"), ("text", None)]
    assert {(r["system"], r["control"], r["rounds"]) for r in rows} == {
        (*s, d) for s in systems for d in (1, 3)
    }


def test_a_finished_run_is_analysed_with_its_own_config(finished):
    """Before, the relay's own config was taken, and its links did not fit."""
    assert main(["stage=analyse", f"run={finished}", "evaluation.max_rows=4", "rounds=1"]) == 0
    stop_log()
    found = json.loads((finished / "analyse" / "messages.json").read_text())
    assert found["rows"] == 4 and found["rounds"] == 1


def test_the_readmes_command_for_own_agents_and_data(workspace, agent_folders, capsys):
    argv = ["experiment=none", "data=jsonl", "data.folder=data", "data.prompts=prompts"]
    argv += [f"agents.{name}.model={folder}" for name, folder in agent_folders.items()]
    argv += ["training.inner.steps=2", "training.outer.steps=2", "evaluation.max_new_tokens=3"]
    assert main(argv) == 0
    stop_log()
    assert (workspace / "outputs" / "mine" / "results.json").is_file()


def test_edges_that_cannot_learn_are_named(overrides, workspace, capsys):
    assert main([*overrides, "rounds=1"]) == 0
    stop_log()
    assert (
        "edge solver-planner gets no gradient at rounds=1; its link is frozen"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    "options",
    [
        ["links.edge_input=hidden", "training.outer.train_inner=true"],
        ["links=released"],
        ["links.variant=res_2layer", "links.start_noise=2.2"],
        ["links.variant=linear", "links.norm=none", "training.inner.inner_states=rollout"],
    ],
)
def test_options_that_change_the_method_run(overrides, options):
    typed = [*overrides, *options, "evaluation.systems=[]", "latent_length=3"]
    assert main(typed) == 0
    stop_log()


def test_a_sweep_gives_one_table_and_one_heat_map(overrides, workspace, capsys, monkeypatch):
    argv = ["-m", *overrides, "rounds=1,2", "latent_length=2,3", "evaluation.systems=[]"]
    argv = [a for a in argv if a != "rounds=2"]
    assert main(argv) == 0
    stop_log()
    root = workspace / "run"
    rows = json.loads((root / "results.json").read_text())["rows"]
    seen = {(r["trained_rounds"], r["rounds"], r["latent_length"]) for r in rows}
    assert seen == {(t, r, m) for t in (1, 2) for r in (1, 2) for m in (2, 3)}
    assert (root / "report" / "sweep.png").stat().st_size > 5000
    assert {"depths-0", "sweep-0-1"} <= set(Page(root / "report" / "index.html").figures)
    swept = json.loads((root / "results.json").read_text())["sweep"]
    assert swept["keys"] == ["rounds", "latent_length"] and not swept["missing"]
    assert [r["swept"]["rounds"] for r in rows] == [str(r["trained_rounds"]) for r in rows]
    assert len(list(root.glob("*/inner"))) == 1, "equal inner links are trained once"


def test_help_lists_groups_and_options(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for needle in (
        "experiment",
        "relay_scrambled",
        "training.outer.lr",
        "latent_length",
        "stage=inner",
    ):
        assert needle in out


@pytest.mark.slow
@pytest.mark.parametrize("tracker", ["wandb", "tensorboard", "trackio"])
def test_trackers_get_training_results_and_report_offline(
    overrides, workspace, monkeypatch, tracker
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(workspace / "trackio"))
    few = ["evaluation.systems=[]", "training.inner.steps=2", "training.outer.steps=2"]
    typed = [sys.executable, "-m", "rmas_train", *overrides, f"tracking=[{tracker}]", *few]
    done = subprocess.run(typed, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    run = workspace / "run"
    if tracker == "trackio":
        kept = b"".join(p.read_bytes() for p in (workspace / "trackio").rglob("*") if p.is_file())
        for found in ("gradient_norm/outer.planner-critic", "accuracy/tiny/latent", "run/eval"):
            assert found.encode() in kept
        assert b"trackio.table" in kept and b"trackio.markdown" in kept
    else:
        pattern = {"wandb": "**/*.wandb", "tensorboard": "**/events.out.tfevents.*"}[tracker]
        for stage in ("inner", "outer", "eval"):
            (file,) = (run / stage).glob(pattern)
            assert file.stat().st_size > 0
        kept = b"".join(path.read_bytes() for path in (run / "eval").rglob("*") if path.is_file())
        assert b"accuracy/tiny/latent" in kept
