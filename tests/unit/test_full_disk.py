"""A disk that is full or cannot be written: one line, the old files stay, nothing half-written.

The system itself refuses: no file may grow beyond a few bytes (RLIMIT_FSIZE), or the folder is a
file.
"""

import errno
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import make_links

from rmas_train.errors import WriteError
from rmas_train.links.folder import save_links
from rmas_train.links.link_set import LinkSet
from rmas_train.reporting.report import write_report
from rmas_train.support.files import append_line, new_folder, write_json, write_text
from rmas_train.support.output import exit_code, say, start_log, stop_log

OLDER = Path(__file__).resolve().parents[1] / "older" / "v0_1"


@contextmanager
def full(size=100):
    """No file of this process may become larger than ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refused(path, act, size=100):
    """``act`` fails with one line that names ``path``, and leaves all files as they were."""
    before = contents(path.parent)
    with full(size), pytest.raises(WriteError) as caught:
        act()
    text = str(caught.value)
    assert text.startswith(f"{path}: cannot be written (File too large); what was there")
    assert caught.value.strerror == "File too large" and "\n" not in text
    assert contents(path.parent) == before


def contents(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.parametrize("there", [True, False])
def test_a_file_is_whole_or_as_before(tmp_path, there):
    path = tmp_path / "results.json"
    if there:
        path.write_text("{}")
    refused(path, lambda: write_text(path, "x" * 200))
    refused(path, lambda: write_json(path, ["x"] * 200))
    if there:
        refused(path, lambda: append_line(path, "x" * 200))


def test_a_folder_is_whole_or_as_before(tmp_path):
    path = tmp_path / "links"
    path.mkdir()
    (path / "old").write_text("old")

    def fill(write):
        with new_folder(path) as work:
            (work / "small").write_text("x")
            write(work)

    tensors = {"x": torch.zeros(100)}
    refused(path, lambda: fill(lambda work: (work / "large").write_text("x" * 200)))
    refused(path, lambda: fill(lambda work: save_file(tensors, work / "t.safetensors")))
    with full(), pytest.raises(WriteError, match="links: cannot be written"):
        fill(lambda work: torch.save(tensors, work / "t.pt"))
    assert [p.name for p in path.iterdir()] == ["old"] == [p.name for p in path.rglob("*")]
    with pytest.raises(FileNotFoundError):  # of reading elsewhere: not called a fault of writing
        fill(lambda work: (tmp_path / "nowhere").read_text())
    with pytest.raises(ZeroDivisionError):
        fill(lambda work: 1 / 0)


def test_links_on_a_full_disk(tmp_path, team, monkeypatch):
    links = make_links(team)
    assert isinstance(links, LinkSet)
    refused(tmp_path / "links", lambda: save_links(tmp_path / "links", links, None), 5000)


def test_a_report_on_a_full_disk(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(OLDER, run)
    refused(run / "results.json", lambda: write_report(run), 500)
    write_report(run)
    (run / "results.json").unlink()
    size = len((run / "report" / "accuracy.png").read_bytes())
    with full(size - 1), pytest.raises(WriteError, match="accuracy.png: cannot be written"):
        write_report(run)
    assert len((run / "report" / "accuracy.png").read_bytes()) == size


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    for act in (write_text, lambda path, _: write_json(path, 1)):
        with pytest.raises(WriteError, match=r"file/x: cannot be written \(.*exists"):
            act(tmp_path / "file" / "x", "x")
    with pytest.raises(WriteError, match="cannot be written"), new_folder(tmp_path / "file" / "x"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_the_command_tells_it_in_one_line(tmp_path, capsys, number, monkeypatch):
    def act():
        raise OSError(number, "the reason")

    monkeypatch.setattr("os.fsync", lambda _: act())
    assert exit_code(lambda: write_text(tmp_path / "x", "x"), "") == 2
    assert exit_code(act, "") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {tmp_path}/x: cannot be written (the reason)")
    assert second.startswith("error: the reason; check the path")
    assert list(tmp_path.iterdir()) == []


def test_a_log_on_a_full_disk_is_told_once(tmp_path, capsys):
    start_log(tmp_path, rank=1)
    with full():
        for _ in range(3):
            say("x" * 80)
    stop_log()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"warning: {tmp_path}/run.log: ") and "File too large" in line
