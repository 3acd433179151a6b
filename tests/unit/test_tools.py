"""The call protocol, driven by a real tiny model that was fitted to call; search; the config."""

import http.server
import json
import threading
from pathlib import Path

import pytest
import torch
from tiny import make_agent, make_family, make_links, make_rows, make_team
from torch.nn import functional as F
from unrolling import answer_in_text

from rmas_train.__main__ import main
from rmas_train.agents.agent import freeze
from rmas_train.agents.prompts import tokenise
from rmas_train.config import Config, DataConfig, ToolsConfig
from rmas_train.engine.answer import generate
from rmas_train.engine.inputs import embed_ids
from rmas_train.engine.kv_cache import KVCache
from rmas_train.errors import ConfigError, DataError
from rmas_train.evaluation.benchmark import RowsBenchmark
from rmas_train.evaluation.evaluate import Trial, run_trial
from rmas_train.evaluation.graders import PatternGrader
from rmas_train.evaluation.parts import Part
from rmas_train.evaluation.score import by_system, result_row
from rmas_train.registry import SYSTEMS
from rmas_train.support.output import stop_log
from rmas_train.systems.alone import Alone
from rmas_train.systems.base import answers_of, open_sessions
from rmas_train.systems.latent import LatentSystem, System
from rmas_train.tools.calls import Session, Toolbox, cut, find_call
from rmas_train.tools.search import LocalIndex, Passage, SearchTool, WebService
from rmas_train.tools.toolbox import make_toolbox

DOCS = [
    {"title": "Zebra", "text": "The zebra has stripes, black and white. " * 20},
    {"title": "Camel", "text": "The camel carries water in no hump."},
    {"text": "Penguins swim; they do not fly."},
]


class Shout:
    """A tool that needs nothing: what it was given, in capitals."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, text: str) -> str:
        return text.upper()


BOX = Toolbox({"python": Shout("python"), "search": Shout("search")})
RESULT = "<result>\n{}\n</result>\n"
# Per question what the decoder is taught: its own pieces, between them the results it reads.
TAUGHT = {
    "red": [" blue"],
    "two": [" <python>so</python>", " go"],
    "six": [" <search>a</search>", " <python>b</python>", " ten note"],
    "one": [" <python>no end so"],
    "ten": [" <search></search>", " one"],
}


def results(question: str) -> list[str]:
    calls = [find_call(piece) for piece in TAUGHT[question]]
    given = [call[3] for call in calls if call]
    return [
        RESULT.format(g.upper() if g.strip() else "error: the call of search is empty.")
        for g in given
    ]


def fit(agent, prompts: dict[str, list[int]], pieces=TAUGHT, added=results, steps=300):
    """Teach an agent these texts by heart; the loss is on its own tokens."""
    rows, labels = [], []
    for question, prompt in prompts.items():
        ids, wanted = list(prompt), [-100] * len(prompt)
        for own, read in zip(pieces[question], [*added(question), None], strict=False):
            own_ids = tokenise(agent, [own], plain=True)[0]
            own_ids += [] if read else [agent.end_id]
            read_ids = tokenise(agent, [read], plain=True)[0] if read else []
            ids += own_ids + read_ids
            wanted += own_ids + [-100] * len(read_ids)
        rows.append(ids)
        labels.append(wanted)
    agent.model.requires_grad_(True)
    optimizer = torch.optim.AdamW(agent.model.parameters(), lr=5e-3)
    width = max(map(len, rows))
    ids = torch.tensor([r + [agent.pad_id] * (width - len(r)) for r in rows])
    wanted = torch.tensor([r + [-100] * (width - len(r)) for r in labels])
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
    for _ in range(steps):
        logits = agent.model(input_ids=ids, attention_mask=mask).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), wanted[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break
    assert loss.item() < 0.05, f"not learnt by heart: {loss.item()}"
    return freeze(agent)


@pytest.fixture(scope="module")
def fitted():
    """A decoder that calls, and the token ids of its prompts."""
    agent = make_agent("solver")
    prompts = {q: tokenise(agent, [f"{q} note go"])[0] for q in TAUGHT}
    return fit(agent, prompts), prompts


def run(agent, prompts, box, most=64):
    sessions = open_sessions(box, [{}] * len(prompts))
    texts = generate(agent, embed_ids(agent, list(prompts)), None, most, sessions)
    return answers_of(texts, 0, sessions, [0] * len(texts))


def test_calls_are_answered_where_they_are_made(fitted):
    agent, prompts = fitted
    found = dict(zip(prompts, run(agent, prompts.values(), BOX), strict=True))
    calls = {q: [(c.name, c.input, c.result) for c in a.calls] for q, a in found.items()}
    assert calls == {
        "red": [],
        "two": [("python", "so", "SO")],
        "six": [("search", "a", "A"), ("python", "b", "B")],
        "one": [],
        "ten": [("search", "", "error: the call of search is empty.")],
    }
    assert {q: a.text.split() for q, a in found.items()} == {
        "red": ["blue"],
        "two": ["go"],
        "six": ["ten", "note"],
        "one": ["<python>no", "end", "so"],
        "ten": ["one"],
    }
    for question, answer in found.items():  # own tokens alone are counted
        own = [len(tokenise(agent, [piece], plain=True)[0]) for piece in TAUGHT[question]]
        assert answer.tokens == sum(own) + 1


def test_a_batch_equals_one_by_one(fitted):
    agent, prompts = fitted
    rows = [*prompts.values(), prompts["six"][1:], prompts["two"] * 2]
    together = run(agent, rows, BOX, 24)
    for row, answer in zip(rows, together, strict=True):
        (alone,) = run(agent, [row], BOX, 24)
        assert (alone.text, alone.tokens) == (answer.text, answer.tokens)
        assert [c.result for c in alone.calls] == [c.result for c in answer.calls]


def test_resumed_states_equal_one_reading_of_everything(fitted):
    """The token after a result is the one that follows the whole text at once."""
    agent, prompts = fitted
    pieces, read = TAUGHT["two"], results("two")
    ids = prompts["two"] + sum(
        (tokenise(agent, [t], plain=True)[0] for t in (pieces[0], read[0])), []
    )
    with torch.no_grad():
        expected = agent.logits(KVCache(agent).read(embed_ids(agent, [ids]))[:, -1]).argmax(-1)
    (answer,) = run(agent, [prompts["two"]], BOX)
    assert agent.tokenizer.decode(expected) in answer.text


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3_5"])
def test_without_a_call_the_text_is_that_without_tools(family):
    agent = make_family(family, "solver")
    prompts = [tokenise(agent, [row["question"]])[0] for row in make_rows(5)]
    plain = generate(agent, embed_ids(agent, prompts), None, 12)
    found = run(agent, prompts, BOX, 12)
    assert [(t.text, t.tokens) for t in plain] == [(a.text, a.tokens) for a in found]


def test_a_run_without_a_call_makes_the_same_forwards(fitted, monkeypatch):
    agent, prompts = fitted
    seen = []
    hidden = type(agent).hidden

    def record(self, *args):
        seen.append(hidden(self, *args))
        return seen[-1]

    monkeypatch.setattr(type(agent), "hidden", record)
    batch = embed_ids(agent, [prompts["red"], prompts["one"]])
    generate(agent, batch, None, 20)
    first, count = list(seen), len(seen)
    seen.clear()
    generate(agent, batch, None, 20, open_sessions(BOX, [{}, {}]))
    assert len(seen) == count
    assert all(torch.equal(a, b) for a, b in zip(first, seen, strict=True))


def test_special_tokens_in_a_result_stay_text(fitted, monkeypatch):
    agent, prompts = fitted
    evil = Toolbox(
        {"python": type("Evil", (), {"name": "python", "__call__": lambda s, t: "<|e|><|s|>"})()}
    )
    read = []
    original = type(agent).embed
    monkeypatch.setattr(
        type(agent), "embed", lambda self, ids: (read.append(ids), original(self, ids))[1]
    )
    run(agent, [prompts["two"]], evil)
    resumed = max((ids for ids in read if ids.dim() == 1), key=len)
    assert not {agent.end_id, agent.tokenizer.convert_tokens_to_ids("<|s|>")} & set(
        resumed.tolist()
    )
    assert "<|e|><|s|>" in agent.tokenizer.decode(resumed)


def test_the_sixth_call_is_refused_once():
    """A decoder that does nothing but call: five results, one refusal, then it writes on."""
    agent = make_agent("solver")
    prompt = tokenise(agent, ["two note go"])[0]
    piece, refusal = " <python>a</python>", Session({}, 2, 6000)._refusal()
    pieces = {"two": [piece] * 3 + [f"{piece} go"]}
    added = lambda _: [RESULT.format(r) for r in ("A", "A", refusal)]  # noqa: E731
    fit(agent, {"two": prompt}, pieces, added, steps=500)
    box = Toolbox(BOX.tools, max_calls=2)
    (answer,) = run(agent, [prompt], box, most=120)
    assert [c.refused for c in answer.calls] == [False, False, True]
    assert answer.calls[2].result == refusal and "at most 2 calls" in refusal
    assert answer.text.split() == ["<python>a</python>", "go"], "the fourth one stays text"


def test_the_limit_counts_own_tokens_and_a_call_at_it_is_not_run(fitted):
    agent, prompts = fitted
    length = len(tokenise(agent, [TAUGHT["two"][0]], plain=True)[0])
    for most in (1, length - 1, length, length + 1):
        (answer,) = run(agent, [prompts["two"]], BOX, most)
        assert answer.tokens == most
        assert len(answer.calls) == (most > length)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a <python>x</python>\n", (2, 20, "python", "x")),
        ("<python>", None),
        ("</python>", None),
        ("</search><search>q</search>", (9, 27, "search", "q")),
        ("<calc>1</calc>", None),
        ("<PYTHON>x</PYTHON>", None),
        ("<python></python>", (0, 17, "python", "")),
        (
            "<python>s = '<search>q</search>'</python>",
            (0, 41, "python", "s = '<search>q</search>'"),
        ),
        ("<python><python>x</python>", (0, 26, "python", "<python>x")),
        ("<python>x</search>", None),
        ("<python>x < python> y", None),
    ],
)
def test_what_is_a_call(text, found):
    assert find_call(text) == found


def test_a_tool_that_is_off_says_so():
    session = Toolbox({"search": Shout("search")}).open({})
    reply = session.reply("so <python>x</python>")
    assert reply.added == RESULT.format("error: the tool python is off. Tools that are on: search.")
    assert reply.kept == "so \n" and len(session.calls) == 1


def test_results_are_cut():
    assert cut("abc", 3) == "abc"
    for most in (1, 30, 40, 50, 99):
        assert len(cut("x" * 100, most)) <= most
    short = cut("a" * 5000 + "b" * 5000, 100)
    assert short.startswith("aaa") and short.endswith("bbb") and "characters left out" in short
    session = Session({"python": Shout("python")}, 5, 40)
    assert len(session.reply(f"<python>{'x' * 100}</python>").added) <= 40 + len(RESULT)


@pytest.fixture(scope="module")
def calling_team():
    """A system whose decoder calls, in every prompt that it may see with an empty slot."""
    agents = {name: make_agent(name) for name in ("planner", "critic", "solver")}
    team = make_team(agents)
    rows = [{"question": q} for q in TAUGHT]
    encoded = team.prompts["solver"].encode(rows, 1, first=False)
    fit(agents["solver"], {q: e.ids for q, e in zip(TAUGHT, encoded, strict=True)})
    return team, rows


def test_the_whole_system_calls_in_its_last_text_only(calling_team):
    team, rows = calling_team
    system = System(team, make_links(team), 2, 0, 40, tools=BOX)
    found = system.answer(rows, batch_size=3)
    assert [len(a.calls) for a in found] == [0, 1, 2, 0, 1]
    system.tools = None
    assert all(not a.calls for a in system.answer(rows))


def test_text_recursion_calls_in_the_decoders_last_text_only(calling_team):
    """The decoder's texts of earlier rounds, and other agents', are not interrupted."""
    team, rows = calling_team
    texts = answer_in_text(team, rows, 2, max_new_tokens=8, batch_size=2, tools=BOX)
    plain = answer_in_text(team, rows, 2, max_new_tokens=8, batch_size=2)
    for text, other in zip(texts, plain, strict=True):
        assert text.calls or text == other


def test_results_count_calls_and_answers_keep_them(calling_team, table):
    team, rows = calling_team
    system = System(team, make_links(team), 2, 0, 40, tools=BOX)
    graded = table([row | {"answer": "go"} for row in rows])
    config = Config(data=DataConfig(name="calls"))
    benchmark = RowsBenchmark("calls", graded.rows, PatternGrader(config))
    part = Part(benchmark, 0, graded.rows, (2,))
    kept = run_trial(Trial(part, SYSTEMS.get("latent"), LatentSystem(system, 250), (2,)), range(5))
    ((who, own),) = by_system(kept).items()
    row = result_row(who, own, graded.rows)
    assert row["tool_calls"] == 4 / 5
    assert row["accuracy"] == 1 / 5, "calls and results are no part of what is graded"
    assert "calls" not in kept[0] and json.dumps(kept)
    assert kept[2]["calls"][1] | {"seconds": 0} == {
        "name": "python",
        "input": "b",
        "result": "B",
        "seconds": 0,
        "refused": False,
    }
    alone = Alone(team.prompts["solver"], 40, 2, tools=BOX).answer(graded.rows)
    assert len(alone) == 5 and any(answer.calls for answer in alone)


@pytest.mark.slow
def test_a_run_with_search(overrides, workspace, capsys):
    """What is missing is told before anything is trained; then a run counts calls."""
    typed = [*overrides, "tools.names=[search]", "tools.search_index=docs.jsonl"]
    assert main(typed) == 2
    assert "tools.search_index=docs.jsonl: cannot be read" in capsys.readouterr().err
    assert not (workspace / "run" / "inner").exists()
    (workspace / "docs.jsonl").write_text("".join(json.dumps(d) + "\n" for d in DOCS))
    assert main(typed) == 0
    stop_log()
    found = json.loads((workspace / "run" / "eval" / "results.json").read_text())
    assert {row["tool_calls"] for row in found["rows"]} == {0.0}
    assert found["config"]["tools"]["search_index"] == "docs.jsonl"


def test_search_finds_the_right_passage(tmp_path):
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps(d) + "\n" for d in DOCS))
    tool = SearchTool(LocalIndex(path), 4, 60)
    assert tool("black stripes").splitlines() == ["1. " + ("Zebra: " + DOCS[0]["text"])[:60]]
    assert tool("do penguins\nswim?") == "1. Penguins swim; they do not fly."
    assert tool("xylophone") == tool("the") == tool("?") == "(no hits)"
    assert SearchTool(LocalIndex(path), 1, 60)("zebra camel").count("\n") == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no rows"),
        (b"nonsense\n", "line 1"),
        (b'{"title": "a"}\n', "key text is None"),
        (b'{"text": "a"}\n{"text": 3}\n', "line 2"),
        (b'["a"]\n', "line 1"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_bad_index_is_one_line(tmp_path, content, says):
    path = tmp_path / "docs.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        LocalIndex(path)
    assert str(path) in str(error.value) and len(str(error.value).splitlines()) == 1
    with pytest.raises(DataError, match="cannot be read"):
        LocalIndex(tmp_path / "none.jsonl")


KEY = "tvly-planted-key-0123456789"


class Service(http.server.BaseHTTPRequestHandler):
    """A search service in the documented form; ``mode`` says how it misbehaves."""

    mode, seen = "good", []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, self.headers["Authorization"], body))
        good = {
            "results": [{"title": "T", "content": f"C {i} {KEY}", "url": "u"} for i in range(9)]
        }
        answer = {
            "good": (200, json.dumps(good)),
            "denied": (401, f"bad key {KEY}"),
            "redirect": (302, ""),
            "broken": (200, '{"results": 3}'),
            "nonsense": (200, "<html>"),
            "huge": (200, json.dumps({"results": [{"content": "x" * 2**21}]})),
            "empty": (200, '{"results": []}'),
        }[self.mode]
        self.send_response(answer[0])
        if self.mode == "redirect":
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("Content-Length", str(len(answer[1])))
        self.end_headers()
        self.wfile.write(answer[1].encode())

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setenv("TAVILY_API_KEY", KEY)
    monkeypatch.setattr(Service, "seen", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/search"
        server.shutdown()


def test_a_web_service_is_asked_with_its_key(service):
    tool = make_toolbox(ToolsConfig(names=["search"], search_url=service)).tools["search"]
    assert tool("big cats") == "\n".join(f"{i + 1}. T: C {i} ***" for i in range(4))
    assert Service.seen == [("/search", f"Bearer {KEY}", {"query": "big cats", "max_results": 4})]


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("denied", "answered 401"),
        ("redirect", "a redirect (302), which is not followed"),
        ("broken", "cannot be read"),
        ("nonsense", "cannot be read"),
        ("huge", "more than"),
        ("empty", "(no hits)"),
    ],
)
def test_a_service_that_fails_is_told_to_the_decoder(service, monkeypatch, mode, says):
    monkeypatch.setattr(Service, "mode", mode)
    result = SearchTool(WebService(service, "TAVILY_API_KEY", 5), 4, 320)("q")
    assert says in result and KEY not in result
    assert [path for path, *_ in Service.seen] == ["/search"], "the key went elsewhere"


def test_a_service_that_is_not_there_is_told_to_the_decoder(service):
    tool = SearchTool(WebService("http://127.0.0.1:9/search", "TAVILY_API_KEY", 5), 4, 320)
    assert tool("q").startswith("error: the search failed (Connect")


def test_a_missing_key_is_one_line(monkeypatch):
    monkeypatch.delenv("TAVILY_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="environment variable TAVILY_API_KEY holds no key"):
        make_toolbox(ToolsConfig(names=["search"], search_url="https://api.tavily.com/search"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"names": ["shell"]}, "no such choice"),
        ({"names": ["search"]}, "give one of the two"),
        ({"names": ["search"], "search_index": "a", "search_url": "https://b"}, "one of the two"),
        ({"search_url": "http://api.tavily.com"}, "begins with https://"),
        ({"search_url": "https://user:pw@host"}, "begins with https://"),
        ({"search_url": "http://localhost:80@host"}, "begins with https://"),
        ({"search_key_variable": "HOME"}, "ends in API_KEY"),
        ({"max_calls": 0}, "too small"),
        ({"memory_mib": 1}, "too small"),
    ],
)
def test_options_that_cannot_work(options, says):
    with pytest.raises(ConfigError, match=says):
        ToolsConfig(**options)


def test_python_needs_to_be_allowed():
    with pytest.raises(ConfigError, match="add allow_code_execution=true"):
        make_toolbox(ToolsConfig(names=["python"]))
    assert make_toolbox(ToolsConfig()) is None


def test_passages_have_a_title_or_none():
    class Fixed:
        def find(self, query, most):
            return [Passage("", "a\nb"), Passage("t", "c")][:most]

    assert SearchTool(Fixed(), 2, 100)("q") == "1. a b\n2. t: c"


def test_the_folder_of_the_sandbox_is_complete():
    """Started by its files' names, so none may be renamed by itself."""
    from rmas_train.tools import python_tool

    names = {p.name for p in Path(python_tool.__file__).parent.glob("*.py")}
    assert {"sandbox.py", "fence.py", "kernel.py"} <= names
