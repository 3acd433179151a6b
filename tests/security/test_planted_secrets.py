"""Secrets planted around a run are in none of its files and in nothing that it prints."""

import base64
import json
import signal
import sys
import time
import urllib.parse

import pytest
from planted import PLANTED, leaks

from rmas_train.__main__ import main
from rmas_train.support.output import check_typed, clean, redacted

TOKEN = PLANTED["HF_TOKEN"]


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_the_search_finds_what_it_looks_for(tmp_path, before):
    """Plain, URL-encoded and in base64, wherever it begins; in files, names and outputs."""
    secret = PLANTED["AWS_SECRET_ACCESS_KEY"]
    coded = base64.b64encode(f"{before}{secret} and more".encode()).decode()
    for text in (f"{before}{secret}", urllib.parse.quote(secret, safe=""), coded):
        (tmp_path / "file").write_text(text)
        assert leaks(tmp_path) and leaks(tmp_path / "none", text)
    (tmp_path / "file").write_text("")
    assert leaks(tmp_path) == []
    (tmp_path / TOKEN).touch()
    assert leaks(tmp_path)


def test_a_whole_run_keeps_no_secret(finished):
    place, done = finished
    names = {p.name for p in place.run_dir.rglob("*")}
    assert {"results.json", "index.html", "environment.json", "links.json", "run.log"} <= names
    assert any(name.endswith(".wandb") for name in names), "wandb wrote nothing"
    assert any(name.startswith("events.out") for name in names), "tensorboard wrote nothing"
    assert leaks(place.run_dir, done.stdout, done.stderr) == []


@pytest.mark.slow
def test_a_crash_whose_text_holds_secrets_prints_none(place):
    patch = (
        "import os, rmas_train.training.loop as loop\n"
        "def crash(*_):\n"
        "    raise RuntimeError('\\x1b[2J ' + os.environ['HF_TOKEN'] + ' at https://u:pa55wrd@host')\n"
        "loop._accumulate = crash\n"
    )
    done = place.run(["stage=inner"], patch)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "RuntimeError: \\x1b[2J *** at https://u:***@host" in (
        done.stderr
    )
    assert leaks(place.run_dir, done.stdout, done.stderr) == []


@pytest.mark.slow
def test_a_run_that_is_stopped_keeps_no_secret(place):
    process = place.start(
        ["stage=inner", "training.inner.steps=100000", "training.inner.log_every=1"]
    )
    metrics = place.run_dir / "inner" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert list(place.run_dir.rglob("state.json")), "no checkpoint"
    assert leaks(place.run_dir, out, err) == []


@pytest.mark.parametrize(
    "typed",
    [
        f"name={TOKEN}",
        f"agents.planner.model=https://user:{TOKEN}@huggingface.co/org/name",
        f"agents.planner.model=https://{TOKEN}@huggingface.co/org/name",
        "data.folder=https://user:pa55wrd@host/data",
        f"data.folder=https://host/data?access_token={TOKEN}",
        f"tracking=[{PLANTED['WANDB_API_KEY']}]",
        f"tracking.wandb={'ab' * 20}",
        f"name={PLANTED['OPENAI_API_KEY']}",
        f"name={PLANTED['AWS_ACCESS_KEY_ID']}",
        f"name={PLANTED['GITHUB_TOKEN']}",
        "data.recipe_options.api_key=1234",
        "name='${oc.env:MY_SERVICE_PASSWORD}'",
        TOKEN,
    ],
)
def test_a_typed_secret_is_refused_and_not_shown(typed, overrides, workspace, capsys, monkeypatch):
    monkeypatch.setenv("MY_SERVICE_PASSWORD", PLANTED["MY_SERVICE_PASSWORD"])
    assert main([*overrides, typed]) == 2
    out = capsys.readouterr()
    assert len(out.err.splitlines()) == 1 and "set an environment variable" in out.err
    assert not (workspace / "run").exists()
    for secret in (*PLANTED.values(), "pa55wrd", "1234", "ab" * 20):
        assert secret not in out.out + out.err


def test_a_secret_for_a_launcher_is_refused(overrides, capsys):
    for typed in (
        "hydra.job.env_set.OPENAI_API_KEY=abc",
        "hydra.launcher.setup=[export X_TOKEN=abc]",
    ):
        assert main(["-m", *overrides, "rounds=1,2", typed]) == 2
        error = capsys.readouterr().err
        assert "set an environment variable" in error and "abc" not in error


@pytest.mark.parametrize(
    "harmless",
    [
        "run_dir=outputs/sk-learning-rate-0001-and-a-very-long-name-of-a-run",
        "run_dir=outputs/task-sk-0123456789abcdef0123456789abcdef",
        "agents.planner.model=/models/hf_converted/llama",
        "agents.planner.model=org/hf_llama",
        "agents.planner.revision=0123456789abcdef0123456789abcdef01234567",
        "evaluation.max_new_tokens=64",
        "data.answer_pattern='token=(?P<answer>.*)'",
        "data.role_texts.token=plan",
        "hydra.launcher.setup=[export HF_TOKEN=$(cat ~/token)]",
        "name=AKIA",
        "data.folder=s3://bucket/a:b",
    ],
)
def test_no_path_or_pattern_is_taken_for_a_secret(harmless):
    check_typed([harmless])
    assert redacted(harmless) == harmless


def test_the_recorded_command_is_redacted(monkeypatch):
    from rmas_train.runs.session import environment

    monkeypatch.setattr(sys, "argv", ["run.py", f"a=https://user:{TOKEN}@host", f"b={TOKEN}"])
    assert environment()["command"].endswith("run.py a=https://user:***@host b=***")


def test_the_environments_own_secrets_are_known_by_value(monkeypatch):
    monkeypatch.setenv("INHOUSE_TOKEN", "no-known-format-9")
    monkeypatch.setenv("DEPLOY_API_KEY", "/etc/keys/deploy")  # where it is, not what it is
    assert clean("a no-known-format-9 b /etc/keys/deploy") == "a *** b /etc/keys/deploy"


def test_a_saved_config_cannot_read_the_environment(finished, tmp_path, capsys):
    place, _ = finished
    saved = tmp_path / "theirs"
    saved.mkdir()
    text = (place.run_dir / "outer" / "config.yaml").read_text()
    (saved / "config.yaml").write_text(text.replace("name: tiny", "name: ${oc.env:HOME}"))
    assert main(["stage=eval", f"run={saved}"]) == 2
    assert "config.yaml: data.name holds '${'" in capsys.readouterr().err


def test_environment_json_names_versions_and_no_variables(finished):
    place, _ = finished
    facts = json.loads((place.run_dir / "outer" / "environment.json").read_text())
    known = {"command", "python", "machine", "cpus", "threads", "gpu", "versions", "agents"}
    known |= {"commit"}
    assert set(facts) == known
