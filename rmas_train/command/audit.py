"""``python -m rmas_train audit links=<folder or hub id> data=...``: what is behind these links?

The link report, and an evaluation with every control and baseline that needs no training, with the
verdict and the costs, on one page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rmas_train.compose import compose
from rmas_train.config import Config
from rmas_train.errors import ConfigError, LinksError
from rmas_train.links.card import LinksCard, read_card
from rmas_train.links.folder import find_links
from rmas_train.support.contained import check_contained
from rmas_train.support.files import write_json, write_text
from rmas_train.support.output import clean

USAGE = """\
Usage: python -m rmas_train audit links=FOLDER|HUB_ID [run_dir=FOLDER] [key=value ...]

The folder is a links folder or a run folder. Options are those of stage=eval: data=eval/<benchmark>
or data.folder=... and data.test=..., evaluation.max_rows=..., agents.<name>.model=... and so on.
A run folder brings its own data. The page is run_dir/report/index.html."""
SYSTEMS = (
    *("start", "null", "shuffled", "untrained", "mean", "noise", "rotation", "thinking"),
    *("decoder_alone", "text", "text_capped", "single", "looplm", "budget", "latentmas"),
)
# What a card says of how an agent was loaded.
AGENT = ("model", "revision", "dtype", "adapter", "adapter_revision", "quantization", "template")


def run_command(typed: Sequence[str]) -> None:
    """Run what was typed after ``audit``.

    Raises:
        UserError: an error that the user can correct.
    """
    if not typed or {"-h", "--help"} & set(typed):
        print(USAGE)
        return
    where, rest = _links_of(typed)
    folder = _found(where)
    given = dict(o.split("=", 1) for o in rest if "=" in o)
    run_dir = Path(given.get("run_dir", f"outputs/audit/{Path(where).name}"))
    config = _config(folder, run_dir, [o for o in rest if not o.startswith("run_dir=")])
    report_links(folder, run_dir)
    from rmas_train.stages.pipeline import execute

    execute(config)
    print(clean(f"one page: {run_dir / 'report' / 'index.html'}"))


def _links_of(typed: Sequence[str]) -> tuple[str, list[str]]:
    named = [o for o in typed if o.startswith("links=")]
    if len(named) != 1 or not named[0].removeprefix("links="):
        raise ConfigError(f"audit: {len(named)} times links=; give one folder or hub id there.")
    return named[0].removeprefix("links="), [o for o in typed if o != named[0]]


def _found(where: str) -> Path:
    """A folder on this machine; of a hub id, the cached one."""
    if Path(where).is_dir():
        return Path(where)
    from rmas_train.release.hub import HUB_ID, cached_links

    repo, _, revision = where.partition("@")
    if not HUB_ID.fullmatch(repo):
        raise LinksError(f"links={where}: no such folder, and no hub id (organisation/name).")
    return cached_links(repo, revision or None)


def _config(folder: Path, run_dir: Path, typed: Sequence[str]) -> Config:
    """Of an evaluation: the run's own, or else by what the links say of themselves."""
    systems = f"evaluation.systems=[{','.join(SYSTEMS)}]"
    links = find_links(folder)
    asked = ["stage=eval", systems, *typed, f"run={folder}"]
    if any((folder / place).is_file() for place in ("config.yaml", "outer/config.yaml")):
        return compose([*asked, f"run_dir={run_dir}"])
    check_contained(run_dir)
    card = read_card(links)
    if card.rounds is None:
        raise LinksError(f"{links}: inner links only; there is no system to ask.")
    prompts = run_dir / "prompts"
    for name, texts in card.prompts.items():
        prompts.mkdir(parents=True, exist_ok=True)
        write_text(prompts / f"{name}.yaml", yaml.safe_dump(dict(texts)))
    file = run_dir / "audit.yaml"
    write_text(file, yaml.safe_dump(options_of(card, prompts), sort_keys=False))
    return compose([f"--config={file}", *asked, f"run_dir={run_dir}"])


def options_of(card: LinksCard, prompts: Path) -> dict[str, Any]:
    """Options of a run from the card of its links; what is not there was nowhere recorded."""
    return {
        "agents": {name: _agent(about) for name, about in card.agents.items()},
        "topology": card.topology,
        "links": card.links,
        "rounds": card.rounds,
        "latent_length": card.latent_length,
        "data": {"prompts": str(prompts), "recipe": None, "train": None},
        "evaluation": {"max_new_tokens": card.max_new_tokens},
    }


def _agent(about: Mapping[str, Any]) -> dict[str, Any]:
    return {key: about[key] for key in AGENT if about.get(key) is not None}


def report_links(folder: Path, run_dir: Path) -> None:
    """``links report``, on the terminal and into the run folder, where the page finds it."""
    from rmas_train.analysis.link_report import report
    from rmas_train.release.inspect import find_inspected
    from rmas_train.reporting.link_table import LINK_REPORT, finite, print_links

    found = report(find_inspected(folder, None))
    print_links(found)
    run_dir.mkdir(parents=True, exist_ok=True)
    check_contained(run_dir)
    write_json(run_dir / LINK_REPORT, finite(found))
