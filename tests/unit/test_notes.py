"""The notes: what the recipe writes, what is held out, and the configs of its runs."""

import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import pytest

from rmas_train.agents.prompt_files import columns_of, read_prompt
from rmas_train.compose import compose, config_from, to_yaml
from rmas_train.data.rows import read_table
from rmas_train.errors import AgentError, ConfigError
from rmas_train.evaluation.graders import make_grader
from rmas_train.loading.model_files import find_source
from rmas_train.topology import build_topology

ROOT = Path(__file__).resolve().parents[2]
NOTES = ROOT / "data_recipes" / "notes"
FILES = ("train", "valid", "test", "test_names", "test_words", "test_both")


def load(name, known_as=None):
    known_as = known_as or name
    spec = importlib.util.spec_from_file_location(known_as, NOTES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[known_as] = module
    spec.loader.exec_module(module)
    return module


sets = load("closed_sets")
load("hops")
build = load("build", "notes_build")  # other recipes have a build.py too


def make(out, *options):
    build.main(["--out", str(out), *map(str, options)])
    return {name: read_table(out / f"{name}.jsonl").rows for name in FILES}


def facts_of(row):
    """(name, word) of each sentence, read from the passage by itself."""
    names = {*sets.NAMES, *sets.HELD_OUT_NAMES}
    found = []
    for sentence in re.findall(r"[^.]+\.", row["passage"]):
        words = re.findall(r"\w+", sentence)
        assert words[0] in names and words[-1] in row["choices"]
        found.append((words[0], words[-1]))
    return found


def key(row):
    return frozenset(facts_of(row)), row["question"]


def asked_of(row):
    return row["answer"].strip().split(", ")


@pytest.mark.parametrize(
    ("facts", "asked", "test"), [(1, 1, 192), (2, 2, 60), (4, 1, 60), (12, 4, 60)]
)
def test_sizes_answers_and_splits(tmp_path, facts, asked, test):
    options = ("--train", 300, "--test", test, "--unseen", test, "--facts", facts, "--asked", asked)
    files = make(tmp_path, *options)
    assert {n: len(rows) for n, rows in files.items()} == dict.fromkeys(FILES, test) | {
        "train": 300
    }
    for row in (row for rows in files.values() for row in rows):
        owner = dict(facts_of(row))
        assert len(owner) == facts == len(set(owner.values()))  # other names, other words
        names = [n for n in re.findall(r"\w+", row["question"]) if n in owner]
        assert [owner[n] for n in names] == asked_of(row) and len(names) == asked
        assert row["note"] == row["answer"] and row["answer"].startswith(" ")
        assert len(row["choices"]) == 16 and set(owner.values()) <= set(row["choices"])
    keys = {name: [key(row) for row in rows] for name, rows in files.items()}
    held = [k for name in FILES[1:] for k in keys[name]]
    assert len(set(held)) == len(held) and not set(held) & set(keys["train"])


def test_unseen_names_and_words_are_in_no_training_row(tmp_path):
    files = make(tmp_path, "--train", 2000, "--test", 100, "--unseen", 100, "--facts", 8)
    names = {n: {name for row in files[n] for name, _ in facts_of(row)} for n in FILES}
    words = {n: {word for row in files[n] for _, word in facts_of(row)} for n in FILES}
    answers = {n: {word for row in files[n] for word in asked_of(row)} for n in FILES}
    for name in ("test", "valid"):
        assert names[name] <= names["train"] and words[name] <= words["train"]
    assert not names["test_names"] & names["train"] and words["test_names"] <= words["train"]
    assert not answers["test_words"] & words["train"] and names["test_words"] <= names["train"]
    assert not names["test_both"] & names["train"] and not answers["test_both"] & words["train"]


def test_words_and_names_are_one_word_each_and_stand_once():
    names = [*sets.NAMES, *sets.HELD_OUT_NAMES]
    words = [word for kind in sets.KINDS for word in kind.words]
    assert len(names) == 40 and len(sets.HELD_OUT_NAMES) == 12
    for found in (names, words):
        assert len({w.lower() for w in found}) == len(found) and all(w.isalpha() for w in found)
    assert all((len(k.known), len(k.held_out)) == (12, 4) for k in sets.KINDS)


def test_the_seed_decides_and_the_sample_is_the_first_rows(tmp_path):
    small = ("--train", 8, "--test", 5, "--unseen", 5)
    one, again, other = (
        make(tmp_path / n, *small, "--seed", s) for n, s in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == again and one["train"] != other["train"] and one["test"] != other["test"]
    sample = (NOTES / "sample.jsonl").read_text().splitlines()
    default = make(tmp_path / "d", "--train", 8)["train"]
    assert [json.loads(line) for line in sample] == [
        {k: v for k, v in row.items() if k != "_line"} for row in default
    ]


def test_the_other_form_notes_the_whole_passage(tmp_path):
    rows = make(tmp_path, "--train", 5, "--test", 5, "--unseen", 5, "--planner-sees", "passage")[
        "train"
    ]
    assert all(row["note"] == f" {row['passage']}" for row in rows)


@pytest.mark.parametrize("facts", [1, 2, 4, 8])
def test_chance_lines(tmp_path, facts):
    make(tmp_path, "--train", 1, "--test", 1, "--unseen", 1, "--facts", facts)
    lines = json.loads((tmp_path / "references.json").read_text())
    assert lines["1"] == {"ceiling": 1, "guess_shown": 1 / facts, "guess_any": 1 / 16}


def test_sizes_are_counted_as_they_are():
    source = build.Source(1, 1, sets.HELD_OUT_NAMES, has_new_words=True)
    assert source.size == 12 * 4 * len(sets.KINDS)
    two = build.Source(2, 1, sets.NAMES)
    assert two.size == len(sets.KINDS) * math.comb(28, 2) * 12 * 11 * 2
    assert build.most_test_rows(1, 1) == 336 and build.most_unseen_rows(1, 1) == 192


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        (["--facts", "0"], "--facts 0: give 1 to 12"),
        (["--facts", "13"], "--facts 13: give 1 to 12"),
        (["--facts", "x"], "invalid int value: 'x'"),
        (["--asked", "5", "--facts", "8"], "--asked 5 of --facts 8: give 1 to 4"),
        (["--asked", "3", "--facts", "2"], "--asked 3 of --facts 2: give 1 to 2"),
        (["--asked", "0"], "--asked 0"),
        (["--train", "0"], "--train 0"),
        (["--test", "0"], "--test 0"),
        (["--facts", "1"], "--test 1000 with --facts 1 and --asked 1: there are too few"),
        (["--facts", "1", "--test", "9"], "--unseen 300 with --facts 1 and --asked 1"),
        (["--unseen", "0"], "--unseen 0"),
        (["--planner_sees", "all"], "invalid choice: 'all'"),
        (["--fact", "3"], "unrecognized arguments: --fact 3"),
    ],
)
def test_bad_options_are_one_line(tmp_path, capsys, options, needle):
    with pytest.raises(SystemExit) as end:
        build.main(["--out", str(tmp_path / "out"), *options])
    assert end.value.code == 2 and not (tmp_path / "out").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and needle in line


EXPERIMENTS = {
    "notes": ["qwen_coder", "gemma3"],
    "notes_reversed": ["gemma3", "qwen_coder"],
    "notes_smollm2": ["qwen_coder", "smollm2"],
    "notes_three": ["qwen_coder", "gemma3", "qwen_coder"],
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_take_their_models_from_a_folder_or_the_hub(name):
    local = compose([f"experiment={name}", "small=/models"])
    order = local.topology.order
    assert [local.agents[n].model for n in order] == [f"/models/{m}" for m in EXPERIMENTS[name]]
    assert all(a.revision is None and a.template == "none" for a in local.agents.values())
    build_topology(local.topology, local.agents)
    assert "${" not in to_yaml(local) and local.data.folder.endswith("facts4_asked1_question_seed0")
    check_prompts(local)


@pytest.mark.parametrize("name", ["notes", "notes_three"])
def test_the_hub_and_the_other_form(name):
    typed = [f"experiment={name}", "data.recipe_options.planner_sees=passage", "seed=3"]
    config = compose([*typed, "data.recipe_options.facts=8"])
    assert config.small is None and all(a.model.count("/") == 1 for a in config.agents.values())
    assert config.data.folder.endswith("facts8_asked1_passage_seed3")
    check_prompts(config)


def check_prompts(config):
    """They name columns that are there, and show the passage to nobody but the planner."""
    sees = config.data.recipe_options["planner_sees"]
    prompts = {n: read_prompt(ROOT / config.data.prompts, n, None, None) for n in config.agents}
    assert ("question" in columns_of(prompts["planner"])) == (sees == "question")
    assert not any("passage" in columns_of(prompts[n]) for n in config.agents if n != "planner")
    assert config.data.role_texts.keys() == config.agents.keys()
    row = json.loads((NOTES / "sample.jsonl").read_text().splitlines()[0])
    columns = set().union(*map(columns_of, prompts.values())) | set(config.data.role_texts.values())
    assert columns <= row.keys()
    assert make_grader(config).grade(row, row["answer"]).right


def test_a_folder_that_nobody_uses_or_that_is_not_there_is_one_line():
    with pytest.raises(ConfigError, match=r"small=/models: no agent's model comes from there"):
        compose(["experiment=relay", "small=/models"])
    config = config_from({"experiment": "notes", "small": "/nowhere"})
    with pytest.raises(AgentError, match=r"agents\.planner\.model=/nowhere/qwen_coder: no such"):
        find_source("planner", config.agents["planner"])


def test_a_saved_run_has_its_models_already(tmp_path):
    config = compose(["experiment=notes", "small=/models"])
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "config.yaml").write_text(to_yaml(config))
    typed = ["stage=eval", f"run={tmp_path}", "data.recipe=notes"]
    assert compose(typed).agents["solver"].model == "/models/gemma3"
    with pytest.raises(ConfigError, match=r"small: stage=eval run=\.\.\. takes its models from"):
        compose([*typed, "small=/other"])


def test_hops_lead_from_note_to_note(tmp_path):
    """Every row walked by reading the sentences alone; no row of one file is in another."""
    build.main(["--out", str(tmp_path), "--hops", "3", "--train", "300", "--test", "40"])
    seen = {}
    for name in ("train", "valid", "test", "test_names"):
        for row in read_table(tmp_path / f"{name}.jsonl").rows:
            notes = {}
            for column, verb in (
                ("planner_notes", " lives in "),
                ("critic_notes", " has a "),
                ("solver_notes", " belongs to "),
            ):
                facts = [s.strip(" .").split(verb) for s in row[column].split(". ")]
                notes |= {key.removeprefix("The "): value for key, value in facts}
            here, people = row["start"], [row["start"]]
            for _ in range(3 * row["rounds_needed"]):
                here = notes[here]
                people += [here] if here in row["choices"] else []
            assert row["answer"] == f" {here}" and row["rounds_most"] == row["rounds_needed"]
            assert len(set(people)) == len(people)  # no round leads back
            known = sets.HELD_OUT_NAMES if name == "test_names" else sets.NAMES
            assert set(people) <= set(known)
            key = frozenset(notes.items()), row["start"], row["rounds_needed"]
            seen.setdefault(name, set()).add(key)
    assert not seen["train"] & (seen["test"] | seen["valid"])
    assert len(seen["test"]) == 40 and not seen["test"] & seen["valid"]


@pytest.mark.parametrize(
    "options", [("--hops", "4"), ("--hops", "2", "--facts", "2"), ("--hops", "9")]
)
def test_more_rounds_than_a_circle_has_are_refused(options, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        build.main(["--out", str(tmp_path), *options])
    assert stopped.value.code == 2 and "leads back to its start" in capsys.readouterr().err
