"""Options that came after the format do not part a run from its older files."""

from dataclasses import asdict

import pytest

from rmas_train.config import LinksConfig
from rmas_train.config.training import OuterConfig
from rmas_train.links.card import LATER_OPTIONS
from rmas_train.runs.identity import LATER, _deciding


@pytest.mark.parametrize("options", [LinksConfig(), OuterConfig()])
def test_at_their_default_they_are_no_part_of_the_identity(options):
    known = asdict(options)
    assert not LATER.keys() & _deciding(options).keys()
    assert all(known[key] in LATER[key] for key in LATER.keys() & known.keys())


def test_what_they_change_is_part_of_it():
    options = LinksConfig(shared=True, message_update="residual")
    found = _deciding(options)
    assert found["shared"] is True and found["message_update"] == "residual"


def test_older_cards_are_read_with_them():
    assert {"shared", "message_update"} <= LATER_OPTIONS.keys()
