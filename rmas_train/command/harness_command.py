"""``python -m rmas_train lm-eval ...``: lm-evaluation-harness' own command, with model ``rmas``.

The harness finds only models that are registered in its process, and looks for no plugins.
"""

from __future__ import annotations

import sys

from rmas_train.errors import ConfigError


def run_command(argv: list[str]) -> None:
    """Run ``lm_eval`` with what was typed after ``lm-eval``.

    Raises:
        ConfigError: lm_eval is not installed.
    """
    try:
        from lm_eval.__main__ import cli_evaluate

        import rmas_train.serving.harness
    except ImportError as error:
        raise ConfigError(
            f"lm-eval needs lm_eval ({error}); pip install 'rmas_train[lm-eval]' (in a clone: "
            "pip install -e '.[lm-eval]')."
        ) from error
    del rmas_train
    typed, sys.argv = sys.argv, ["lm_eval", *argv]
    try:
        cli_evaluate()
    finally:
        sys.argv = typed
