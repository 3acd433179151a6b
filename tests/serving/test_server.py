"""The server in a process of its own, asked by the openai client and by hostile ones."""

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from tiny import make_rows

import rmas_train
from rmas_train.__main__ import main
from rmas_train.api import train

pytestmark = pytest.mark.slow

QUESTIONS = [
    "start C 0 x 1 u 2 stop",
    "start A 0 z 1 y 2 w 3 stop",
    "start E 0 z 1 w 2 z 3 w 4 x 5 v 6 stop",
]


@pytest.fixture(scope="module")
def system(relay_run):
    return rmas_train.load(relay_run)


@pytest.fixture
def client(relay_server):
    with openai.OpenAI(base_url=relay_server.url, api_key="none", max_retries=0) as client:
        yield client


def chat(client, question, model="relay", **more):
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model=model, messages=messages, **more)


def test_chat_answers_are_those_of_the_loaded_system(client, system):
    for question in QUESTIONS:
        (expected,) = system.answer([question])
        found = chat(client, question, temperature=0)
        assert found.choices[0].message.content == expected.text
        assert found.choices[0].finish_reason == "stop" and found.model == "relay"
        usage = found.usage
        assert usage.completion_tokens == expected.tokens
        assert usage.latent_steps == expected.latent_steps == 4
        assert usage.prompt_tokens == expected.prompt_tokens > 30
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert chat(client, QUESTIONS[0]).choices[0].message.content == " 2 E"  # which is right


def test_completions_answer_several_prompts(client, system):
    found = client.completions.create(model="rmas", prompt=QUESTIONS)
    assert [c.text for c in found.choices] == [a.text for a in system.answer(QUESTIONS)]
    assert [c.index for c in found.choices] == [0, 1, 2]
    assert found.usage.completion_tokens == sum(a.tokens for a in system.answer(QUESTIONS))
    one = client.completions.create(model="rmas", prompt=QUESTIONS[0], max_tokens=1)
    assert one.choices[0].finish_reason == "length" and one.usage.completion_tokens == 1
    cut = client.completions.create(model="rmas", prompt=QUESTIONS[0], stop=[" E"])
    assert cut.choices[0].text == " 2"


def test_controls_are_models(client, system):
    models = [m.id for m in client.models.list()]
    assert models == ["relay", "relay:null", "relay:decoder_alone"]
    assert client.models.retrieve("relay:null").id == "relay:null"
    null = chat(client, QUESTIONS[1], "relay:null")
    (expected,) = system.answer([QUESTIONS[1]], latent_length=0)
    assert null.choices[0].message.content == expected.text and null.usage.latent_steps == 0
    alone = chat(client, QUESTIONS[1], "relay:decoder_alone")
    assert alone.usage.latent_steps == 0
    assert alone.usage.prompt_tokens < null.usage.prompt_tokens


def test_a_stream_is_the_same_answer(client, system):
    (expected,) = system.answer(QUESTIONS[:1])
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(chat(client, QUESTIONS[0], **options))
    assert "".join(c.choices[0].delta.content for c in chunks if c.choices) == expected.text
    assert chunks[-1].usage.completion_tokens == expected.tokens
    texts = client.completions.create(model="relay", prompt=QUESTIONS, stream=True)
    assert [c.choices[0].text for c in texts] == [a.text for a in system.answer(QUESTIONS)]


def test_many_at_the_same_time_get_what_each_gets_alone(client, system):
    expected = [a.text for a in system.answer(QUESTIONS)] * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda q: chat(client, q), QUESTIONS * 4))
    assert [f.choices[0].message.content for f in found] == expected


def test_choices_are_drawn_from_a_seed(client):
    how = {"temperature": 3.0, "n": 4, "max_tokens": 6}
    found = [chat(client, QUESTIONS[2], seed=seed, **how) for seed in (1, 1, 2)]
    texts = [[choice.message.content for choice in one.choices] for one in found]
    assert texts[0] == texts[1] != texts[2] and len(set(texts[0])) > 1
    assert [choice.index for choice in found[0].choices] == [0, 1, 2, 3]


def test_refusals_are_the_client_s_own_errors(client):
    with pytest.raises(openai.NotFoundError, match="'relay:nul' is not served here"):
        chat(client, QUESTIONS[0], "relay:nul")
    with pytest.raises(openai.BadRequestError, match="give a number from 0") as found:
        chat(client, QUESTIONS[0], temperature=-0.5)
    assert found.value.param == "temperature" and found.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match="512 positions at most") as found:
        chat(client, "start C 0 " + "x 1 " * 300)
    assert found.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError, match="POST /v1/embeddings: Not Found"):
        client.embeddings.create(model="relay", input="x")


GOOD = {"model": "relay", "messages": [{"role": "user", "content": QUESTIONS[0]}]}
DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"", 400),
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"\xff\xfe\x00", 400),
        ("POST", "/v1/chat/completions", b"null", 400),
        ("POST", "/v1/chat/completions", DEEP, 400),
        ("POST", "/v1/chat/completions", b"9" * 10_000, 400),
        ("POST", "/v1/chat/completions", b'{"model": "relay", "model": "relay"}', 400),
        ("POST", "/v1/chat/completions", json.dumps(GOOD | {"temperature": -1}).encode(), 400),
        (
            "POST",
            "/v1/chat/completions",
            b'{"model": "relay", "messages": [{"role": "user", "content": "\\ud800"}]}',
            400,
        ),
        ("POST", "/v1/chat/completions", json.dumps(GOOD | {"max_tokens": 1e9}).encode(), 400),
        ("POST", "/v1/chat/completions", json.dumps(GOOD | {"max_tokens": 10**6}).encode(), 400),
        ("POST", "/v1/chat/completions", json.dumps(GOOD | {"x" * 9000: 1}).encode(), 400),
        ("POST", "/v1/chat/completions", json.dumps(GOOD | {"stop": [1]}).encode(), 400),
        ("POST", "/v1/completions", json.dumps(GOOD).encode(), 400),
        ("POST", "/v1/completions", b"x" * (3 * 2**20), 413),
        ("GET", "/v1/chat/completions", None, 405),
        ("DELETE", "/v1/models", None, 405),
        ("GET", "/v1/models/nobody", None, 404),
        ("GET", "/", None, 404),
        ("GET", "/v1/../../etc/passwd", None, 404),
    ],
)
def test_bad_requests_get_one_line_and_leave_the_server_alone(
    relay_server, method, path, body, status
):
    base = relay_server.url.removesuffix("/v1")
    found = httpx.request(method, base + path, content=body, timeout=60)
    assert found.status_code == status, found.text
    error = found.json()["error"]
    assert error["message"] and "\n" not in error["message"] and len(error["message"]) < 2100
    assert set(error) == {"message", "type", "param", "code"}
    health = httpx.get(f"{base}/health", timeout=60).json()
    assert health["status"] == "ok" and health["columns"] == ["question"]


def test_a_web_page_under_another_name_is_refused(relay_server):
    found = httpx.get(f"{relay_server.url}/models", headers={"Host": "evil.example"})
    assert found.status_code == 403 and "evil.example" in found.json()["error"]["message"]


def test_clients_that_go_away_and_no_http(relay_server, client):
    host, port = relay_server.url.split("/")[2].split(":")
    for sent in (
        b"\x00\x01\x02 no http\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n{",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 20_000,
    ):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(sent)
    assert chat(client, QUESTIONS[0]).choices[0].message.content == " 2 E"
    assert "Traceback" not in relay_server.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_to(start, relay_run, number):
    links = relay_run / "outer" / "links"
    server = start(f"links={links}", "name=mine", "rounds=2", "latent_length=1")
    body = {"model": "mine", "prompt": QUESTIONS[0]}
    found = httpx.post(f"{server.url}/completions", json=body, timeout=60).json()
    assert found["usage"]["latent_steps"] == 5  # of six calls, the last one writes
    assert server.end(number) == "ended.\n"


@pytest.mark.parametrize(
    ("typed", "needle"),
    [
        (["run={run}", "port={port}"], "port={port}: Address already in use"),
        (["run={run}", "host=no.such.host.invalid"], "host=no.such.host.invalid: no such host"),
        (["run={nothing}", "port=0"], "no links.json there"),
        (["run={run}/inner", "port=0"], "inner links only"),
        (["run={run}", "port=0", "device=tpu"], "device='tpu'"),
        (["run={run}", "port=0", "agents.cook=x"], "no agent 'cook'"),
    ],
)
def test_errors_of_the_command(relay_server, relay_run, tmp_path, capsys, typed, needle):
    port = relay_server.url.split(":")[2].removesuffix("/v1")
    known = {"run": relay_run, "nothing": tmp_path, "port": port}
    assert main(["serve", *(word.format(**known) for word in typed)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and needle.format(**known) in error


def test_other_columns_and_an_end_in_the_middle_of_an_answer(start, overrides, workspace):
    """Tiny agents write at random, so that their answers are as long as they may be."""
    solver = workspace / "prompts" / "solver.yaml"
    solver.write_text('user: "<<question>> note <<plan>> <<message:critic>> go"')
    train([*overrides, "training.inner.steps=1", "training.outer.steps=1"], rows=make_rows(8))
    server = start(f"run={workspace / 'run'}", "host=0.0.0.0")
    warned = "host=0.0.0.0: other machines can reach this server, and it asks for no key"
    assert warned in server.log.read_text()
    url = server.url.replace("0.0.0.0", "127.0.0.1")
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match="no column plan, which"):
            chat(client, "one two", "run")
        found = chat(client, "one two", "run", extra_body={"columns": {"plan": "ten"}})
        assert found.choices[0].finish_reason in ("stop", "length")
        with pytest.raises(openai.BadRequestError, match="Did you mean 'plan'"):
            chat(client, "one two", "run", extra_body={"columns": {"plans": "ten"}})
    body = {"model": "run", "prompt": ["one two"] * 2000, "max_tokens": 200}
    body |= {"columns": {"plan": "ten"}}
    thread = threading.Thread(target=_ask_and_lose, args=(f"{url}/completions", body))
    thread.start()
    time.sleep(2)
    assert httpx.get(f"{url.removesuffix('/v1')}/health", timeout=60).json()["status"] == "ok"
    began = time.monotonic()
    assert server.end().endswith("ended.\n")
    assert time.monotonic() - began < 30
    thread.join()


def _ask_and_lose(url, body):
    with pytest.raises(httpx.HTTPError):
        httpx.post(url, json=body, timeout=300).raise_for_status()
