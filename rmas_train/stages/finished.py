"""Whether a pipeline has anything left to do: is every result what this run would make?"""

from __future__ import annotations

from pathlib import Path

from rmas_train.config import Config
from rmas_train.errors import UserError
from rmas_train.links.card import read_card
from rmas_train.links.folder import check_seal
from rmas_train.runs.evaluated import is_of
from rmas_train.runs.identity import equal_inner, find_inner, outer_identity, tensors_hash
from rmas_train.runs.load import Loaded
from rmas_train.stages.evaluate import identity_of_eval, identity_there


def is_finished(config: Config, loaded: Loaded) -> bool:
    """Inner links, start, outer links and evaluation are there, whole, and of this very run."""
    outer = Path(config.run_dir) / "outer"
    try:
        inner = find_inner(config, loaded) if config.inner else equal_inner(config, loaded)
        if inner is None:
            return False
        check_seal(inner)
        card = read_card(outer / "links")
        wanted = outer_identity(loaded, tensors_hash(inner), _objective(config, card.identity))
        if not all(is_of(outer / name, wanted) for name in ("links", "start")):
            return False
        for name in ("links", "start"):
            check_seal(outer / name)
        return identity_there(outer.parent / "eval") == identity_of_eval(config, loaded)
    except (UserError, OSError):
        return False


def _objective(config: Config, identity: dict[str, object]) -> str | None:
    """The class of a plugin's objective is known only when it is made: as the links say."""
    is_ours = config.training.outer.objective == type(config.training.outer)().objective
    return None if is_ours else str(identity.get("objective") or "") or None
