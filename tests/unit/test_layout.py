"""The walls of the package, and what the wheel holds."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "rmas_train"
# From the ground up, one room or file a floor: each imports only from floors below its own.
FLOORS = [
    *(
        "errors",
        "support",
        "registry",
        "config",
        "topology",
        "compose",
        "data",
        "agents",
        "loading",
    ),
    *("engine", "links", "recursion", "channels", "tools", "runtime", "recipes", "runs"),
    *("objectives", "systems", "evaluation", "analysis", "training", "reporting", "planning"),
    *("release", "stages", "api", "serving", "command", "__init__", "__main__"),
]


def imports(path: Path):
    """Modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")


def arrows() -> dict[str, set[str]]:
    """Module -> modules of the package that it imports; a package's face by its own name."""
    known = {name.removesuffix(".__init__"): name for _, name in modules()}
    return {
        name: {known[t] for t in imports(path) if t in known} - {name} for path, name in modules()
    }


def floor_of(module: str) -> int:
    return FLOORS.index(module.split(".")[1])


def test_imports_point_downwards():
    for name, targets in arrows().items():
        for target in targets:
            if target != "rmas_train.__init__":
                assert floor_of(target) <= floor_of(name), f"{name} imports {target}"


def test_no_module_imports_itself_by_way_of_others():
    tuple(TopologicalSorter(arrows()).static_order())  # CycleError names the circle


HYDRA = {
    "rmas_train.compose.compose",
    "rmas_train.compose.models",
    "rmas_train.compose.nodes",
    "rmas_train.command.launcher",
    "rmas_train.command.sweep",
}


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("accelerate", {"rmas_train.runtime.runtime", "rmas_train.training.tracking"}),
        ("hydra", HYDRA),
        ("omegaconf", HYDRA),
        ("torch.distributed", {"rmas_train.runtime.placement"}),
        ("deepspeed", {"rmas_train.runtime.zero"}),
        ("openai", {"rmas_train.recipes.endpoint"}),
        ("starlette", {"rmas_train.serving.server", "rmas_train.command.serve"}),
        ("uvicorn", {"rmas_train.serving.server", "rmas_train.command.serve"}),
        ("lm_eval", {"rmas_train.serving.harness", "rmas_train.command.harness_command"}),
        ("inspect_ai", {"rmas_train.serving.providers", "rmas_train.serving.inspect_model"}),
        ("reasoning_gym", set()),  # by name, in rmas_train.evaluation.reasoning
        ("datasets", {"rmas_train.recipes.row_sources"}),
        ("pickle", set()),
        (
            "huggingface_hub",
            {
                "rmas_train.release.hub",
                "rmas_train.support.hub_errors",
                "rmas_train.release.model_card",
                "rmas_train.recipes.row_sources",
                "rmas_train.release.pin",
            },
        ),
    ],
)
def test_edges_keep_their_libraries(library, allowed):
    users = {
        n for p, n in modules() for t in imports(p) if t == library or t.startswith(f"{library}.")
    }
    assert users <= allowed


def test_training_and_runtime_import_nothing_of_agents_or_links():
    for path, name in modules():
        if name.startswith(("rmas_train.training", "rmas_train.runtime")):
            assert not any(
                t.startswith(("rmas_train.agents", "rmas_train.links")) for t in imports(path)
            )


def test_agents_know_no_tools():
    for path, name in modules():
        if name.startswith("rmas_train.agents"):
            assert not any(t.startswith("rmas_train.tools") for t in imports(path))


def test_the_library_knows_nothing_of_the_relay():
    for path, name in modules():
        code = path.read_text().lower()
        allowed = (
            code.count("relay") if name in ("rmas_train.command.help", "rmas_train.__init__") else 0
        )
        allowed += code.count('"relay"') + code.count("outputs/relay") if "config" in name else 0
        allowed += code.count("outputs/relay") if name == "rmas_train.systems.latent" else 0
        assert code.count("relay") <= allowed, name


def test_setup_asks_for_every_extra():
    printed = subprocess.run(
        ["make", "--dry-run", "setup", "VENV=nowhere"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (asked,) = re.findall(r"-e '\.\[(.+)\]'", printed)
    assert set(asked.split(",")) == set(project["optional-dependencies"])


def test_the_wheel_holds_conf_and_the_relay(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "rmas_train/__main__.py",
        "rmas_train/conf/config.yaml",
        "rmas_train/conf/experiment/relay_scrambled.yaml",
        "rmas_train/data_recipes/relay/build.py",
        "rmas_train/data_recipes/relay/prompts/solver.yaml",
        "rmas_train/data_recipes/common/prompts/sequential/plan.yaml",
        "rmas_train/data_recipes/s1k/build.py",
        "rmas_train/data_recipes/relay/agents/planner/model.safetensors",
    ):
        assert needed in names
    # Installed so, without the clone, the command composes its config.
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    own = "# @package _global_\nname: ours\nlatent_length: 5\n"
    (tmp_path / "own" / "experiment" / "ours.yaml").write_text(own)
    (tmp_path / "my.yaml").write_text("rounds: 7\n")
    typed = ["experiment=ours", "--config-dir=own", "--config=my.yaml", "agents=relay_dialect"]
    code = (
        "import rmas_train; c = rmas_train.config_from({typed}); "
        "print(c.name, c.rounds, c.latent_length, c.agents['solver'].model)"
    ).replace("{typed}", str(typed))
    env = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    assert out.stdout.split()[:3] == ["ours", "7", "5"] and "dialect" in out.stdout
