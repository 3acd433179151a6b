"""What is declared is what is imported; metadata of the package."""

import ast
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions

import yaml
from launching import ROOT

from rmas_train.support import version

SHIPPED = ("rmas_train", "data_recipes")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Named in an option and loaded by Accelerate, Hydra or transformers, never imported by our code.
BY_NAME = {
    "wandb",
    "tensorboard",
    "hydra-submitit-launcher",
    "hydra-joblib-launcher",
    "gguf",
    "bitsandbytes",
}


def names(requirements):
    found = (re.match(r"[\w-]+", r)[0].lower().replace("_", "-") for r in requirements)
    return {name for name in found if name != "rmas-train"}


CORE = names(PROJECT["dependencies"])
EXTRAS = {extra: names(of) for extra, of in PROJECT["optional-dependencies"].items()}
FILES = [path for folder in SHIPPED for path in (ROOT / folder).rglob("*.py")]


def imported():
    """Distribution -> a file that imports it; loaders by name, `_library("bm25s")`, count too."""
    own = {path.stem for path in FILES} | set(SHIPPED) | set(sys.stdlib_module_names)
    known = packages_distributions()
    found = {}
    for path in FILES:
        text = path.read_text()
        modules = re.findall(r'_library\("(\w+)"\)', text)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                modules += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                modules.append(node.module)
        for module in {m.split(".")[0] for m in modules} - own:
            distribution = known.get(module, [module])[0].lower().replace("_", "-")
            found[distribution] = path
    return found


def test_everything_imported_is_declared():
    declared = CORE.union(*EXTRAS.values())
    missing = {name: str(path) for name, path in imported().items() if name not in declared}
    assert not missing


def test_everything_declared_is_used():
    used = imported().keys() | BY_NAME
    assert used >= CORE
    for extra, of in EXTRAS.items():
        assert extra == "dev" or of <= used, extra


def test_the_pinned_set_is_of_what_is_declared():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = names(line for line in lines if line and not line.startswith("#"))
    assert pinned <= CORE.union(*EXTRAS.values()) | {"tokenizers"}  # transformers' own


def test_the_interpreters_that_are_named():
    assert PROJECT["requires-python"] == ">=3.11"
    classifiers = set(PROJECT["classifiers"])
    for minor in (11, 12, 13):
        assert f"Programming Language :: Python :: 3.{minor}" in classifiers
    assert "Operating System :: POSIX" in classifiers and PROJECT["license"] == "Apache-2.0"


def test_the_command_is_there():
    module, _, function = PROJECT["scripts"]["rmas-train"].partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))
    assert (ROOT / "rmas_train" / "py.typed").is_file()


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["authors"]
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]
    assert paper["url"] == PROJECT["urls"]["Paper"] and len(paper["authors"]) == 12


def test_the_dockerfile_copies_what_there_is():
    kept = {e[1:] for e in (ROOT / ".dockerignore").read_text().splitlines() if e.startswith("!")}
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    names_of_files = {name for line in copied for name in line.split()}
    assert names_of_files == kept and all((ROOT / name).exists() for name in kept)


def test_a_source_tree_that_is_not_installed_has_a_version(monkeypatch):
    """A run there writes it into its files; one place asks, so that no other one fails."""

    def not_installed(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(version, "version", not_installed)
    assert version.installed_version() == "0+unknown"
    asking = {p.name for p in FILES if re.search(r"""version\(["']rmas.train""", p.read_text())}
    assert asking == {"version.py"}
