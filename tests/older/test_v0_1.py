"""Files of version 0.1 still load: links, saved config, checkpoint, results.

They were written by that version in a run of three tiny agents (`v0_1/outer/config.yaml`), with
options under their former names.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from rmas_train.compose import from_file
from rmas_train.errors import DeprecatedOptionWarning
from rmas_train.links.restore import restore_links
from rmas_train.reporting.report import write_report
from rmas_train.training.callbacks import LinkWatch, by_name
from rmas_train.training.checkpoint import read

RUN = Path(__file__).parent / "v0_1"


def test_links_load_with_their_seal():
    card, topology, links = restore_links(RUN / "outer" / "links")
    assert card.package_version == "0.1.0" and topology.decoder == "solver"
    assert set(links.links()) == {
        *(f"inner.{name}" for name in topology.order),
        *(f"outer.{edge.key}" for edge in topology.edges),
    }
    widths = {name: about["width"] for name, about in card.agents.items()}
    for edge in topology.edges:
        out = links.outer[edge.key](torch.ones(2, widths[edge.source]))
        assert out.shape == (2, widths[edge.target]) and out.isfinite().all()


def test_a_saved_config_is_read_under_the_new_names():
    with pytest.warns(DeprecatedOptionWarning) as told:
        config = from_file(RUN / "outer" / "config.yaml")
    assert config.training.outer.recompute == "agent"
    assert config.evaluation.systems == ["start", "text"]
    assert len(told) == 2


def test_a_checkpoint_is_whole_and_its_callbacks_are_known():
    found = read(RUN / "outer" / "checkpoints" / "step_00000003")
    assert found.step == 3 and found.identity["stage"] == "outer"
    watch = LinkWatch(lambda rounds: set())
    assert set(by_name([watch])) <= set(found.state["callbacks"])
    watch.load(found.state["callbacks"]["LinkWatch"])
    # What has come since is left out of an identity at its default, so that the two are equal.
    assert "objective" not in found.identity["training"]


def test_a_report_is_made_of_older_results(tmp_path):
    shutil.copytree(RUN, tmp_path / "run")
    write_report(tmp_path / "run")
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    rows = json.loads((RUN / "eval" / "results.json").read_text())["rows"]
    assert page.count("<tr>") == len(rows) + 1 and "latent start" in page
