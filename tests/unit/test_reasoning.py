"""Rows of reasoning-gym and their grader, with a small library in its place; it is an extra."""

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from rmas_train.agents.prompt_files import columns_of, read_prompt
from rmas_train.compose import compose
from rmas_train.config import Config, DataConfig
from rmas_train.data.rows import read_table, table_of
from rmas_train.errors import ConfigError, DataError
from rmas_train.evaluation import reasoning
from rmas_train.evaluation.graders import make_grader
from rmas_train.recipes.options import run_script

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "data_recipes" / "reasoning_gym"


def load():
    spec = importlib.util.spec_from_file_location("recipe_reasoning_gym", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load()


class Base:
    """As the library's base class: the default scorer compares texts."""

    name = ""

    def __init__(self, config):
        self.config = config

    def __len__(self):
        return self.config.size

    def __getitem__(self, i):
        answer = self.answer((self.config.seed or 0) + i)
        meta = {"source_dataset": self.name, "terms": (1, 2)}
        return {"question": f"What comes after {i}?", "answer": answer, "metadata": meta}

    def answer(self, number):
        return str(number + self.config.step)

    def score_answer(self, answer, entry):
        return 1.0 if answer == entry["answer"] else 0.01


class Grid(Base):
    name = "grid"

    def answer(self, number):
        return f"{number} 1\n2 3"


class Evaluating(Base):
    name = "evaluating"

    def score_answer(self, answer, entry):
        return 1.0 if eval(answer) == int(entry["answer"]) else 0.0


class Empty(Base):
    name = "empty"

    def answer(self, number):
        return None


class Failing(Base):
    name = "failing"

    def answer(self, number):
        raise RuntimeError("out of\nwords")


class Successor(Base):
    name = "successor"


@dataclass
class Settings:
    step: int = 1
    seed: int | None = None
    size: int = 500

    def __post_init__(self):
        assert isinstance(self.step, int) and self.step > 0, "step must be positive"


@pytest.fixture(autouse=True)
def library(monkeypatch):
    known = {c.name: (c, Settings) for c in (Successor, Grid, Evaluating, Empty, Failing)}
    parts = {name: ModuleType(name) for name in ("reasoning_gym",)}
    for part in ("factory", "dataset"):
        parts[f"reasoning_gym.{part}"] = ModuleType(part)
    parts["reasoning_gym.factory"].DATASETS = known
    parts["reasoning_gym.dataset"].ProceduralDataset = Base
    face = parts["reasoning_gym"]
    face.create_dataset = lambda name, **given: known[name][0](Settings(**given))
    face.get_score_answer_fn = lambda name: known[name][0](Settings()).score_answer
    for name, module in parts.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(build, "version", lambda name: "0")
    reasoning.scorer.cache_clear()
    yield
    reasoning.scorer.cache_clear()


def make(out, *options):
    build.run(["--out", str(out), "--dataset", "successor", "--rows", "40", *options])
    return {split: read_table(out / f"{split}.jsonl") for split in ("train", "valid", "test")}


def grader(**options):
    return make_grader(Config(data=DataConfig(grader="reasoning_gym"), **options))


def row(name="successor", answer=" 3"):
    entry = {"answer": answer.strip(), "metadata": {"source_dataset": name}}
    return {"question": "q", "answer": answer, "entry": json.dumps(entry)}


def test_rows_carry_what_the_scorer_needs(tmp_path):
    tables = make(tmp_path / "a", "--settings", "step=3", "--seed", "2")
    questions = [r["question"] for table in tables.values() for r in table.rows]
    assert len(questions) == len(set(questions)) == 40 and len(tables["test"]) == 4
    for table in tables.values():
        grader().check(table)
    first = tables["train"].rows[0]
    assert int(first["answer"]) == first["source_row"] + 2 + 3 and first["note"] == first["answer"]
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["source"] == {"name": "successor", "version": "0", "licence": "Apache-2.0"}


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        (
            ["--dataset", "sucessor"],
            "dataset=sucessor: no such generator. Did you mean 'successor'",
        ),
        (["--settings", "stop=3"], "successor has no stop. Did you mean 'step'?"),
        (["--settings", "seed=3"], "successor has no seed"),
        (["--settings", "step=0"], "settings=step=0: step must be positive"),
        (["--settings", "step=["], "write name=value, with commas"),
        (["--rows", "0"], "rows=0: give 1 or more"),
        (["--dataset", "empty"], "no row was kept of 40 (no_answer 40)"),
        (["--dataset", "failing"], "dataset=failing, row 0: out of words; give other settings"),
    ],
)
def test_bad_options_are_one_line(options, needle, tmp_path, monkeypatch, capsys):
    typed = ["--out", str(tmp_path / "out"), "--dataset", "successor", "--rows", "40"]
    monkeypatch.setattr(sys, "argv", ["build.py", *typed, *options])
    assert run_script(build.run) == 2 and not (tmp_path / "out").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and needle in line


def test_without_the_library_the_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    monkeypatch.delitem(sys.modules, "reasoning_gym.factory")
    for call in (grader, lambda: make(tmp_path / "a")):
        with pytest.raises(ConfigError, match=r"pip install 'rmas_train\[reasoning\]'"):
            call()


@pytest.mark.parametrize(
    ("text", "right", "read"),
    [
        (" 3", True, "3"),
        (" 3\nQuestion: and then?", True, "3"),
        ("\n3 ", True, "3"),
        (" 4", False, "4"),
        (" 3 or so", False, "3 or so"),
        ("  \n", False, None),
    ],
)
def test_the_first_line_is_scored(text, right, read):
    grade = grader().grade(row(), text)
    assert (grade.right, grade.readable, grade.read) == (right, read is not None, read)


def test_as_many_lines_as_the_answer_has():
    gold = row("grid", " 0 1\n2 3")
    assert grader().grade(gold, " 0 1\n2 3\nand more").right
    assert not grader().grade(gold, " 0 1").right


def test_a_scorer_that_may_run_the_text_has_to_be_allowed():
    with pytest.raises(
        ConfigError, match=r"scorer of evaluating \(.*line 1\) may run .* add allow_"
    ):
        grader().check(table_of([row("evaluating")], "rows"))
    with pytest.raises(ConfigError, match="allow_code_execution=true"):
        grader().grade(row("evaluating"), "1 + 2")
    allowed = grader(allow_code_execution=True)
    assert allowed.grade(row("evaluating"), "1 + 2").right
    assert not allowed.grade(row("evaluating"), "no Python").right  # its scorer fails


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        ({"entry": None}, "column 'entry' is None"),
        ({"entry": "{"}, "column 'entry' is '{'"),
        ({"entry": "[]"}, "needs the JSON of an entry"),
        ({"entry": '{"metadata": {"source_dataset": "gone"}}'}, "needs the JSON of an entry"),
        ({"entry": '{"metadata": {"source_dataset": []}}'}, "needs the JSON of an entry"),
        ({"answer": " 4"}, "refuses the answer ' 4'"),
    ],
)
def test_rows_that_cannot_be_graded_are_named(change, needle):
    with pytest.raises(DataError, match="line 1") as error:
        grader().check(table_of([row() | change], "rows"))
    assert needle in str(error.value)


def test_the_experiment_shows_the_question_to_the_planner_alone():
    config = compose(["experiment=reasoning", "small=/models", "data.recipe_options.dataset=gcd"])
    assert config.data.folder == "outputs/data/reasoning/gcd_rows5000_seed0"
    prompts = {n: read_prompt(ROOT / config.data.prompts, n, None, None) for n in config.agents}
    assert [columns_of(prompts[n]) for n in config.topology.order] == [{"question"}, set()]
    sample = [json.loads(line) for line in (FOLDER / "sample.jsonl").read_text().splitlines()]
    assert len(sample) == 8 and {"note", "answer", "entry"} <= sample[0].keys()
    assert make_grader(config)


def test_settings_can_be_typed():
    typed = "data.recipe_options.settings='min_terms=2,max_terms=3'"
    options = compose(["experiment=reasoning", typed]).data.recipe_options
    assert options["settings"] == "min_terms=2,max_terms=3"
