"""A run folder with links that no stage has trained: imported ones, or those of a library."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from rmas_train.config import Config
from rmas_train.errors import LinksError
from rmas_train.links.card import LinksCard
from rmas_train.links.folder import save_links
from rmas_train.links.link_set import LinkSet
from rmas_train.runs.identity import inner_only
from rmas_train.runs.session import stage_folder
from rmas_train.support.contained import check_contained
from rmas_train.support.files import check_writable, locked


def folders_of(config: Config) -> list[Path]:
    """Where such links go: those of stages inner and outer.

    Raises:
        LinksError: the run folder has links already.
    """
    folders = [Path(config.run_dir) / stage / "links" for stage in ("inner", "outer")]
    for folder in folders:
        if folder.exists():
            raise LinksError(f"{folder}: links are there already; choose another run_dir=.")
    return folders


def write_run(config: Config, links: LinkSet, card: LinksCard) -> list[Path]:
    """Write ``run_dir/inner/links`` and ``run_dir/outer/links``, and the config beside them."""
    folders, run_dir = folders_of(config), Path(config.run_dir)
    about = replace(card, stage="inner", rounds=None, latent_length=None)
    check_contained(run_dir)
    check_writable(run_dir, "run_dir")
    with locked(run_dir):
        try:
            stage_folder(config, "inner", card.agents)
            save_links(folders[0], inner_only(links), about)
            stage_folder(config, "outer", card.agents)
            save_links(folders[1], links, card)
        except BaseException:  # write both or none: neither existed before
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            raise
    return folders
