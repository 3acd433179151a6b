"""What is meant for one address goes to no other: prompts of a writer, searches, keys."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rmas_train.errors import DataError
from rmas_train.recipes.endpoint import EndpointWriter
from rmas_train.recipes.writing import Request, WriterOptions
from rmas_train.tools.search import SearchTool, WebService

KEY = "planted-key-0123456789"
REDIRECTS = [301, 302, 303, 307, 308]


@contextmanager
def serving(answer):
    """A server whose handler is ``answer(handler)``; gives its port and what it was sent."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append((self.path, self.headers.get("Authorization"), body))
            answer(self)

        def do_GET(self):
            self.do_POST()

        def log_message(self, *_):
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port, seen
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def redirecting(status):
    """A server that sends everything on to a stranger; gives its port and both logs."""

    def found(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with serving(found) as (stranger, stolen):

        def elsewhere(handler):
            handler.send_response(status)
            handler.send_header("Location", f"http://localhost:{stranger}/stolen")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        with serving(elsewhere) as (port, seen):
            yield port, seen, stolen


@pytest.mark.parametrize("status", REDIRECTS)
def test_a_redirect_takes_no_prompt_to_another_host(monkeypatch, status):
    monkeypatch.setenv("WRITER_API_KEY", KEY)
    with redirecting(status) as (port, seen, stolen):
        options = WriterOptions(writer=f"http://127.0.0.1:{port}/v1", model="scholar", retries=0)
        with pytest.raises(DataError) as error:
            EndpointWriter(options).write([Request("a private prompt")], 1)
    assert stolen == [] and len(seen) == 1 and b"a private prompt" in seen[0][2]
    text = str(error.value)
    assert len(text.splitlines()) == 1 and "a redirect to http://localhost:" in text
    assert "not followed" in text and KEY not in text


@pytest.mark.parametrize("status", REDIRECTS)
def test_a_redirect_takes_no_search_to_another_host(monkeypatch, status):
    monkeypatch.setenv("TAVILY_API_KEY", KEY)
    with redirecting(status) as (port, seen, stolen):
        service = WebService(f"http://127.0.0.1:{port}/search", "TAVILY_API_KEY", 5)
        result = SearchTool(service, 4, 320)("a private question")
    assert stolen == [] and len(seen) == 1
    assert f"redirect ({status})" in result and "not followed" in result
