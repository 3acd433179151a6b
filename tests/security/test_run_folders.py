"""A run folder from somebody else: links in it lead no write to another place."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from rmas_train.__main__ import main
from rmas_train.errors import ConfigError
from rmas_train.reporting.report import write_report
from rmas_train.runs.session import held
from rmas_train.support.contained import WRITTEN, check_contained, open_here
from rmas_train.support.files import check_writable, locked, write_text
from rmas_train.support.output import start_log, stop_log

# Names below a run folder that a command writes to, and what somebody may put there.
FILES = [
    *(".lock", "run.log", ".failed", "results.json", "error.txt"),
    *("eval/config.yaml", "eval/environment.json", "eval/results.json", "eval/answers.jsonl"),
    *("eval_records/identity.json", "eval_records/rank-0.jsonl"),
    *("outer/metrics.jsonl", "inner/metrics.jsonl", "plan/plan.json", "analyse/messages.json"),
    *("report/index.html", "report/accuracy.png", "report/cost.png", "report/training.png"),
    *("outer/links/links.json", "outer/checkpoints/step_00000002/manifest.json"),
    *("outer/wandb/debug.log", "eval/.config.yaml.tmp1", ".results.json.tmp17", ".probe1"),
]
FOLDERS = [
    *("eval", "inner", "outer", "report", "plan", "analyse", "outer/checkpoints", "outer/links"),
    *("outer/wandb", "outer/tensorboard", "outer.old", ".submitit", "eval_records"),
]


@pytest.fixture
def folders(tmp_path):
    """Their run folder, and one of ours that nothing may be written to."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    (ours / "kept").write_text("kept")
    return theirs, ours


def plant(link: Path, target: Path | str) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


def refused(theirs: Path, *needles: str) -> None:
    with pytest.raises(ConfigError) as error, held(theirs):
        pass
    text = str(error.value)
    assert len(text.splitlines()) == 1
    for needle in needles:
        assert needle in text


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
@pytest.mark.parametrize("target", ["there", "not yet there", "by way of a folder inside"])
def test_no_link_leads_a_write_out(folders, name, target):
    theirs, ours = folders
    aim = ours / "new" if target == "not yet there" else ours / "kept"
    aim = ours if name in FOLDERS and target == "there" else aim
    if target == "by way of a folder inside":
        plant(theirs / "innocent" / "deep", ours)
        aim = theirs / "innocent"
        plant(theirs / name, os.path.relpath(aim, (theirs / name).parent))
    else:
        plant(theirs / name, aim)
    refused(theirs, "a symbolic link to ", str(ours), "remove the link")
    assert {p.name for p in ours.iterdir()} == {"kept"} and (ours / "kept").read_text() == "kept"


@pytest.mark.parametrize("name", [".lock", "run.log", "eval/config.yaml", "report/index.html"])
def test_no_write_waits_for_a_pipe(folders, name):
    theirs, _ = folders
    (theirs / name).parent.mkdir(exist_ok=True)
    os.mkfifo(theirs / name)
    refused(theirs, f"{name}: neither a file nor a folder")


def test_links_in_circles_and_up_are_refused_or_harmless(folders):
    theirs, _ = folders
    plant(theirs / "eval", "../../../../../../../../etc")
    refused(theirs, "a symbolic link to /etc,")
    (theirs / "eval").unlink()
    plant(theirs / "eval", ".")  # inside, and a circle
    plant(theirs / "outer", "outer")
    check_contained(theirs)


def test_links_inside_are_fine_and_other_names_are_not_looked_at(folders, tmp_path):
    """Trackers link to their newest run; ``run_dir=.`` may be a folder of other things too."""
    theirs, ours = folders
    (theirs / "outer" / "wandb" / "run-1").mkdir(parents=True)
    plant(theirs / "outer" / "wandb" / "latest-run", "run-1")
    plant(theirs / ".venv", ours)
    plant(theirs / "data", ours)
    plant(tmp_path / "typed", theirs)
    with held(theirs):
        pass
    with held(tmp_path / "typed"):  # the folder itself was typed
        pass


def test_files_are_opened_without_following_links(folders):
    """Also where a link appears after the check."""
    theirs, ours = folders
    plant(theirs / "run.log", ours / "kept")
    for mode in ("w", "a"):
        with pytest.raises(OSError, match="symbolic") as error:
            open_here(theirs / "run.log", mode)
        assert error.value.errno == errno.ELOOP
    with pytest.raises(OSError, match="symbolic"):
        start_log(theirs, 0)
    stop_log()
    plant(theirs / ".lock", ours / "kept")
    with pytest.raises(OSError, match="symbolic"), locked(theirs):
        pass
    pid = os.getpid()
    plant(theirs / f".results.json.tmp{pid}", ours / "kept")
    plant(theirs / f".probe{pid}", ours / "new")
    plant(theirs / "results.json", ours / "kept")
    check_writable(theirs, "run_dir")
    write_text(theirs / "results.json", "results")
    assert not (theirs / "results.json").is_symlink()
    assert (ours / "kept").read_text() == "kept" and not (ours / "new").exists()


def test_a_report_looks_at_what_it_writes(folders):
    theirs, ours = folders
    plant(theirs / "report", ours)
    with pytest.raises(ConfigError, match=r"theirs/report: a symbolic link to .*/ours"):
        write_report(theirs)
    assert [p.name for p in ours.iterdir()] == ["kept"]


@pytest.mark.parametrize("stage", ["eval", "report"])
def test_the_command_says_so_in_one_line(finished, folders, capsys, stage):
    place, _ = finished
    theirs, ours = folders
    shutil.rmtree(theirs)
    shutil.copytree(place.run_dir, theirs, symlinks=True)
    shutil.rmtree(theirs / "report")
    plant(theirs / "report", ours)
    typed = ["stage=eval", f"run={theirs}"] if stage == "eval" else []
    assert main([*(typed or [f"stage={stage}", f"run_dir={theirs}"])]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and f"{theirs}/report: a symbolic link to {ours}" in error
    assert [p.name for p in ours.iterdir()] == ["kept"]


def test_the_list_of_names_is_complete(finished):
    """Whatever a run with both trackers leaves at the top of its folder is looked at."""
    place, _ = finished
    from fnmatch import fnmatch

    for path in place.run_dir.iterdir():
        assert any(fnmatch(path.name, pattern) for pattern in WRITTEN), path
    check_contained(place.run_dir)
