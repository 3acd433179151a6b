"""scripts/gpu_session.sh on the CPU: parts that fail or take too long, and the numerics part."""

import json
import subprocess
import sys

import pytest
from launching import ROOT, environment


@pytest.fixture
def gpu_session(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import gpu_session

    return gpu_session


@pytest.fixture
def numerics_gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import numerics_gpu

    return numerics_gpu


def run_session(module, monkeypatch, folder, parts, minutes=1):
    """Exit code, and what the JSON says of parts that are Python code."""
    made = {name: module.Part(["-c", code], lambda: "found") for name, code in parts.items()}
    monkeypatch.setattr(module, "all_parts", lambda *_: made)
    out = folder / "out.json"
    given = ["--device", "cpu", "--out", out, "--work", folder, "--minutes", minutes]
    monkeypatch.setattr(sys, "argv", ["gpu_session.py", *map(str, given)])
    code = module.session(module.arguments())
    return code, json.loads(out.read_text())["parts"]


def test_a_part_that_fails_does_not_stop_the_others(gpu_session, monkeypatch, tmp_path):
    parts = {"numerics": "raise SystemExit('no\\nsuch thing')", "bench": "print('good')"}
    code, told = run_session(gpu_session, monkeypatch, tmp_path, parts)
    assert code == 1
    assert (told["numerics"]["exit_code"], told["numerics"]["error"]) == (1, "such thing")
    assert (told["bench"]["exit_code"], told["bench"]["result"]) == (0, "found")
    assert "error" not in told["bench"]


def test_a_part_is_stopped_at_its_limit(gpu_session, monkeypatch, tmp_path):
    """What it had written is kept, and the next part begins with the time that is left."""
    parts = {"bench": "import time; time.sleep(60)", "notes": ""}
    code, told = run_session(gpu_session, monkeypatch, tmp_path, parts, minutes=0.02)
    assert code == 1 and told["bench"]["exit_code"] == 124 and told["notes"]["exit_code"] == 0
    assert told["bench"]["error"].startswith("stopped at its limit")
    assert told["bench"]["result"] == "found" and told["bench"]["seconds"] < 10


def test_without_models_the_runs_are_skipped(gpu_session, monkeypatch, tmp_path):
    given = ["--device", "cpu", "--work", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["gpu_session.py", *given])
    options = gpu_session.arguments()
    parts = gpu_session.all_parts(tmp_path, options)
    assert all("--small" in parts[name].skipped for name in ("notes", "notes_hops"))
    told = gpu_session.run(parts["notes"], tmp_path / "notes", 1)
    assert told["exit_code"] is None and told["result"] == {"skipped": parts["notes"].skipped}
    options.small = tmp_path
    unknown = gpu_session.experiment("no_such", tmp_path, options)
    assert "conf/experiment/no_such.yaml" in unknown.skipped


def test_a_run_is_read_as_far_as_it_has_come(gpu_session, tmp_path):
    assert gpu_session.read_run(tmp_path) == {}
    (tmp_path / "outer").mkdir()
    lines = "".join(json.dumps({"seconds": s}) + "\n" for s in (9.0, 1.0, 2.0, 4.0))
    (tmp_path / "outer" / "metrics.jsonl").write_text(lines)
    found = gpu_session.read_run(tmp_path)
    assert found == {"outer_steps": 4, "seconds_per_step": 2.0}, "the first step warms up"
    (tmp_path / "outer" / "metrics.jsonl").write_text(lines + '{"sec')
    part = gpu_session.Part([], lambda: gpu_session.read_run(tmp_path))
    assert gpu_session.read(part)["result"] is None
    rows = {"rows": [{"system": "latent", "accuracy": 0.5, "n": 2, "other": 1}]}
    (tmp_path / "outer" / "metrics.jsonl").unlink()
    (tmp_path / "results.json").write_text(json.dumps(rows))
    (one,) = gpu_session.read_run(tmp_path)["accuracies"]
    assert one["system"] == "latent" and one["accuracy"] == 0.5 and "other" not in one


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--small", "nowhere"], "--small nowhere: no such folder"),
        (["--minutes", "0"], "--minutes 0: give"),
        (["--device", "cuda"], "--device cuda: PyTorch sees no CUDA GPU"),
    ],
)
def test_wrong_arguments_are_one_line(gpu_session, monkeypatch, capsys, given, said):
    monkeypatch.setattr(gpu_session.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_session.py", "--device", "cpu", *given])
    with pytest.raises(SystemExit) as end:
        gpu_session.arguments()
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.startswith(said) and error.count("\n") == 1


def test_a_bound_that_is_not_kept_is_named(numerics_gpu):
    naive = {"messages": 1e-2, "gradient": 2e-2}
    low = {"messages": 2e-2, "messages_in_a_buffer": 1e-2, "gradient": 3e-2}
    low |= {"gradient_parallel": 1e-2, "recompute_against_none": 1e-6, "repeated": 0.0}
    found = {"float32": {"messages": 1e-6}, "bfloat16": low, "naive_bfloat16": naive}
    assert numerics_gpu.failures(found) == []
    found["float32"]["gradient"], low["messages"] = float("nan"), 2.2e-2
    one, two = numerics_gpu.failures(found)
    assert one.startswith("float32 gradient: nan")
    assert two == "bfloat16 messages: 2.20e-02, at most 2.10e-02"


@pytest.mark.slow
def test_the_numerics_part_from_the_shell(tmp_path):
    script = str(ROOT / "scripts" / "gpu_session.sh")
    out = tmp_path / "out.json"
    given = ["--device", "cpu", "--tiny", "--parts", "numerics", "--out", str(out)]
    given += ["--work", str(tmp_path / "work")]
    env = environment(PYTHON=sys.executable)
    done = subprocess.run([script, *given], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + (tmp_path / "work/numerics/output.log").read_text()
    whole = json.loads(out.read_text())
    assert whole["device"] == "cpu" and whole["tiny"] and whole["environment"]["versions"]
    (told,) = whole["parts"].values()
    found = told["result"]
    assert told["exit_code"] == 0 and found["failures"] == []
    errors = found["relative_errors"]
    assert 0 < max(errors["float32"].values()) < 1e-4 < errors["bfloat16"]["messages"]
    assert errors["bfloat16"]["messages"] < 0.2 * found["rows_apart"]
