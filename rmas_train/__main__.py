"""``python -m rmas_train stage=... key=value ...``; the installed command is ``rmas-train``."""

from __future__ import annotations

from rmas_train.command.main import main, run, tell_crash, warning_line

__all__ = ["main", "tell_crash", "warning_line"]

if __name__ == "__main__":
    run()
