"""Links remember how chat templates wrote their prompts, and are refused where that has changed."""

import json
import shutil

import pytest

import rmas_train
from rmas_train.__main__ import main
from rmas_train.errors import LinksError
from rmas_train.support.output import stop_log


def test_links_are_refused_where_a_template_has_changed(
    overrides, agent_folders, workspace, tmp_path, capsys
):
    assert main([*overrides, "evaluation.systems=[]"]) == 0
    stop_log()
    card = json.loads((workspace / "run" / "outer" / "links" / "links.json").read_text())
    solver = card["rendered_prompts"]["solver"]
    assert "<<question>> note <<message:critic>> go" in solver["user"]
    assert solver["own_text"] == " <<text>><|e|>" and len(solver["sha256"]) == 64
    changed = tmp_path / "changed"
    shutil.copytree(agent_folders["solver"], changed)
    template = changed / "chat_template.jinja"
    template.write_text("Today! " + template.read_text())
    with pytest.raises(LinksError, match=r"rendered_prompts\.solver\.user.*train again") as error:
        rmas_train.load(workspace / "run", agents={"solver": str(changed)})
    assert len(str(error.value).splitlines()) == 1
    typed = ["stage=eval", f"run={workspace / 'run'}", f"agents.solver.model={changed}"]
    assert main(typed) == 2
    stop_log()
    assert "rendered_prompts.solver" in capsys.readouterr().err
    # Other prompt files are asked for on purpose, so they are not compared.
    other = workspace / "other"
    shutil.copytree(workspace / "prompts", other)
    (other / "solver.yaml").write_text('{"user": "<<question>> so <<message:critic>> go"}')
    assert main([*typed[:2], f"data.prompts={other}"]) == 0
    stop_log()
