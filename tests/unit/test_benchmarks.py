"""The paper's benchmarks: files in the published schemas, to rows that can be asked and graded."""

import json
import os
import pickle
import sys
import zlib
from base64 import b64encode
from importlib import util
from pathlib import Path

import benchmark_sets as sets
import pytest
import yaml

from rmas_train.compose import compose, groups
from rmas_train.config import Config, DataConfig
from rmas_train.data.rows import read_table
from rmas_train.errors import ConfigError, DataError
from rmas_train.evaluation.graders import make_grader
from rmas_train.recipes.options import run_script
from rmas_train.recipes.packing import check_manifest
from rmas_train.runs.tables import test_table as read_test_table

pytestmark = pytest.mark.filterwarnings("ignore::rmas_train.errors.SandboxWarning")
FOLDER = Path(__file__).resolve().parents[2] / "data_recipes" / "benchmark"
COUNTS = {
    "math500": 500,
    "aime25": 30,
    "aime26": 30,
    "gpqa": 198,
    "medqa": 300,
    "medqa_usmle": 1273,
    "livecodebench": 1055,
    "mbppplus": 378,
    "hotpotqa": 7405,
    "bamboogle": 125,
}
RELEASED = "eval/released/"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"


@pytest.fixture(scope="module")
def recipe():
    sys.path.insert(0, str(FOLDER))
    spec = util.spec_from_file_location("recipe_benchmark", FOLDER / "build.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(FOLDER))


def preset(name, *typed):
    return compose(["experiment=sequential_light", "stage=plan", f"data=eval/{name}", *typed])


def built(recipe, tmp_path, name, source=None, **options):
    """The config's data folder, as its recipe makes it."""
    config = preset(name, f"data.folder={tmp_path / 'out'}", "allow_code_execution=true")
    given = config.data.recipe_options | {"source": source or sets.make(tmp_path, name)} | options
    recipe.run(["--out", config.data.folder, *(f"--{k}={v}" for k, v in given.items())])
    check_manifest(Path(config.data.folder))
    config.data.test_rows = len(sets.NUMBERS)
    return config, read_test_table(config)


def refused(recipe, monkeypatch, capsys, tmp_path, *typed):
    """The one line of a build that ends with 2 and writes nothing."""
    monkeypatch.setattr(sys, "argv", ["build.py", "--out", str(tmp_path / "out"), *map(str, typed)])
    assert run_script(recipe.run) == 2 and not (tmp_path / "out").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_every_benchmark_says_how_many_rows_it_has():
    plain = [g for g in groups()["data"] if g.startswith("eval/") and RELEASED not in g]
    assert {g.removeprefix("eval/") for g in plain} == set(COUNTS)
    for name, count in COUNTS.items():
        data = preset(name).data
        assert (data.name, data.test_rows, data.train) == (name, count, None)
        assert set(data.hub) == ({data.recipe_options["hub"]} if name != "medqa" else set())
        assert set(data.hub.values()) <= {None}  # stage=pin finds the commits


def released_cells():
    """(system, benchmark) -> length, depth, and its temperature, from the document's table."""
    text = DOCUMENT.read_text(encoding="utf-8").split("## As the release evaluates")[1]
    table = [line for line in text.split("\n## ")[0].splitlines() if line.startswith("|")]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table]
    systems, found = rows[0][1:-1], {}
    for name, *cells, temperature in rows[2:]:
        for system, cell in zip(systems, cells, strict=True):
            if cell != "–":
                length, depth, *own = cell.split(", ")
                found[system, name] = int(length), int(depth), float(own[0] if own else temperature)
    return found


def test_each_cell_of_the_release_is_a_choice_with_its_own_length_and_depth():
    cells = released_cells()
    assert len(cells) == 36
    chosen = {g for g in groups()["data"] if g.startswith(RELEASED)}
    assert chosen == {f"{RELEASED}{system}/{name}" for system, name in cells}
    folder = Path(__file__).resolve().parents[2] / "conf" / "data"
    for (system, name), (length, depth, temperature) in cells.items():
        file = yaml.safe_load((folder / f"{RELEASED}{system}/{name}.yaml").read_text("utf-8"))
        assert file["defaults"] == [f"/data/eval/{name}@_global_"]
        own = file["evaluation"]
        assert (file["latent_length"], own["rounds"]) == (length, [depth])
        assert (own["temperature"], own["top_p"]) == (temperature, 0.95)
        is_code = name in ("mbppplus", "livecodebench")
        assert own["retry_tokens"] == (256 if is_code else 16)
        assert own.get("lenient", False) != is_code


@pytest.mark.parametrize("cell", ["sequential_light/math500", "deliberation/livecodebench"])
def test_a_cell_stands_above_its_benchmark(cell):
    system, name = cell.split("/")
    config = compose([f"experiment={system}", "stage=plan", f"data={RELEASED}{cell}"])
    length, depth, temperature = released_cells()[system, name]
    assert (config.latent_length, config.evaluation.rounds) == (length, [depth])
    assert config.evaluation.temperature == temperature
    assert config.data.grader == preset(name).data.grader


@pytest.mark.parametrize("name", sets.SETS)
def test_a_set_as_published_becomes_rows_that_can_be_graded(recipe, tmp_path, name):
    config, table = built(recipe, tmp_path, name)
    make_grader(config).check(table)
    assert len(table) == 8 and all(row["question"] and row["answer"] for row in table.rows)
    assert [row["source_row"] for row in table.rows] == list(range(8))


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("math500", r"\boxed{3/2}", r"\boxed{\frac{2}{3}}"),
        ("aime26", "It is 3.", "It is 33."),
        ("hotpotqa", r"So \boxed{Gardener 1}", "I planted the gardener 1"),
        ("bamboogle", r"\boxed{\text{king 2}}", "king"),
    ],
)
def test_texts_are_graded_by_the_benchmarks_own_grader(recipe, tmp_path, name, right, wrong):
    config, table = built(recipe, tmp_path, name)
    grader = make_grader(config)
    assert grader.grade(table.rows[0], right).right
    assert not grader.grade(table.rows[0], wrong).right


@pytest.mark.parametrize("name", ["gpqa", "medqa", "medqa_usmle"])
def test_options_are_shuffled_by_seed_and_content(recipe, tmp_path, name):
    rows, kinds = sets.SETS[name][0](), sys.modules["kinds"].KINDS

    def made(seed, of):
        kind = kinds[name if name == "gpqa" else "medqa"]
        return {r["question"]: r["answer"] for r in (kind(row, "x", seed) for row in of)}

    class Seed:
        option_seed = 42

    class Other:
        option_seed = 43

    found = made(Seed, rows)
    assert found == made(Seed, rows[::-1])  # whatever the order of rows
    assert found != made(Other, rows)
    letters = set(found.values()) | set(made(Other, rows).values())
    assert letters <= set("ABCD") and len(letters) > 2
    for (question, letter), row in zip(found.items(), rows, strict=True):
        options = dict(line.split(". ", 1) for line in question.splitlines()[-4:])
        gold = row.get("Correct Answer", row.get("answer")).strip()
        assert options[letter] == gold and list(options) == list("ABCD")


def test_an_answer_without_an_option_is_not_counted_as_the_first(recipe, tmp_path):
    config, table = built(recipe, tmp_path, "gpqa")
    grader = make_grader(config)
    grades = [grader.grade(row, "I cannot say.") for row in table.rows]
    assert not any(g.right or g.readable for g in grades)
    right = [grader.grade(row, rf"\boxed{{{row['answer']}}}").right for row in table.rows]
    assert all(right)


def test_programs_are_graded_by_all_tests_of_their_set(recipe, tmp_path):
    config, table = built(recipe, tmp_path, "mbppplus")
    config.tools.python_packages = False  # these tests need none
    grader, row = make_grader(config), table.rows[1]
    assert "assert times_2(2)==4" in row["question"] and "isclose" not in row["question"]
    assert grader.grade(row, f"Here:\n{row['answer']}").right
    shown = "```python\ndef times_2(n):\n    return {0: 0, 2: 4}.get(n)\n```"
    assert not grader.grade(row, shown).right  # the shown tests alone


def test_a_contests_problems_read_or_are_called(recipe, tmp_path):
    config, table = built(recipe, tmp_path, "livecodebench")
    grader = make_grader(config)
    reads = "```python\na, b = map(int, input().split())\nprint(a + b)\n```"
    calls = "```python\nclass Solution:\n    def shift(self, xs: List[int], n: int):\n"
    calls += "        return [x + n for x in xs]\n```"
    one, two, three = table.rows[:3]
    assert "stdin" in one["question"] and "class Solution" in two["question"]
    assert grader.grade(one, reads).right and grader.grade(two, calls).right
    assert not grader.grade(one, calls).right and not grader.grade(two, reads).right
    public = "```python\nprint(4)\n```"  # right for the public case of the third
    assert not grader.grade(three, public).right
    out = tmp_path / "again"
    _, table = built(recipe, out, "livecodebench", tests="public")
    assert grader.grade(table.rows[2], public).right


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("sprung",))


def test_hidden_cases_are_never_unpickled(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for value in (Trap(), {"a": "[]"}, ["[]"], 5):
        rows = sets.livecodebench()
        rows[2]["private_test_cases"] = b64encode(zlib.compress(pickle.dumps(value))).decode()
        source = sets.write(tmp_path / "test.jsonl", rows)
        typed = ("--kind=livecodebench", f"--source={source}")
        line = refused(recipe, monkeypatch, capsys, tmp_path, *typed)
        assert "line 3" in line and "private_test_cases is no plain text" in line
    rows[2]["private_test_cases"] = "eJy!"
    source = sets.write(tmp_path / "test.jsonl", rows)
    line = refused(recipe, monkeypatch, capsys, tmp_path, *typed)
    assert "cannot be unpacked" in line and not (tmp_path / "sprung").exists()


def test_what_is_wrong_with_a_set_is_one_line(recipe, tmp_path, monkeypatch, capsys):
    good = sets.make(tmp_path, "aime26")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    sets.write(tmp_path / "no_gold.jsonl", [{"question": "q", "answer": " "}])
    (tmp_path / "cells.csv").write_text("question,answer\na,b\nc\n")
    (tmp_path / "empty.jsonl").write_text("")
    cases = {
        "broken.parquet": ([], "not Parquet"),
        "no_gold.jsonl": ([], "line 1: column 'answer' is ' ', no text"),
        "cells.csv": ([], "row 1: another number of cells than the 2 columns"),
        "empty.jsonl": ([], "no rows; check the split"),
        "missing.csv": ([], "no such file"),
        "aime26": (["--split=test"], "no file with 'test' in its name there, but data/train-"),
        "aime26/": (["--split=train"], "no column 'question'. Known: answer, "),
    }
    for source, (typed, message) in cases.items():
        options = (f"--source={tmp_path / source}", *typed)
        assert message in refused(recipe, monkeypatch, capsys, tmp_path, *options), source
    options = (f"--source={good}", "--split=train", "--columns=question=problems")
    line = refused(recipe, monkeypatch, capsys, tmp_path, *options)
    assert (
        "no column 'problems', which columns names for 'question'. Did you mean 'problem'" in line
    )
    for typed, message in (
        (["--kind=gpa"], "kind=gpa: no such kind. Did you mean 'gpqa'"),
        (["--tests=some"], "tests=some: no such choice"),
        (["--columns=question", "--source=x.csv"], "columns=question: write our=theirs"),
        (["--rows=0", "--source=x.csv"], "rows=0: give 1 or more"),
        ([], "neither hub nor source is given"),
    ):
        assert message in refused(recipe, monkeypatch, capsys, tmp_path, *typed)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gpqa", {"Incorrect Answer 2": ""}, "row 0: column 'Incorrect Answer 2' is ''"),
        ("medqa", {"options": "A"}, "row 0: column 'options' is 'A'"),
        ("medqa", {"answer": "kiwi"}, "row 0: answer 'kiwi' is none of the options"),
        ("mbppplus", {"test_list": None}, "row 0: column 'test_list' is None"),
        ("livecodebench", {"public_test_cases": "{}"}, "line 1: no tests; data.grader=code needs"),
        ("livecodebench", {"metadata": "{"}, "line 1, metadata: not JSON"),
    ],
)
def test_a_malformed_row_is_named(recipe, tmp_path, name, change, message):
    rows = sets.SETS[name][0]()
    rows[0] |= change
    if "public_test_cases" in change:
        rows[0] |= {"private_test_cases": "[]"}
    source = sets.make(tmp_path, name, rows)
    with pytest.raises(DataError) as caught:
        config, table = built(recipe, tmp_path, name, source)
        make_grader(config).check(table)
    assert message in str(caught.value)


def test_another_number_of_rows_is_refused(recipe, tmp_path):
    config, _ = built(recipe, tmp_path, "aime25")
    config.data.test_rows = 30
    with pytest.raises(
        DataError, match=r"test.jsonl: 8 rows, but data.test_rows=30; get the whole"
    ):
        read_test_table(config)


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "csv"])
def test_any_file_with_questions_and_answers_is_a_benchmark(tmp_path, kind):
    rows = [{"prompt": f"{i} + 1?", "response": i + 1, "level": "easy"} for i in range(3)]
    sets.write(tmp_path / f"mine.{kind}", rows)
    columns = {"question": "prompt", "answer": "response"}
    data = DataConfig(folder=str(tmp_path), test=f"mine.{kind}", columns=columns, grader="math")
    table = read_test_table(Config(stage="eval", data=data))
    assert [(r["question"], r["answer"]) for r in table.rows][1] == ("1 + 1?", "2")
    assert table.where(2).endswith(f"mine.{kind}, line 3")
    make_grader(Config(data=data)).check(table)
    with pytest.raises(DataError, match=r"line 1: no column 'prompts', which data.columns names"):
        read_table(tmp_path / f"mine.{kind}", {"question": "prompts"})
    with pytest.raises(DataError, match="line 1: no question"):
        read_table(tmp_path / f"mine.{kind}")


def test_columns_that_hold_no_text_are_refused(tmp_path):
    path = sets.write(tmp_path / "a.jsonl", [{"question": "q", "right": True}])
    with pytest.raises(
        DataError, match=r"column 'right' \(data.columns: answer\) is True, no text"
    ):
        read_table(path, {"answer": "right"})


def test_a_benchmarks_settings_stand_above_the_experiments():
    assert compose(["experiment=sequential_light"]).evaluation.max_new_tokens == 1000
    assert preset("gpqa").evaluation.max_new_tokens == 4000
    assert preset("gpqa", "evaluation.max_new_tokens=7").evaluation.max_new_tokens == 7
    assert preset("gpqa").evaluation.batch_size == 16  # the experiment's, where it says nothing
    mixture = compose(["experiment=mixture", "stage=plan", "data=eval/gpqa"])
    assert (mixture.data.prompts, mixture.data.task) == ("prompts/mixture", "choice")


def test_there_is_nothing_to_train_on():
    for stage in ("inner", "outer", "pipeline"):
        with pytest.raises(ConfigError, match=f"data.train=null with stage={stage}"):
            preset("math500", f"stage={stage}")


def test_the_examples_row_of_the_recipe_is_a_benchmark():
    rows = [json.loads(line) for line in (FOLDER / "sample.jsonl").read_text().splitlines()]
    assert len(rows) == 8 and all(set(row) == {"question", "answer"} for row in rows)
