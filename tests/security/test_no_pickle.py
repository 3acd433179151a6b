"""Nothing that is read or written can run code by being read: no pickle, no eval, no shell."""

import ast
import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from planted import ROOT

from rmas_train.__main__ import main
from rmas_train.config import AgentConfig
from rmas_train.engine.loading import load_agent
from rmas_train.errors import AgentError

FOLDERS = ("rmas_train", "scripts", "benchmarks", "data_recipes")
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execvp"),
    *("torch.load", "torch.save", "np.save", "numpy.save", "pd.read_pickle", "pty.spawn"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "subprocess.getoutput"),
}
# The one module for the released `.pt` layout; it writes pickles, and nothing here loads any.
RELEASED = {"rmas_train/release/released_file.py": ["torch.save"]}
# Runs in the sandbox alone, where it holds a program and its tests.
SANDBOXED = {"rmas_train/tools/harness.py": ["compile", "compile", "exec", "exec"]}
# What a run folder holds; a new kind of file is added here after a look at its format.
ALLOWED = {
    *(".yaml", ".json", ".jsonl", ".safetensors", ".log", ".txt", ".html", ".md", ".png", ".lock"),
    *(".wandb", ".failed"),
}


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def found_in(source: str) -> list[str]:
    """Whatever stands in this code that may run data as code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
        found += [n for n in names if n.split(".")[0] in MODULES or n in CALLS]
        if isinstance(node, ast.Call):
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            found += [called(node)] if called(node) in CALLS else []
            for option, value in (("shell", "True"), ("allow_pickle", "True")):
                found += [f"{option}={value}"] if options.get(option, "False") != "False" else []
            found += ["weights_only=False"] if options.get("weights_only") == "False" else []
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_code_of_ours_reads_or_writes_pickles_or_runs_text(folder):
    for path in sorted((ROOT / folder).rglob("*.py")):
        allowed = (RELEASED | SANDBOXED).get(path.relative_to(ROOT).as_posix(), [])
        assert sorted(found_in(path.read_text(encoding="utf-8"))) == allowed, path


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from joblib import load", "from os import system", "eval('1')"),
        *("torch.load(f)", "np.load(f, allow_pickle=True)", "yaml.load(f)", "import dill.x"),
        *("subprocess.run(c, shell=True)", "os.system(c)", "from torch import load"),
    ],
)
def test_the_scan_finds_what_it_looks_for(source):
    assert found_in(source)


def is_pickle(data: bytes) -> bool:
    """By its first bytes, or as what ``torch.save`` writes: an archive with a pickle in it."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        return any(n.endswith(".pkl") for n in zipfile.ZipFile(io.BytesIO(data)).namelist())
    return data[:1] == b"\x80" and data[1:2] in b"\x02\x03\x04\x05" and b"." in data[-8:]


def test_pickles_are_recognised(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "new")
    torch.save({"a": 1}, tmp_path / "old", _use_new_zipfile_serialization=False)
    for protocol in (2, 3, 4, 5):
        assert is_pickle(pickle.dumps({"a": 1}, protocol))
    assert is_pickle((tmp_path / "new").read_bytes()) and is_pickle((tmp_path / "old").read_bytes())


def test_no_file_of_a_run_is_a_pickle(finished):
    place, _ = finished
    files = [p for p in place.run_dir.rglob("*") if p.is_file()]
    assert any("checkpoints" in p.parts for p in files)
    for path in files:
        is_events = path.name.startswith("events.out.tfevents.")  # protocol buffers
        kind = path.suffix or path.name
        assert is_events or kind in ALLOWED, f"{path}: a kind of file that nobody has looked at"
        assert not is_pickle(path.read_bytes()), path


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_model_of_pickled_weights_is_refused_unread(tmp_path, agent_folders):
    folder, trap = tmp_path / "agent", tmp_path / "sprung"
    folder.mkdir()
    for file in agent_folders["planner"].iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(AgentError, match="Only safetensors are read") as error:
        load_agent("planner", AgentConfig(model=str(folder)))
    assert len(str(error.value).splitlines()) == 1 and not trap.exists()


@pytest.mark.parametrize("name", ["links.safetensors", "optimizer.safetensors"])
def test_a_pickle_under_our_names_is_refused_unread(finished, tmp_path, name):
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path, trap = tmp_path / name, tmp_path / "sprung"
    path.write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(SafetensorError):
        load_file(path)
    assert not trap.exists()


def test_configs_are_data(overrides, workspace, capsys):
    """``_target_`` is refused where options are, and is a word like any other elsewhere."""
    target = "{_target_: pathlib.Path.touch, self: sprung}"
    for typed in (f"data.recipe_options={target}", "+agents.planner._target_=os.getcwd"):
        assert main([*overrides, typed]) == 2
        assert "`_target_` is not allowed" in capsys.readouterr().err
    (workspace / "prompts" / "planner.yaml").write_text(
        "user: !!python/object/apply:os.system ['touch sprung']\n"
    )
    assert main([*overrides, "stage=inner"]) == 2
    assert "planner.yaml: not valid YAML" in capsys.readouterr().err
    assert not (workspace / "sprung").exists()


@pytest.mark.parametrize("recipe", ["../evil", "/tmp/evil", "relay/../../evil", ".", "a.b"])
def test_a_recipe_is_one_of_the_shipped_ones(overrides, workspace, capsys, recipe):
    evil = workspace / "evil"
    evil.mkdir()
    (evil / "build.py").write_text("import pathlib; pathlib.Path('sprung').touch()")
    assert main([*overrides, f"data.recipe={recipe}"]) == 2
    assert f"data.recipe={recipe}" in capsys.readouterr().err
    assert not (workspace / "sprung").exists()
