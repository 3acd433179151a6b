"""A links folder from somebody else: names are names, files are its own, and reading is all."""

import json
import shutil
from pathlib import Path

import pytest

import rmas_train
from rmas_train.__main__ import main
from rmas_train.errors import LinksError
from rmas_train.links.card import CARD, TENSORS, read_card

BAD_NAMES = [
    "../../etc/passwd",
    "..",
    ".",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\x00b",
    "a\nb",
    "planner\n",
    "\x1b[31mred",
    "<script>",
    "a" * 65,
    "",
    "C:",
]


@pytest.fixture
def links(finished, tmp_path) -> Path:
    place, _ = finished
    return Path(shutil.copytree(place.run_dir / "outer" / "links", tmp_path / "theirs"))


def refused(folder: Path, *needles: str) -> None:
    with pytest.raises(LinksError) as error:
        rmas_train.load(folder)
    text = str(error.value)
    assert len(text.splitlines()) == 1 and text.isprintable() and len(text) < 1000
    for needle in (CARD, *needles):
        assert needle in text


def change(folder: Path, edit) -> None:
    card = json.loads((folder / CARD).read_text())
    edit(card)
    (folder / CARD).write_text(json.dumps(card))


EDITS = {
    "agents": lambda c, n: c["agents"].update({n: c["agents"].pop("critic")}),
    "prompts": lambda c, n: c["prompts"].update({n: c["prompts"].pop("critic")}),
    "topology.order": lambda c, n: c["topology"].update(order=["planner", n, "solver"]),
    "topology.edges": lambda c, n: c["topology"]["edges"][0].update(target=n),
    "topology.decoder": lambda c, n: c["topology"].update(decoder=n),
}


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("where", EDITS)
def test_names_that_are_none_are_refused(links, where, name):
    change(links, lambda card: EDITS[where](card, name))
    refused(links, f"{where}: ", "no agent's name")


@pytest.mark.parametrize("value", [3, None, ["planner"], {"a": 1}])
def test_values_that_are_no_names_are_refused(links, value):
    change(links, lambda card: card["topology"].update(order=["planner", value]))
    refused(links, "topology.order")


@pytest.mark.parametrize("key", ["model", "revision"])
@pytest.mark.parametrize("value", ["a\x00b", "a\x1b[2Jb", "x" * 5000, ["a"], {"a": 1}])
def test_sources_are_lines_of_text(links, key, value):
    change(links, lambda card: card["agents"]["critic"].update({key: value}))
    refused(links, f"agents.critic.{key}", "no line of text")


def test_the_topologys_name_is_a_line_of_text(links):
    change(links, lambda card: card["topology"].update(name="a\x1b]0;title\x07b"))
    refused(links, "topology.name")


@pytest.mark.parametrize("file", [CARD, TENSORS])
@pytest.mark.parametrize("relative", [True, False])
def test_a_link_out_of_the_folder_is_refused(links, file, relative):
    outside = links.parent / f"outside_{file}"
    (links / file).rename(outside)
    (links / file).symlink_to(f"../{outside.name}" if relative else outside)
    with pytest.raises(LinksError, match="outside the folder; copy the file itself") as error:
        rmas_train.load(links)
    assert len(str(error.value).splitlines()) == 1


def test_links_within_the_folder_and_to_the_folder_are_read(links):
    (links / CARD).rename(links / "card.json")
    (links / CARD).symlink_to("card.json")
    (links.parent / "newest").symlink_to(links)
    assert rmas_train.load(links.parent / "newest").links is not None


def cached(links: Path, blob: Path) -> Path:
    """The hub's layout, with the card's blob where ``blob`` says."""
    repository = links.parent / "models--team--links"
    snapshot = repository / "snapshots" / ("ab" * 20)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    shutil.move(links / TENSORS, repository / "blobs" / "tensors")
    (snapshot / TENSORS).symlink_to("../../blobs/tensors")
    target = repository / blob
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(links / CARD, target)
    (snapshot / CARD).symlink_to(target)
    return snapshot


def test_the_hubs_cache_is_read(links):
    assert rmas_train.load(cached(links, Path("blobs/card"))).rounds == 2


@pytest.mark.parametrize("blob", ["refs/card", "../models--other--links/blobs/card", "../card"])
def test_the_cache_reaches_its_own_blobs_only(links, blob):
    refused(cached(links, Path(blob)), "outside the folder")


def test_a_link_that_leads_nowhere_or_in_a_circle_is_refused(links):
    (links / TENSORS).unlink()
    (links / TENSORS).symlink_to(TENSORS)
    with pytest.raises(LinksError) as error:
        rmas_train.load(links)
    assert len(str(error.value).splitlines()) == 1


def _unseal(card: dict) -> dict:
    """Whoever changes a card on purpose can do without its seal."""
    card["seal"] = ""
    return card


def test_a_card_cannot_ask_for_code(links):
    """``trust_remote_code`` is nothing that a card can say."""
    change(links, lambda card: _unseal(card)["agents"]["critic"].update(trust_remote_code=True))
    system = rmas_train.load(links)
    assert system.team.agents["critic"].revision is None


def state(folder: Path) -> dict[str, tuple[float, bytes]]:
    return {
        str(p): (p.lstat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


def test_what_is_read_from_is_not_written_to(finished, overrides, workspace, tmp_path):
    """``inner=``, ``resume=`` and ``rmas_train.load`` leave their folders as they are."""
    from rmas_train.support.output import stop_log

    place, _ = finished
    theirs = Path(shutil.copytree(place.run_dir, tmp_path / "theirs"))
    before = state(theirs)
    rmas_train.load(theirs)
    assert main([*overrides, "stage=outer", f"inner={theirs}/inner"]) == 0
    stop_log()
    checkpoint = next(theirs.glob("inner/checkpoints/step_*"))
    main([*overrides, "stage=inner", f"resume={checkpoint}"])  # of another run: refused
    stop_log()
    assert state(theirs) == before


def test_a_manifest_cannot_name_other_files(finished, tmp_path):
    from rmas_train.errors import CheckpointError
    from rmas_train.training.checkpoint import read

    place, _ = finished
    source = next(place.run_dir.glob("outer/checkpoints/step_*"))
    theirs = Path(shutil.copytree(source, tmp_path / "step_00000002"))
    manifest = json.loads((theirs / "manifest.json").read_text())
    manifest["files"]["../../secret"] = {"size": 1, "sha256": "0"}
    (theirs / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="lists"):
        read(theirs)


def test_a_plain_card_is_read(links):
    assert set(read_card(links).agents) == {"planner", "critic", "solver"}
