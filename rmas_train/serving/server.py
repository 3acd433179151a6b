"""An OpenAI-compatible server around one system: Starlette and uvicorn, one answer at a time.

Answers do not depend on what others ask at the same time: rounding depends on the rows of a batch,
so requests are not batched together.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rmas_train.errors import UserError
from rmas_train.serving.answerer import Answerer, Reply, model_names, own_names
from rmas_train.serving.request_bodies import Asked, RequestError, read_request
from rmas_train.serving.response_bodies import completion, error_body, events, plain_error
from rmas_train.support.output import clean
from rmas_train.support.reading import parse_json

LOGGER = logging.getLogger(__name__)
MOST_BYTES = 2**20  # of a request's body
DRAINED = 64 * MOST_BYTES  # of a longer body are read, so that its sender sees the refusal
GRACE = 5  # seconds that answers have when the server is asked to end
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")

Handler = Callable[[Request], Awaitable[Response]]


class Service:
    """The addresses of one system.

    Args:
        answerer: the system.
        is_local: only this machine can reach the server; requests under another host's name are
            refused then, because a web page may have made them.
    """

    def __init__(self, answerer: Answerer, is_local: bool = True) -> None:
        self.answerer, self._is_local = answerer, is_local
        self._since = int(time.time())
        self._one_at_a_time = asyncio.Lock()
        self._worker = ThreadPoolExecutor(1, "answers")
        self.is_answering = False

    def app(self) -> Starlette:
        """The ASGI application."""
        chat, prompts = partial(self._complete, is_chat=True), partial(self._complete)
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/health", self._health),
            ("GET", "/v1/models", self._models),
            ("GET", "/v1/models/{name:path}", self._model),
            ("POST", "/v1/chat/completions", chat),
            ("POST", "/v1/completions", prompts),
        ]
        return Starlette(
            routes=[Route(p, self._guarded(act), methods=[m]) for m, p, act in routes],
            exception_handlers={HTTPException: self._no_such_address},
        )

    def close(self) -> None:
        """Nothing is answered any more; what is being answered goes on in its thread."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _guarded(self, act: Handler) -> Handler:
        """The handler; whatever goes wrong in it becomes an error's body."""

        async def handle(request: Request) -> Response:
            try:
                self._check_host(request)
                return await act(request)
            except ClientDisconnect:
                return Response(status_code=400)
            except UserError as error:
                status, body = error_body(error)
                return JSONResponse(body, status)
            except Exception as error:
                LOGGER.exception("a request failed")
                kind = type(error).__name__
                text = f"the server failed at this request ({kind}); its terminal says more."
                return JSONResponse(plain_error(text, "server_error"), 500)

        return handle

    def _check_host(self, request: Request) -> None:
        if self._is_local and (name := request.url.hostname) not in LOCAL_NAMES:
            raise RequestError(
                f"host '{name}' is not this machine; use http://127.0.0.1.", status=403
            )

    async def _health(self, _: Request) -> Response:
        system = self.answerer.system
        depth = {"rounds": system.rounds, "latent_length": system.latent_length}
        about = {"model": self.answerer.name, "links_sha256": self.answerer.fingerprint}
        return JSONResponse({"status": "ok"} | about | depth | {"columns": self.answerer.columns})

    async def _models(self, _: Request) -> Response:
        found = [self._about(name) for name in own_names(self.answerer)]
        return JSONResponse({"object": "list", "data": found})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in model_names(self.answerer):
            text = f"model '{name}' is not served here; /v1/models lists what is."
            raise RequestError(text, "model", 404, "model_not_found")
        return JSONResponse(self._about(name))

    def _about(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._since, "owned_by": "rmas_train"}

    async def _complete(self, request: Request, is_chat: bool = False) -> Response:
        asked = read_request(await _json(request), is_chat, self.answerer)
        async with self._one_at_a_time:
            if await request.is_disconnected():
                return Response(status_code=400)
            loop = asyncio.get_running_loop()
            replies = await loop.run_in_executor(self._worker, self._answer, asked)
        if asked.stream:
            chunks = events(asked, replies, self.answerer)
            return StreamingResponse(chunks, media_type="text/event-stream")
        return JSONResponse(completion(asked, replies, self.answerer))

    def _answer(self, asked: Asked) -> list[Reply]:
        self.is_answering = True
        try:
            how = asked.control, asked.max_tokens, asked.stops
            return self.answerer.answer(asked.rows, *how, decoding=asked.decoding)
        finally:
            self.is_answering = False

    async def _no_such_address(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        there = "POST /v1/chat/completions and /v1/completions, GET /v1/models and /health"
        text = clean(f"{request.method} {request.url.path}: {error.detail}; there is {there}.")
        return JSONResponse(plain_error(text, "invalid_request_error"), error.status_code)


async def _json(request: Request) -> Any:
    """The body of a request.

    Raises:
        RequestError: too long, or not JSON.
    """
    body, length = bytearray(), 0
    async for chunk in request.stream():
        length += len(chunk)
        if length <= MOST_BYTES:
            body += chunk
        elif length > DRAINED:
            break
    if length > MOST_BYTES:
        text = f"the body has more than {MOST_BYTES} bytes; send a shorter question."
        raise RequestError(text, status=413)
    try:
        return parse_json(body.decode())
    except ValueError as error:
        raise RequestError(f"the body is not JSON ({error}); send a JSON object.") from error


def serve(service: Service, listening: socket.socket) -> None:
    """Answer until SIGTERM or ctrl-C; what is being answered then has ``GRACE`` seconds."""
    config = uvicorn.Config(
        service.app(),
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    # uvicorn sends itself the signal again when it has ended; that shall end nothing more.
    before = {s: signal.signal(s, _do_nothing) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        service.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _do_nothing(*_: object) -> None:
    """A signal handler."""
