"""What we write and print: the log, without secrets and control characters. SECURITY.md says why.

Secrets belong in environment variables: a token typed as an option would stay in configs, logs and
sweep folders, so it is refused; in texts that are not ours to refuse it is replaced by ``***``.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rmas_train.errors import ConfigError, StoppedError, UserError, shorten
from rmas_train.support.contained import open_here

# Where it is installed, Accelerate imports it, and it tells of a kernel that a hub would have.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# Whole tokens only, and none inside a path: names such as task-sk-3 are not tokens.
TOKEN = re.compile(
    r"(?:(?<![\w/.-])|(?<=//))(?:"
    r"(?:hf_|api_org_)[A-Za-z0-9]{30,}"
    r"|sk-(?:(?:proj|ant|svcacct|admin|or)-[\w-]{32,}|[A-Za-z0-9]{32,})"
    r"|gh[opusr]_[A-Za-z0-9]{36,}|github_pat_\w{50,}|glpat-[\w-]{20,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}|xox[abprs]-[\w-]{20,}|wandb_v1_\w{30,}"
    r")(?![\w-])"
)
URL_LOGIN = re.compile(r"(?<=://)([^\s/:@]*):[^\s/]+@")
URL_QUERY = re.compile(r"(?i)([?&][\w-]*(?:token|signature|api_?key|secret)=)[^&\s]+")
SECRET = r"(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|PRIVATE_KEY)"
ASSIGNED = re.compile(rf"\b([A-Z][A-Z0-9_]*{SECRET}=)(?![\"']?\$)[^\s'\",\]]+")
SECRET_NAME = re.compile(rf"(?i)(?:^|.*[._]){SECRET}$")
FREE_KEYS = ("hydra.", "data.recipe_options.", "tracking")  # any name may follow
WANDB_KEY = re.compile(r"\b[0-9a-f]{40}\b")  # a commit looks the same: used for `tracking` only
# Escape sequences, and marks that change the direction of text; tabs and line ends stay.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def redacted(text: str, secrets: Sequence[str] | None = None) -> str:
    """The text without tokens, passwords in URLs, and values of the environment's secrets.

    ``secrets``: these values, where they are known already; many texts need them once.
    """
    for value in _environment_secrets() if secrets is None else secrets:
        text = text.replace(value, "***")
    text = URL_LOGIN.sub(r"\1:***@", text)
    text = URL_QUERY.sub(r"\1***", text)
    return TOKEN.sub("***", ASSIGNED.sub(r"\1***", text))


def printable(text: str) -> str:
    """Write control characters as escapes, so that a text cannot move the cursor or hide."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def clean(text: str) -> str:
    """The text for the terminal and for logs: no secret, no control character."""
    return printable(redacted(text))


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # with and without a file's name


def one_line(error: object) -> str:
    """An error's text as one line for the user."""
    return shorten(clean(" ".join(str(error).splitlines())))


def rank(env: Mapping[str, str] = os.environ) -> int:
    """This process's number; 0 alone, and where the environment says nothing that can be read."""
    text = env.get("RANK", "0").strip()
    return int(text) if text.isascii() and text.isdigit() else 0


def exit_code(
    act: Callable[[], None],
    interrupted: str,
    is_told_here: Callable[[UserError], bool] = lambda _: True,
) -> int:
    """Run a command: 0, or the code of an error that the user can correct, told in one line.

    Args:
        act: the command.
        interrupted: what ctrl-C leaves behind, as a line for the user.
        is_told_here: whether this process is the one of several that tells the user.
    """
    try:
        act()
    except UserError as error:
        if is_told_here(error):
            prefix = "" if isinstance(error, StoppedError) else "error: "
            print(f"{prefix}{one_line(error)}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a full disk, a folder where a file should be, no permission
        if error.filename is None and error.errno not in DISK:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        line = f"{where}{error.strerror}; check the path, its permissions and the disk."
        print(f"error: {one_line(line)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    return 0


def check_typed(overrides: Iterable[str]) -> None:
    """Check that no typed option holds a secret.

    Raises:
        ConfigError: an option does; names its key only.
    """
    for override in overrides:
        key, _, value = override.partition("=")
        plain = key.lstrip("+~")
        is_named = plain.startswith(FREE_KEYS) and SECRET_NAME.match(plain)
        is_wandb = plain.startswith("tracking") and WANDB_KEY.search(value)
        if redacted(override) != override or (value and is_named) or is_wandb:
            _refuse(redacted(key))


def check_values(values: Mapping[Any, Any]) -> None:
    """Check that no value of a composed config holds a secret (also by ``${oc.env:...}``).

    Raises:
        ConfigError: a value does; names its key only.
    """
    secrets = _environment_secrets()
    for key, value in _leaves(values):
        if redacted(value, secrets) != value or redacted(key, secrets) != key:
            _refuse(redacted(key))


def _refuse(key: str) -> None:
    raise ConfigError(
        f"{key}: the value looks like a token or a password (not shown), and files of the run "
        "would keep it; leave it out and set an environment variable instead (HF_TOKEN, "
        "WANDB_API_KEY, ...)."
    )


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, of in value.items():
            yield from _leaves(of, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for of in value:
            yield from _leaves(of, key)
    else:
        yield key, str(value)


def _environment_secrets() -> list[str]:
    """Values of variables that are named like secrets; paths to key files do not count."""
    found = [
        value.strip()
        for name, value in os.environ.items()
        if SECRET_NAME.match(name) and not value.startswith(("/", "~", "."))
    ]
    return sorted((v for v in found if len(v) >= 12), key=len, reverse=True)


LOGGER = logging.getLogger("rmas_train")
FORMAT = "%(asctime)s rank %(rank)s %(message)s"


class CleanFormatter(logging.Formatter):
    """No secrets, no control characters, and no text that looks like a line of the log."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record)).replace("\n", "\n  ")


class LogFile(logging.FileHandler):
    """A log, no symbolic link to another file; where it cannot be written on, the run goes on."""

    told = False

    def _open(self) -> Any:
        return open_here(Path(self.baseFilename), self.mode)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        del record
        if not self.told:
            self.told = True
            reason = one_line(sys.exc_info()[1])
            print(f"warning: {self.baseFilename}: {reason}; lines are missing")


def start_log(run_dir: Path, rank: int) -> None:
    """Rank 0 writes to the terminal; every rank writes to the file, with its number."""
    stop_log()
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    file = LogFile(run_dir / "run.log", encoding="utf-8")
    file.setFormatter(CleanFormatter(FORMAT, defaults={"rank": rank}))
    LOGGER.addHandler(file)
    if rank == 0:
        terminal = logging.StreamHandler(sys.stdout)
        terminal.setFormatter(CleanFormatter())
        LOGGER.addHandler(terminal)


def stop_log() -> None:
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        handler.close()


def say(line: str) -> None:
    LOGGER.info(line)


def file_only(line: str) -> None:
    """Write a line to the file only; the terminal shows it in another way (a progress bar)."""
    for handler in LOGGER.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(LOGGER.makeRecord("rmas_train", logging.INFO, "", 0, line, (), None))
