"""Recipes as they are typed: build, kill, build again, errors in one line, and from a config."""

import hashlib
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from chat_server import ChatServer, make_speaker

from rmas_train.compose import compose
from rmas_train.config import DataConfig
from rmas_train.data.rows import read_table
from rmas_train.errors import DataError
from rmas_train.evaluation.graders import PatternGrader
from rmas_train.recipes.packing import check_manifest
from rmas_train.recipes.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "data_recipes"
SPLITS = ("train", "valid", "test")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    return make_speaker(tmp_path_factory.mktemp("speaker"))


def command(recipe, out, *options):
    script = RECIPES / recipe / "build.py"
    return [sys.executable, str(script), "--out", str(out), *map(str, options)]


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def build(recipe, out, *options):
    """The script's own code in this process, which saves the seconds of importing torch."""
    _, script, *argv = command(recipe, out, *options)
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(stdout),
        redirect_stderr(stderr),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        patch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back afterwards
        patch.setattr(sys, "argv", [script, *argv])
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = end.code
    told = "".join(f"{w.category.__name__}: {w.message}\n" for w in caught)
    return Done(code, stdout.getvalue(), told + stderr.getvalue())


def sample(recipe):
    return ("--source", RECIPES / recipe / "sample.jsonl")


def endpoint(server):
    return ("--writer", server.url, "--writer_model", "scholar", "--retries", 0)


def rows_of(out):
    return {
        split: [json.loads(line) for line in (out / f"{split}.jsonl").read_text().splitlines()]
        for split in SPLITS
        if (out / f"{split}.jsonl").exists()
    }


def files_of(out):
    return {p.name: p.read_bytes() for p in out.iterdir()}


def fails(done, *needles):
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ") and "Traceback" not in done.stderr
    for needle in needles:
        assert needle in lines[-1], lines[-1]


def test_a_local_writer_builds_a_whole_folder_that_training_can_read(tmp_path, speaker):
    out = tmp_path / "data"
    local = ("--writer", speaker, "--dtype", "float32", "--max_new_tokens", 8)
    done = build("s1k", out, *sample("s1k"), *local, "--batch_size", 3, "--seed", 1)
    assert done.returncode == 0, done.stderr
    assert "ContaminationWarning: contamination not checked against HuggingFaceH4/MATH-500" in (
        done.stderr
    )
    rows = rows_of(out)
    assert {name: len(part) for name, part in rows.items()} == {"train": 5, "valid": 1, "test": 1}
    for row in (r for part in rows.values() for r in part):
        assert row["plan"] == row["refined_plan"] == "go so"
        assert row["answer_field"] in row["answer"] and row["task"] == "math"
    manifest = check_manifest(out)
    source = (RECIPES / "s1k" / "sample.jsonl").read_bytes()
    assert manifest["source"]["sha256"] == hashlib.sha256(source).hexdigest()
    assert manifest["source"]["revision"] is None and manifest["source"]["licence"] is None
    assert manifest["counts"] == {"read": 8, "kept": 7, "dropped": {"no_final_answer": 1}}
    assert manifest["contamination"]["status"] == "not checked"
    assert re.fullmatch("[0-9a-f]{64}", manifest["writer"]["sha256"])
    assert manifest["writer"]["revision"] is None and manifest["writer"]["temperature"] == 0
    assert set(manifest["prompts"]) == {"plan", "refined_plan"}
    assert str(tmp_path / "data") not in manifest["command"] and "--seed 1" in manifest["command"]
    grader = PatternGrader(compose(["experiment=none", "data=s1k"]))
    for split in SPLITS:
        grader.check(read_table(out / f"{split}.jsonl"))
    # From the journal alone, whatever of it a kill has left, the same bytes come again.
    first, journal = files_of(out), tmp_path / "data.journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2 * 3  # two columns, three batches
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    assert build("s1k", out, *sample("s1k"), *local, "--batch_size", 3, "--seed", 1).returncode == 0
    assert files_of(out) == first and journal.read_bytes() == b"".join(lines)


def solved(messages):
    """A writer that keeps the final answer where it is told one."""
    user = messages[-1]["content"]
    found = re.search(r"correct final answer is: (.+)", user)
    code = "```python\nprint(1)\n```"
    return f"Text {len(user)}. \\boxed{{{found[1]}}} {code}" if found else f"Text {len(user)}."


@pytest.mark.parametrize(
    ("recipe", "style", "kept"),
    [
        ("m1k", "mixture", 8),
        ("opencodereasoning", "distillation", 7),
        ("arpo_sft", "deliberation", 7),
        ("s1k", "sequential", 7),
    ],
)
def test_every_recipe_and_style_by_an_endpoint(tmp_path, recipe, style, kept):
    from rmas_train.recipes.role_columns import STYLES

    out = tmp_path / "data"
    with ChatServer(solved).running() as server:
        typed = ("--style", style, "--answers", "rewrite", "--evaluation", "none")
        done = build(recipe, out, *sample(recipe), *endpoint(server), *typed)
        assert done.returncode == 0, done.stderr
        columns = [*STYLES[style], *(["answer"] if style == "sequential" else [])]
        assert len(server.asked) == kept * len(columns)
    rows = [row for part in rows_of(out).values() for row in part]
    assert len(rows) == kept
    assert all(row[column].startswith("Text ") for row in rows for column in columns)
    assert check_manifest(out)["writer"]["model"] == "scholar"


def test_what_the_writer_spoils_is_left_out_and_counted(tmp_path):
    def reply(messages):
        user = messages[-1]["content"]
        if "three-letter words" in user:
            return ""
        if "baker" in user and "First plan" in user:
            return {"message": {"role": "assistant", "content": "1."}, "finish_reason": "length"}
        if "ladder" in user and "final answer is" in user:
            return r"It reaches \boxed{13}"
        return solved(messages)

    out = tmp_path / "data"
    with ChatServer(reply).running() as server:
        typed = ("--answers", "rewrite", "--evaluation", "none")
        done = build("s1k", out, *sample("s1k"), *endpoint(server), *typed)
    assert done.returncode == 0, done.stderr
    assert check_manifest(out)["counts"]["dropped"] == {
        "answer: answer_lost": 1,
        "no_final_answer": 1,
        "plan: text_empty": 1,
        "refined_plan: text_cut": 1,
    }
    assert not any("ladder" in p.read_text() for p in out.glob("*.jsonl"))


def test_contaminated_and_repeated_rows_are_left_out_unasked(tmp_path):
    lines = (RECIPES / "s1k" / "sample.jsonl").read_text().splitlines()
    baker = json.loads(lines[0])
    again = baker | {"question": "  " + baker["question"].upper()}
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join([*lines, json.dumps(again)]))
    held = tmp_path / "math.jsonl"
    fall = json.loads(lines[5])["question"].replace(",", " -").upper()
    held.write_text(json.dumps({"problem": f"Exam: {fall} Explain."}))
    out = tmp_path / "data"
    with ChatServer(solved).running() as server:
        typed = ("--source", source, "--evaluation", f"{held},nobody/nothing")
        done = build("s1k", out, *endpoint(server), *typed)
        assert done.returncode == 0, done.stderr
        assert not any("stone falls" in user for user in server.users())
        assert sum("baker packs" in u.casefold() for u in server.users()) == 2
    manifest = check_manifest(out)
    dropped = manifest["counts"]["dropped"]
    assert dropped == {"contaminated": 1, "duplicate_question": 1, "no_final_answer": 1}
    checked = manifest["contamination"]
    assert checked["status"] == "partly checked"
    assert checked["evaluation_sets"][str(held)]["rows_dropped"] == 1
    assert checked["evaluation_sets"]["nobody/nothing"]["status"] == "not checked"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["s1k", pytest.param("debate", marks=pytest.mark.slow)])
def test_a_killed_build_goes_on_and_ends_in_the_same_bytes(tmp_path, recipe):
    slow = {"seconds": 0.0}

    def reply(messages):
        time.sleep(slow["seconds"])
        user = messages[-1]["content"]
        if recipe == "s1k":
            return solved(messages)
        if "dimensions that are independent" in user or "values that this" in user:
            return "one\ntwo"
        if "Write a new sample" in user or "Change the sample" in user:
            seen = hashlib.sha256(json.dumps(server.seed_of(user)).encode()).hexdigest()[:8]
            return f"SAMPLE: case {seen}\nREASON: because"
        return "VERDICT: advice" if "Side A says" in user else f"I say {len(user)}"

    server = ChatServer(reply)
    # What a drawn sample is depends on the request's seed alone, as a real server's would.
    server.seed_of = lambda user: next(
        b["seed"] for b in reversed(server.asked) if b["messages"][-1]["content"] == user
    )
    small = ("--candidates", 8, "--rounds", 1, "--refinements", 0) if recipe == "debate" else ()
    source = sample("s1k") if recipe == "s1k" else ()
    typed = (*source, *small, "--evaluation", "none", "--parallel", 1)
    with server.running():
        whole, killed = tmp_path / "whole" / "data", tmp_path / "killed" / "data"
        assert build(recipe, whole, *endpoint(server), *typed).returncode == 0
        needed = len(server.asked)
        server.asked.clear()
        slow["seconds"] = 0.05
        run = subprocess.Popen(
            command(recipe, killed, *endpoint(server), *typed),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while len(server.asked) < needed // 2 and run.poll() is None:
            time.sleep(0.01)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        assert not killed.exists()
        time.sleep(0.2)  # the request under way ends
        done = len((tmp_path / "killed" / "data.journal.jsonl").read_bytes().splitlines())
        assert 0 < done < needed
        slow["seconds"] = 0.0
        server.asked.clear()
        assert build(recipe, killed, *endpoint(server), *typed).returncode == 0
        assert len(server.asked) == needed - done
    assert files_of(killed) == files_of(whole)


def test_bad_options_and_rows_are_one_line(tmp_path, speaker):
    out = tmp_path / "data"
    local = ("--writer", speaker, "--dtype", "float32", "--max_new_tokens", 8)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "a", "solution": "1"}\n{"question": "b", "solutio": "2"}\n')
    fails(build("s1k", out, "--source", rows, *local), "line 2", "'solution'", "Did you mean 'sol")
    rows.write_text("no json\n")
    fails(build("s1k", out, "--source", rows, *local), "rows.jsonl, line 1: not JSON")
    fails(build("s1k", out, *sample("s1k")), "writer is empty")
    fails(build("s1k", out, *sample("s1k"), "--style", "sequentail"), "Did you mean 'sequential'")
    fails(build("s1k", out, *sample("s1k"), "--wrter", "x"), "--wrter", "Did you mean 'writer'")
    fails(build("s1k", out, *sample("s1k"), "--rows", "many"), "--rows", "many")
    fails(build("s1k", out, *local), "simplescaling/s1K", "could not be reached", "source=")
    fails(build("released", out, "--dataset", "sequential_maths"), "Did you mean 'sequential_math'")
    secret = "sk-" + "a" * 40
    done = build("s1k", out, *sample("s1k"), "--writer", f"http://u:{secret}@127.0.0.1/v1")
    fails(done, "writer", "not shown")
    assert secret not in done.stdout + done.stderr
    with ChatServer(lambda messages: "").running() as server:
        done = build("s1k", out, *sample("s1k"), *endpoint(server), "--evaluation", "none")
    fails(done, "no row was kept of 8", "plan: text_empty 7", "nothing was written")
    assert not out.exists()


def test_released_rows_are_copied_and_held_out(tmp_path):
    out = tmp_path / "data"
    done = build("released", out, *sample("released"), "--test_share", 0.25)
    assert done.returncode == 0, done.stderr
    rows = rows_of(out)
    assert {name: len(part) for name, part in rows.items()} == {"train": 5, "valid": 1, "test": 2}
    assert all(row["plan"] and row["refined_plan"] for part in rows.values() for row in part)
    manifest = check_manifest(out)
    assert manifest["dataset"] == "sequential_math" and "writer" not in manifest
    assert manifest["columns_found"] == [
        *("answer", "answer_field", "plan", "question", "refined_plan")
    ]
    config = compose(["experiment=none", "data=released"])
    PatternGrader(config).check(read_table(out / "train.jsonl"))


@pytest.mark.slow
def test_from_a_config_and_its_journal_outlives_a_failure(tmp_path, capfd):
    broken = {"on": True}

    def reply(messages):
        no = broken["on"] and "ladder" in messages[-1]["content"]
        return {"status": 403, "error": {"message": "no"}} if no else solved(messages)

    with ChatServer(reply).running() as server:
        options = {"source": str(RECIPES / "s1k" / "sample.jsonl"), "writer": server.url}
        options |= {"writer_model": "scholar", "retries": 0, "parallel": 1}
        (tmp_path / "held.jsonl").write_text('{"question": "Which is the other question?"}')
        options["evaluation"] = [str(tmp_path / "held.jsonl"), "nobody/nothing"]
        config = DataConfig(recipe="s1k", recipe_options=options, folder=str(tmp_path / "data"))
        with pytest.raises(DataError, match="finished texts are kept") as caught:
            prepare(config, 0)
        assert "error:" not in str(caught.value)
        assert not (tmp_path / "data").exists()
        broken["on"] = False
        before = len(server.asked)
        folder = prepare(config, 0)
        assert len(server.asked) < before + 2 * 7
    assert "ContaminationWarning: contamination not checked" in capfd.readouterr().err
    manifest = check_manifest(folder)
    assert manifest["counts"]["kept"] == 7
    assert prepare(config, 0) == folder
    (folder / "train.jsonl").write_text("")
    with pytest.raises(DataError, match=r"train\.jsonl is missing or has changed"):
        prepare(config, 0)


@pytest.mark.parametrize(
    "name", ["s1k", "m1k", "opencodereasoning", "arpo_sft", "released", "debate"]
)
def test_the_shipped_configs_compose_and_take_a_writer(name):
    typed = [] if name == "released" else ["data.recipe_options.writer=/models/x"]
    config = compose(["experiment=none", f"data={name}", *typed]).data
    assert config.recipe == name and (RECIPES / name / "build.py").is_file()
    assert typed == [] or config.recipe_options["writer"] == "/models/x"
    assert len((RECIPES / name / "sample.jsonl").read_text().splitlines()) == 8
