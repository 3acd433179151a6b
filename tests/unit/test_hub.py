"""Push and pull against a hub in miniature over real HTTP: what travels, and what does not."""

import json
import os
import socket

import pytest
import yaml
from hub_server import on
from released import TOPOLOGY, WIDTHS, save
from tiny import SEQUENTIAL

from rmas_train.__main__ import main
from rmas_train.links.card import CARD, TENSORS

REPO = "team/links"
KNOWN = {CARD, TENSORS, "README.md"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with on(monkeypatch, tmp_path / "cache") as hub:
        yield hub


@pytest.fixture
def links(tmp_path):
    return save(tmp_path / "links", TOPOLOGY, SEQUENTIAL, WIDTHS)


def fails(capsys, argv, *needles):
    capsys.readouterr()
    assert main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and len(error.splitlines()) == 1, error
    for needle in needles:
        assert needle in error, error


def push(folder, *flags):
    return ["links", "push", str(folder), REPO, *flags]


def pull(folder, *flags):
    return ["links", "pull", REPO, str(folder), *flags]


def test_what_is_pushed_is_pulled_bit_by_bit(hub, links, tmp_path, capsys):
    (links / "notes.txt").write_text("mine")
    (links / "optimizer.safetensors").write_bytes(b"mine")
    assert main(push(links)) == 0
    files = hub.repos[REPO]["files"]
    assert set(files) == KNOWN | {".gitattributes"} and hub.repos[REPO]["private"]
    assert any("objects/batch" in r for r in hub.requests)  # the large file's own way
    assert main(pull(tmp_path / "theirs")) == 0
    assert {p.name for p in (tmp_path / "theirs").iterdir()} == KNOWN | {"hub.json"}
    for name in (CARD, TENSORS):
        assert (tmp_path / "theirs" / name).read_bytes() == (links / name).read_bytes()
        assert not (tmp_path / "theirs" / name).is_symlink()
    origin = json.loads((tmp_path / "theirs" / "hub.json").read_text())
    assert origin == {"repository": REPO, "commit": hub.commit(REPO), "revision": None}
    assert hub.commit(REPO) in capsys.readouterr().out


def test_a_dry_run_sends_nothing_and_lists_all(hub, links, capsys):
    (links / "notes.txt").write_text("mine")
    assert main(push(links, "--dry-run")) == 0
    out = capsys.readouterr().out
    assert hub.requests == [] and "private" in out and "notes.txt" not in out
    assert all(name in out for name in KNOWN)


def test_public_is_asked_for(hub, links, capsys):
    assert main(push(links, "--public")) == 0
    assert not hub.repos[REPO]["private"]
    before = dict(hub.repos[REPO]["files"])
    fails(capsys, push(links), f"{REPO} is public", "--public")
    assert hub.repos[REPO]["files"] == before


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def unseal(folder):
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | {"seal": ""}))


def relink(folder):
    (folder / TENSORS).rename(folder / "real")
    (folder / TENSORS).symlink_to("real")


@pytest.mark.parametrize(
    ("damage", "needle"),
    [
        (lambda f: flip(f / TENSORS), "seal"),
        (unseal, "no seal"),
        (relink, "symbolic link"),
        (lambda f: (f / TENSORS).unlink(), TENSORS),
    ],
)
def test_a_damaged_folder_is_not_pushed(hub, links, capsys, damage, needle):
    damage(links)
    fails(capsys, push(links), needle)
    assert hub.requests == []


def uploaded(hub, links, **changed):
    files = {n: (links / n).read_bytes() for n in (CARD, TENSORS)} | changed
    return hub.add(REPO, {n: c for n, c in files.items() if c is not None})


def test_a_pull_that_came_damaged_leaves_nothing(hub, links, tmp_path, capsys):
    before = (links / TENSORS).read_bytes()
    uploaded(hub, links, **{TENSORS: before[:-1] + bytes([before[-1] ^ 1])})
    fails(capsys, pull(tmp_path / "theirs"), "seal", REPO)
    assert not list(tmp_path.glob("*theirs*"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "sub/links.json", "run.py", ".env"])
def test_unknown_files_are_refused_unfetched(hub, links, tmp_path, capsys, name):
    uploaded(hub, links, **{name: b"x"})
    fails(capsys, pull(tmp_path / "theirs"), name, "none of links.json")
    assert hub.fetched() == set() and not (tmp_path / "theirs").exists()
    fails(capsys, push(links), name)


def test_a_repository_without_links_is_refused(hub, links, tmp_path, capsys):
    uploaded(hub, links, **{TENSORS: None})
    fails(capsys, pull(tmp_path / "theirs"), f"no {TENSORS}")


def test_revisions(hub, links, tmp_path, capsys):
    commit = uploaded(hub, links)
    assert main(pull(tmp_path / "theirs", "--revision", commit)) == 0
    fails(capsys, pull(tmp_path / "others", "--revision", "v9"), f"{REPO}@v9")


def test_nothing_is_written_over(hub, links, tmp_path, capsys):
    uploaded(hub, links)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "mine").write_text("mine")
    fails(capsys, pull(tmp_path / "theirs"), "not empty")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    fails(capsys, pull(tmp_path / "link"), "not empty")
    assert hub.requests == []


@pytest.mark.parametrize("repo", ["links", "../etc/passwd", "a/b/c", "/tmp/x", "team/..", "a--b/c"])
def test_what_is_no_hub_id(hub, links, tmp_path, capsys, repo):
    fails(capsys, ["links", "pull", repo, str(tmp_path / "theirs")], "no hub id")
    fails(capsys, ["links", "push", str(links), repo], "no hub id")
    assert hub.requests == []


def test_an_unknown_repository_and_no_connection_are_one_line(hub, tmp_path, capsys, monkeypatch):
    fails(capsys, pull(tmp_path / "theirs"), REPO, "no such repository")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        fails(capsys, pull(tmp_path / "theirs"), REPO, "check the connection")


def test_a_token_is_in_no_message_and_no_file(hub, links, tmp_path, capsys, monkeypatch):
    token = "hf_" + "Aa1Bb2Cc3Dd4Ee5Ff6Gg7Hh8Ii9Jj0Kk1L"
    monkeypatch.setenv("HF_TOKEN", token)
    assert main(push(links)) == 0 and main(pull(tmp_path / "theirs")) == 0
    printed = capsys.readouterr()
    assert token not in printed.out + printed.err
    sent = list(hub.repos[REPO]["files"].values())
    kept = [p.read_bytes() for p in (tmp_path / "theirs").iterdir()]
    assert not any(token.encode() in content for content in sent + kept)


def header(text):
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_model_card_says_what_the_run_says(finished_run):
    from rmas_train.links.card import read_card
    from rmas_train.release.model_card import model_card

    folder = finished_run / "outer" / "links"
    os.utime(finished_run / "eval" / "results.json")
    card = read_card(folder)
    card.agents["planner"]["model"] = "team/planner"
    front, body = header(model_card(folder, card, finished_run))
    assert front["base_model"] == ["team/planner"] and "license" not in front
    assert "arxiv:2604.25917" in front["tags"]
    for needle in ("2604.25917", "| planner | team/planner |", "tiny", card.data_fingerprint[:16]):
        assert needle in body, body
    for needle in ("latent untrained", "python -m rmas_train links pull", "torch 2", "command: `"):
        assert needle in body, body
    assert str(finished_run) not in body and card.agents["critic"]["model"] not in body
    os.utime(finished_run / "eval" / "results.json", (0, 0))
    assert "Not measured since" in model_card(folder, card, finished_run)


@pytest.fixture
def finished_run(overrides, workspace):
    from rmas_train.support.output import stop_log

    assert main([*overrides, "evaluation.rounds=[1]"]) == 0
    stop_log()
    return workspace / "run"
