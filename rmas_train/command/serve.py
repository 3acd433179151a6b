"""``python -m rmas_train serve run=<run folder>``: an OpenAI-compatible server."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from dataclasses import fields

from rmas_train.errors import ConfigError
from rmas_train.serving.options import SystemOptions, read_options, whole_number
from rmas_train.support.output import clean

HOST, PORT = "127.0.0.1", "8000"
HELP = """\
Usage: python -m rmas_train serve run=RUN_FOLDER [key=value ...]

An OpenAI-compatible server around a trained system: /v1/chat/completions,
/v1/completions, /v1/models, /health. docs/serving.md says what it can do.

  run=FOLDER            run folder, or
  links=FOLDER          links folder or hub id (revision=COMMIT)
  host=127.0.0.1        who can reach it; it asks for no key
  port=8000             0: any free one
  device=auto           cpu, cuda, cuda:<number>
  rounds, latent_length, max_new_tokens
                        default: as the links say
  name=NAME             of the model; default: the run folder's name
  agents.<name>=FOLDER  where an agent is elsewhere than in training
"""


def run_command(argv: list[str]) -> None:
    """Serve what was typed after ``serve``, until it is stopped.

    Raises:
        UserError: an error that the user can correct.
    """
    if {"-h", "--help"} & set(argv):
        print(HELP, end="")
        return
    given = read_pairs(argv)
    host, port = given.pop("host", HOST), whole_number("port", given.pop("port", PORT), 0, 65535)
    options = read_options(given)
    check_installed()
    with bind(host, port) as bound:
        is_local = _is_loopback(bound)
        if not is_local:
            text = f"host={host}: other machines can reach this server, and it asks for no key"
            print(f"warning: {clean(text)}.", file=sys.stderr)
        is_answering = _serve(options, bound, is_local)
    print("ended.", flush=True)
    if is_answering:  # a thread that cannot be stopped would keep the process alive
        sys.stderr.flush()
        os._exit(0)


def _serve(options: SystemOptions, bound: socket.socket, is_local: bool) -> bool:
    """Load the system and answer until told to end; whether it is still answering then."""
    # Torch only once something is to be done.
    from rmas_train.serving.answerer import open_answerer, own_names
    from rmas_train.serving.server import Service, serve

    answerer = open_answerer(options)
    service = Service(answerer, is_local)
    try:
        bound.listen(128)
    except OSError as error:  # another process was faster since ``bind``
        host, port = bound.getsockname()[:2]
        raise _refused(host, port, error) from error
    names = ", ".join(own_names(answerer))
    print(clean(f"serving {names} at {url(bound)}; ctrl-C ends it."), flush=True)
    serve(service, bound)
    return service.is_answering


def read_pairs(argv: list[str]) -> dict[str, str]:
    """``key=value`` words.

    Raises:
        ConfigError: another word, or a key that stands twice.
    """
    found: dict[str, str] = {}
    for word in argv:
        key, sign, value = word.partition("=")
        if not sign or word.startswith("-"):
            known = ", ".join(["host", "port", *(f.name for f in fields(SystemOptions))])
            raise ConfigError(f"serve: {word}: options are key=value, with keys {known}.")
        if key in found:
            raise ConfigError(f"serve: {key} is given twice; give it once.")
        found[key] = value
    return found


def check_installed() -> None:
    """The web server is there.

    Raises:
        ConfigError: it is not; names what to install.
    """
    try:
        import starlette
        import uvicorn
    except ImportError as error:
        raise ConfigError(
            f"serve needs starlette and uvicorn ({error}); pip install 'rmas_train[serve]' (in a "
            "clone: pip install -e '.[serve]')."
        ) from error
    del starlette, uvicorn


def bind(host: str, port: int) -> socket.socket:
    """A socket on this address, before agents are loaded; it does not listen yet.

    Raises:
        ConfigError: no such host, or the port cannot be had.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"host={host}: no such host ({error}); give 127.0.0.1.") from error
    bound = socket.socket(family, kind)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _refused(host, port, error) from error
    return bound


def _refused(host: str, port: int, error: OSError) -> ConfigError:
    return ConfigError(
        f"host={host}, port={port}: {error.strerror}; give another port (0: any free one) or "
        "another host."
    )


def _is_loopback(bound: socket.socket) -> bool:
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def url(bound: socket.socket) -> str:
    """The base URL for clients."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
