"""``plugins=[...]``: modules that add names, imported for the person at the keyboard alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from launching import environment
from test_bad_input import fails

import rmas_train
from rmas_train.__main__ import main
from rmas_train.compose import compose, config_from
from rmas_train.registry import LINK_VARIANTS
from rmas_train.support.output import stop_log

PLUGIN = """\
from pathlib import Path
from rmas_train.links.modules import LINEAR
from rmas_train.registry import LINK_VARIANTS

Path({told!r}).write_text("imported")


@LINK_VARIANTS.register({name!r})
def thick(*args, **options):
    return LINEAR(*args, **options)
"""


@pytest.fixture
def plugin(workspace, monkeypatch):
    """Writes a module that registers a link variant and leaves a file when it is imported."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])

    def write(module="thick_links", name="thick"):
        text = PLUGIN.format(told=str(workspace / f"{module}.told"), name=name)
        (workspace / f"{module}.py").write_text(text)
        return module

    yield write
    for module in set(sys.modules) - before:
        if module.endswith("_links"):
            del sys.modules[module]
    for name in ("thick", "thin"):
        LINK_VARIANTS._found.pop(name, None)


def told(workspace, module="thick_links"):
    return (workspace / f"{module}.told").exists()


def test_typed(plugin, workspace):
    config = compose([f"plugins=[{plugin()}]", "links.variant=thick", "links.init=default"])
    assert config.links.variant == "thick" and told(workspace)


def test_in_a_file_and_in_a_folder_of_groups(plugin, workspace):
    values = {"plugins": [plugin()], "links": {"variant": "thick"}}
    (workspace / "my.yaml").write_text(yaml.safe_dump(values))
    assert compose(["--config=my.yaml"]).links.variant == "thick"
    plugin("thin_links", "thin")
    own = workspace / "own" / "experiment"
    own.mkdir(parents=True)
    lines = "# @package _global_\nplugins: [thin_links]\nlinks: {variant: thin}\n"
    (own / "ours.yaml").write_text(lines)
    assert compose(["--config-dir=own", "experiment=ours"]).links.variant == "thin"


def test_from_python(plugin, workspace):
    config = config_from({"plugins": [plugin()], "links": {"variant": "thick"}})
    assert config.plugins == ["thick_links"] and told(workspace)


@pytest.mark.parametrize(
    ("typed", "needles"),
    [
        (["plugins=[nowhere_links]"], ["nowhere_links", "ModuleNotFoundError", "in its folder"]),
        (["plugins=[broken_links]"], ["broken_links", "ZeroDivisionError: division by zero"]),
        (["plugins=[leaving_links]"], ["leaving_links", "SystemExit: 3"]),
        (["plugins=[a/b.py]"], ["a/b.py", "write my_module for my_module.py"]),
        (["plugins={thick_links: 1}"], ["plugins", "plugins=[my_module]"]),
        (["plugins=nowhere_links"], ["nowhere_links", "ModuleNotFoundError"]),
        (["links.variant=thick"], ["links.variant=thick", "plugins=[<its module>]"]),
    ],
)
def test_what_cannot_be_imported(capsys, plugin, workspace, typed, needles):
    (workspace / "broken_links.py").write_text("1 / 0\n")
    (workspace / "leaving_links.py").write_text("raise SystemExit(3)\n")
    fails(capsys, typed, *needles)


def test_a_name_that_is_taken(capsys, plugin):
    fails(capsys, [f"plugins=[{plugin(name='linear')}]"], "thick_links", "'linear' is rmas_train")


@pytest.fixture
def trained(capsys, overrides, workspace, plugin):
    """A run whose links are of a plugin's variant; the plugin is not imported any more."""
    typed = [*overrides, f"plugins=[{plugin()}]", "links.variant=thick", "evaluation.systems=[]"]
    assert main(typed) == 0
    stop_log()
    capsys.readouterr()
    (workspace / "thick_links.told").unlink()
    del sys.modules["thick_links"]
    LINK_VARIANTS._found.pop("thick")
    return workspace / "run"


def test_a_saved_run_imports_nothing_unless_it_is_typed_again(capsys, trained, workspace):
    asked = ["stage=eval", f"run={trained}"]
    fails(capsys, asked, "outer/config.yaml", "plugins=[thick_links]", "if you trust it")
    fails(capsys, [*asked, "plugins=[json]"], "add plugins=[thick_links] to this command")
    assert not told(workspace)
    assert main([*asked, "plugins=[thick_links]"]) == 0
    stop_log()
    assert told(workspace)


def test_a_file_may_ask_again_too(trained, workspace):
    (workspace / "my.yaml").write_text("plugins: [thick_links]\n")
    config = compose(["stage=eval", f"run={trained}", "--config=my.yaml"])
    assert config.links.variant == "thick" and told(workspace)


def test_a_links_folder_imports_nothing(trained, workspace):
    with pytest.raises(rmas_train.errors.LinksError, match="variant=thick.*import it first"):
        rmas_train.load(trained)
    card = trained / "outer" / "links" / "links.json"
    values = json.loads(card.read_text())
    assert "plugins" not in values
    card.write_text(json.dumps(values | {"plugins": ["thick_links"]}))
    with pytest.raises(rmas_train.errors.LinksError):
        rmas_train.load(trained)
    assert not told(workspace)


@pytest.mark.parametrize(
    "program", ["-m rmas_train", "-c import rmas_train.command.main as m; m.run()"]
)
def test_the_folder_of_the_command_is_searched(plugin, workspace, program):
    flag, code = program.split(" ", 1)
    typed = [f"plugins=[{plugin()}]", "links.variant=thick", "links.init=default", "--show"]
    env = environment() | {"PYTHONSAFEPATH": "1"}
    command = [sys.executable, flag, code, *typed]
    done = subprocess.run(command, cwd=workspace, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["links"]["variant"] == "thick"


def test_a_folders_file_hides_no_library(plugin, workspace):
    """A file beside the plugin is not what others get under a library's name."""
    (workspace / "colorsys.py").write_text("raise RuntimeError('hidden')\n")
    env = environment() | {"PYTHONSAFEPATH": "1"}
    code = (
        "from rmas_train.compose import compose; import sys; compose(sys.argv[1:]); import colorsys"
    )
    command = [sys.executable, "-c", code, f"plugins=[{plugin()}]"]
    done = subprocess.run(command, cwd=workspace, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and Path(workspace / "thick_links.told").exists(), done.stderr


@pytest.mark.slow
def test_jobs_of_a_sweep(plugin, workspace, overrides):
    kept = [o for o in overrides if not o.startswith(("rounds=", "run_dir="))]
    typed = ["-m", *kept, f"plugins=[{plugin()}]", "links.variant=linear,thick", "rounds=1"]
    assert main([*typed, f"run_dir={workspace}/sweep", "stage=plan"]) == 0
    stop_log()
    assert (workspace / "sweep" / "links.variant=thick" / "plan" / "plan.json").is_file()
