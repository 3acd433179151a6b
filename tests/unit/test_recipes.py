"""Parts of the data recipes: final answers, contamination, splits, journal, writers, mappings."""

import importlib.util
import json
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from chat_server import ChatServer, make_speaker

from rmas_train.data.files import read_rows
from rmas_train.errors import AgentError, ConfigError, ContaminationWarning, DataError
from rmas_train.recipes.debate import Debate, verdict_of
from rmas_train.recipes.debate_task import Settings, load_debate_prompts, read_task
from rmas_train.recipes.journal import Journal, Scribe
from rmas_train.recipes.overlap import Overlap, index_evaluations, words
from rmas_train.recipes.packing import check_manifest, question_key, split_rows, write_data
from rmas_train.recipes.problems import Problem, Skip, final_of, keeps_final, last_boxed, with_final
from rmas_train.recipes.role_columns import STYLES, load_prompts, read_prompt
from rmas_train.recipes.writers import open_writer
from rmas_train.recipes.writing import (
    CUT,
    EMPTY,
    REFUSED,
    TOO_LONG,
    Request,
    WriterOptions,
    Written,
    visible,
)

RECIPES = Path(__file__).resolve().parents[2] / "data_recipes"


def recipe(name):
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", RECIPES / name / "build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "boxed"),
    [
        (r"so \boxed{7}.", "7"),
        (r"\boxed{1} or rather \boxed {\frac{\sqrt{2}}{3}}", r"\frac{\sqrt{2}}{3}"),
        (r"\boxed{open", None),
        (r"\boxed{4} and \boxed{open", "4"),
        ("none", None),
    ],
)
def test_the_last_box_is_read_with_its_braces(text, boxed):
    assert last_boxed(text) == boxed


def test_final_answers():
    assert final_of("12") == "12"
    assert final_of("$12$") == "12"
    assert final_of("a\nproof") is None
    assert final_of("x" * 81) is None
    assert final_of(r"\boxed{}") is None
    assert with_final(r"so \boxed{7}", "7") == r"so \boxed{7}"
    assert last_boxed(with_final("so 7", "7")) == "7"
    assert last_boxed(with_final(r"\boxed{8}", "7")) == "7"
    assert with_final("code", "") == "code"


@pytest.mark.parametrize(
    ("text", "task", "final", "keeps"),
    [
        (r"thus \boxed{ \frac{1}{2} }", "math", r"\frac{1}{2}", True),
        (r"thus \boxed{3}", "math", "4", False),
        ("thus 4", "math", "4", False),
        (r"\boxed{b}", "choice", "B", True),
        ("```python\nprint(1)\n```", "code", "", True),
        ("print(1)", "code", "", False),
    ],
)
def test_a_rewritten_answer_has_to_keep_the_final_one(text, task, final, keeps):
    assert keeps_final(text, Problem("q", "a", "", final, task)) is keeps


def naive_overlap(text, questions, n):
    """Any window of n words in common, by comparing all pairs; short questions as wholes."""
    mine = words(text)
    for question in questions:
        theirs = words(question)
        if 0 < len(theirs) < n and mine == theirs:
            return True
        for i in range(len(mine) - n + 1):
            for j in range(len(theirs) - n + 1):
                if mine[i : i + n] == theirs[j : j + n]:
                    return True
    return False


@pytest.mark.parametrize("n", [1, 3, 5])
def test_overlap_equals_the_naive_statement(n):
    rng = random.Random(n)
    draw = lambda: " ".join(rng.choice("abc") for _ in range(rng.randrange(12)))  # noqa: E731
    outcomes = set()
    for _ in range(150):
        questions, text = [draw() for _ in range(2)], draw()
        overlap = Overlap(n)
        overlap.add("set", questions)
        assert (overlap.find(text) is not None) == naive_overlap(text, questions, n)
        outcomes.add(overlap.find(text))
    assert outcomes == {None, "set"}


QUESTION = "A train leaves Ombry at nine and travels 60 miles an hour for $t$ hours; how far?"


def test_contamination_sees_through_case_and_signs_and_leaves_near_texts_alone():
    overlap = Overlap(13)
    overlap.report["test"] = {"status": "checked", "rows_dropped": 0}
    assert overlap.add("test", [QUESTION, "Two plus two?"]) == 2
    twisted = "SO: a train, leaves (Ombry) at nine\nand travels 60 MILES an hour for t hours: go"
    assert overlap.find(twisted) == "test"
    assert overlap.find("two  plus TWO") == "test"
    assert overlap.find("What is two plus two?") is None
    assert overlap.find(" ".join(words(QUESTION)[:12])) is None
    assert not overlap.is_clean(["clean", twisted])
    assert overlap.report["test"]["rows_dropped"] == 1


def test_what_was_not_checked_is_never_called_clean(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "eval.jsonl").write_text(json.dumps({"problem": QUESTION}))
    with pytest.warns(ContaminationWarning, match="nobody/nothing"):
        overlap = index_evaluations([str(tmp_path / "eval.jsonl"), "nobody/nothing"], 13)
    summary = overlap.summary()
    assert summary["status"] == "partly checked"
    assert summary["evaluation_sets"]["nobody/nothing"]["status"] == "not checked"
    assert summary["evaluation_sets"][str(tmp_path / "eval.jsonl")]["questions"] == 1
    with pytest.warns(ContaminationWarning, match="no evaluation set"):
        assert index_evaluations([], 13).summary()["status"] == "not checked"
    with pytest.raises(DataError, match=r"no text column q.*found: problem"):
        index_evaluations([f"{tmp_path / 'eval.jsonl'}:q"], 13)


def many(count):
    return [{"question": f"question number {i}?", "answer": str(i)} for i in range(count)]


@pytest.mark.parametrize("count", [2, 3, 10, 57])
def test_no_question_is_in_two_splits(count):
    rows = many(count)
    rows.append(rows[0] | {"question": rows[0]["question"].upper(), "answer": "again"})
    splits = split_rows(rows, 0, 0.1, 0.05)
    keys = {name: {question_key(r["question"]) for r in part} for name, part in splits.items()}
    assert not (keys["train"] & keys["test"] or keys["train"] & keys["valid"])
    assert not keys["test"] & keys["valid"]
    assert splits["train"] and splits["test"] and (splits["valid"] or count < 3)
    assert sum(map(len, splits.values())) == count + 1
    again = split_rows(list(reversed(rows)), 0, 0.1, 0.05)
    assert {r["answer"] for r in again["test"]} == {r["answer"] for r in splits["test"]}


def test_the_seed_decides_the_split_and_bad_shares_are_refused():
    tests = {tuple(r["answer"] for r in split_rows(many(40), s, 0.2, 0)["test"]) for s in range(4)}
    assert len(tests) == 4
    with pytest.raises(ConfigError, match=r"test_share=0\.9"):
        split_rows(many(5), 0, 0.9, 0.2)
    with pytest.raises(DataError, match="1 question"):
        split_rows(many(1), 0, 0.1, 0)
    assert question_key("2 + 2") != question_key("2 - 2")


def test_the_manifest_notices_every_change(tmp_path):
    out = tmp_path / "data"
    write_data(out, many(20), {"recipe": "x"}, 0, (0.1, 0.1))
    manifest = check_manifest(out)
    assert manifest["rows"] == {"train": 16, "valid": 2, "test": 2}
    assert len((out / "sample.jsonl").read_text().splitlines()) == 8
    assert set(manifest["files"]) == {f"{n}.jsonl" for n in ("train", "valid", "test", "sample")}
    path = out / "valid.jsonl"
    path.write_text(path.read_text().replace("question", "Question"))
    with pytest.raises(DataError, match=r"valid\.jsonl is missing or has changed"):
        check_manifest(out)
    path.unlink()
    with pytest.raises(DataError, match=r"valid\.jsonl is missing"):
        check_manifest(out)
    (out / "manifest.json").write_text(json.dumps({"files": {"../x": "0"}}))
    with pytest.raises(DataError, match="leads elsewhere"):
        check_manifest(out)
    own = tmp_path / "own"
    own.mkdir()
    (own / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="no build made"):
        write_data(own, many(20), {}, 0, (0.1, 0.1))
    assert (own / "notes.txt").read_text() == "mine"


def test_a_torn_journal_line_is_forgotten_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add("a", [Written("one"), Written(None, CUT)])
        journal.add("b", [Written("zwö")])
        with pytest.raises(DataError, match="in use by another build"):
            Journal(path)
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(path) as journal:
            assert len(journal) == whole[:cut].count(b"\n")
            journal.add("c", [Written("new")])
        with Journal(path) as journal:
            assert journal.get("c") == [Written("new")]
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(DataError, match="line 1: damaged"):
        Journal(path)


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    return make_speaker(tmp_path_factory.mktemp("speaker"))


def options(writer, **changes):
    values = {"dtype": "float32", "max_new_tokens": 6, "batch_size": 4} | changes
    return WriterOptions(writer=str(writer), **values)


def test_a_local_writer_writes_whole_texts_or_says_why_not(speaker, tmp_path):
    asked = [Request("one"), Request("two <|e|> three " * 3), Request("x" * 300, system="go")]
    writer = open_writer(options(speaker, max_prompt_tokens=200))
    assert writer.write(asked, 1) == [Written("go so"), Written("go so"), Written(None, TOO_LONG)]
    with pytest.raises(ConfigError, match="max_new_tokens=4096: .* reads 4096 tokens"):
        open_writer(options(speaker, max_new_tokens=4096))
    assert open_writer(options(speaker, max_new_tokens=2)).write(asked[:1], 1)[0].dropped == CUT
    silent = make_speaker(tmp_path / "silent", text=" ")
    assert open_writer(options(silent)).write(asked[:1], 1) == [Written(None, EMPTY)]
    endless = make_speaker(tmp_path / "endless", ends=False)
    assert open_writer(options(endless)).write(asked[:1], 1) == [Written(None, CUT)]


def test_a_local_writer_draws_by_its_seed_alone(agent_folders):
    texts = {}
    for seed in (1, 2):
        writer = open_writer(options(agent_folders["planner"], max_new_tokens=30, temperature=2))
        ids = [writer._generate([writer._encode(Request("one two"))], 2.0) for _ in range(2)]
        assert ids[0] != ids[1]
        texts[seed] = [writer.write([Request("one two")] * 3, seed) for _ in range(2)]
        assert texts[seed][0] == texts[seed][1]


def test_writers_that_cannot_be(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="writer is empty"):
        open_writer(WriterOptions(writer=""))
    with pytest.raises(AgentError, match=r"^writer=.*no such folder"):
        open_writer(WriterOptions(writer=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="give writer_model"):
        open_writer(WriterOptions(writer="http://127.0.0.1:1/v1"))
    with pytest.raises(ConfigError, match="temperature=3"):
        WriterOptions(writer="x", temperature=3)
    with pytest.raises(ConfigError, match="batch_size=0"):
        WriterOptions(writer="x", batch_size=0)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"pip install 'rmas_train\[endpoint\]'"):
        open_writer(WriterOptions(writer="http://127.0.0.1:1/v1", model="m"))


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (" plain ", Written("plain")),
        ("<think>a</think>\n b", Written("b")),
        ("a</think>b", Written("b")),
        ("<think>a", Written(None, CUT)),
        ("<think>a</think> ", Written(None, EMPTY)),
        ("see <think>a</think> here", Written("see <think>a</think> here")),
    ],
)
def test_thoughts_before_a_text_are_left_out(text, outcome):
    assert visible(text) == outcome


def endpoint(server, **changes):
    values = {"model": "scholar", "retries": 0, "timeout": 20.0} | changes
    return open_writer(WriterOptions(writer=server.url, **values))


def test_an_endpoint_answers_refuses_and_fails(monkeypatch):
    monkeypatch.setenv("WRITER_API_KEY", "planted-key-of-the-test")
    replies = {
        "fine": "<think>hm</think>yes",
        "long": {"status": 400, "error": {"message": "maximum context length is 8"}},
        "cut": {"message": {"role": "assistant", "content": "ye"}, "finish_reason": "length"},
        "none": {"message": {"role": "assistant", "content": None}},
        "no": {"message": {"role": "assistant", "content": ""}, "finish_reason": "content_filter"},
        "bad": {"status": 400, "error": {"message": "planted-key-of-the-test"}},
        "key": {"status": 401, "error": {"message": "wrong key"}},
    }
    with ChatServer(lambda messages: replies[messages[-1]["content"]]).running() as server:
        writer = endpoint(server)
        outcomes = writer.write([Request(n, "sys") for n in ("fine", "long", "cut", "none")], 3)
        assert outcomes == [Written("yes"), *(Written(None, r) for r in (TOO_LONG, CUT, EMPTY))]
        assert writer.write([Request("no")], 3) == [Written(None, REFUSED)]
        assert server.asked[0]["temperature"] == 0 and server.asked[0]["max_tokens"] == 1024
        assert server.asked[0]["messages"][0] == {"role": "system", "content": "sys"}
        assert server.headers[0]["authorization"] == "Bearer planted-key-of-the-test"
        with pytest.raises(DataError, match="BadRequestError") as caught:
            writer.write([Request("bad")], 3)
        assert "planted-key" not in str(caught.value)
        with pytest.raises(DataError, match="WRITER_API_KEY"):
            writer.write([Request("key")], 3)
        with pytest.raises(DataError, match="writer_model"):
            endpoint(server, model="other").write([Request("fine")], 3)
        assert "planted-key" not in json.dumps(writer.describe())
        url = server.url
    with pytest.raises(DataError, match="check that the server runs"):
        open_writer(WriterOptions(writer=url, model="m", retries=0)).write([Request("x")], 1)


def test_a_busy_endpoint_is_asked_again():
    calls = Counter()

    def reply(messages):
        calls["all"] += 1
        busy = {"status": 429, "error": {"message": "busy"}}
        return busy if calls["all"] < 3 else "done"

    with ChatServer(reply).running() as server:
        assert endpoint(server, retries=3).write([Request("x")], 1) == [Written("done")]
    assert calls["all"] == 3


def test_nothing_is_asked_twice_and_a_failure_keeps_what_was_written(tmp_path):
    broken = {"on": True}

    def reply(messages):
        text = messages[-1]["content"]
        return {"status": 403, "error": {}} if text == "5" and broken["on"] else f"re {text}"

    requests = [Request(str(i)) for i in range(8)]
    with (
        ChatServer(reply).running() as server,
        Journal(tmp_path / "journal.jsonl") as journal,
    ):
        scribe = Scribe(endpoint(server, parallel=2), journal)
        with pytest.raises(DataError, match="finished texts are kept"):
            scribe.write(requests)
        done = len(journal)
        assert 4 <= done <= 7
        broken["on"] = False
        server.asked.clear()
        assert [w.text for w in scribe.write(requests)] == [f"re {i}" for i in range(8)]
        assert len(server.asked) == 8 - done
        scribe.write([*requests, Request("0", attempt=1), Request("0", temperature=1.0)])
        assert server.users()[8 - done :] == ["0", "0"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", ["s1k", "m1k", "opencodereasoning", "arpo_sft"])
def test_shipped_prompts_are_whole(name, style):
    folders = [RECIPES / name / "prompts", RECIPES / "common" / "prompts"]
    columns = [*STYLES[style], *(["answer"] if style == "sequential" else [])]
    prompts = load_prompts(columns, style, folders)
    values = {"question": "Q <<plan>>", "reference": "R", "answer_field": "F", "task": "math"}
    for column, prompt in prompts.items():
        request = prompt.request(values | dict.fromkeys(columns, "T"))
        assert "Q <<plan>>" in request.user and "<<question>>" not in request.user, column


def test_bad_prompts_are_named(tmp_path):
    path = tmp_path / "plan.yaml"
    for text, message in (
        ("user: <<qestion>>", "unknown mark qestion. Known: question"),
        ("user: <<message:critic>>", "unknown mark critic"),
        ("user: 3", "no text under `user`"),
        ("user: a\nuser_first: b", "only texts user and system"),
        ("user: [", "not valid YAML"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message) as caught:
            read_prompt(path, "plan", ["question"])
        assert "plan.yaml" in str(caught.value)


SAMPLES = {
    "s1k": ("math", ["55", "480", r"\frac{5}{6}", "12", "24", "45", "7"], "no_final_answer"),
    "m1k": ("choice", ["D", "B", "C", "A", "D", "B", "C", "A"], None),
    "opencodereasoning": ("code", [""] * 7, "question_not_included"),
    "arpo_sft": ("qa", ["1591", "Tessel", "38", "1961", "Ilse Marrow", "6", "47"], "no_answer_tag"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_are_mapped(name):
    task, finals, skipped = SAMPLES[name]
    problem, found, reasons = recipe(name).RECIPE.problem, [], []
    for where, row in read_rows(RECIPES / name / "sample.jsonl"):
        try:
            found.append(problem(row, where))
        except Skip as skip:
            reasons.append(str(skip))
    assert [p.final for p in found] == finals
    assert {p.task for p in found} == {task}
    assert reasons == ([skipped] if skipped else [])
    assert all(p.question and p.answer and p.reference for p in found)


def test_arpo_forms_and_broken_rows():
    problem = recipe("arpo_sft").RECIPE.problem
    row = {"instruction": "i", "input": "q?", "output": "<answer>\\boxed{4}</answer>"}
    assert (problem(row, "row 1").question, problem(row, "row 1").final) == ("q?", "4")
    with pytest.raises(DataError, match="row 1: no column 'conversations'. Did you mean 'conver"):
        problem({"conversation": []}, "row 1")
    with pytest.raises(DataError, match="row 1: column 'conversations' is 'x', not a list"):
        problem({"conversations": "x"}, "row 1")
    with pytest.raises(DataError, match=r"row 1, conversations\[0\]: no column 'value'"):
        problem({"conversations": [{"from": "human", "text": "q"}]}, "row 1")
    with pytest.raises(Skip, match="no_question_and_answer"):
        problem({"conversations": [{"from": "human", "value": "q"}]}, "row 1")


def test_contradictions_in_m1k_are_left_out():
    problem = recipe("m1k").RECIPE.problem
    row = {"prompt": "q", "answer_letter": "A", "distilled_answer_string": r"\boxed{B}"}
    with pytest.raises(Skip, match="answer_contradicts_letter"):
        problem(row, "row 1")


def released(name, row):
    module = recipe("released")
    reader = module.Reader(name, module.DATASETS[name])
    return reader(row, "row 1"), reader.notes


@pytest.mark.parametrize(
    ("name", "columns", "task"),
    [
        ("sequential_code", {"plan": "p", "refined_plan": "r", "type": "t"}, "code"),
        (
            "distillation_code",
            {
                "distill_expert": "e",
                "distill_learner": "l",
                "task_family": "Code",
                "refined_plan": "r",
            },
            "code",
        ),
        ("mixture_math", {"hie_math_expert": "m", "task_family": "math", "domain": "d"}, "math"),
        ("mixture_science", {"hie_science_expert": "s", "task_family": "science"}, "choice"),
        (
            "deliberation",
            {"deliberation_reflector": "r", "deliberation_toolcaller": "t", "source_idx": 3},
            "qa",
        ),
        ("mixture_outer", {"hie_summarizer": "s", "novel": "n"}, "math"),
    ],
)
def test_released_columns(name, columns, task):
    problem, notes = released(name, {"question": "q", "answer": "a", **columns})
    assert problem.task == task
    for column in columns.keys() & {c for cs in STYLES.values() for c in cs} - {"refined_plan"}:
        assert problem.extra[column] == columns[column]
    assert notes["columns_unknown"] == (["novel"] if "novel" in columns else [])
    assert notes["card_seen"] is (name != "mixture_outer")
    assert dict(notes["unknown_task_families"]) == ({"science": 1} if "science" in name else {})


def test_released_sets_without_their_columns_say_what_they_have():
    with pytest.raises(DataError, match=r"row 1: no column 'plan'.*Found: question, answer, pla"):
        released("sequential_math", {"question": "q", "answer": "a", "plann": "p"})
    with pytest.raises(DataError, match="no column 'hie_math_expert'"):
        released("mixture_code", {"question": "q", "answer": "a"})


def test_source_files_are_read_by_their_kind(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"question": "a", "turns": [{"from": "x"}]}, {"question": "b", "turns": []}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "rows.jsonl").write_text("\n\n".join(json.dumps(r) for r in rows))
    for suffix, place in (("parquet", "row 1"), ("json", "row 1"), ("jsonl", "line 3")):
        found = list(read_rows(tmp_path / f"rows.{suffix}"))
        assert [row for _, row in found] == rows
        assert found[1][0].endswith(place)
    bad = tmp_path / "bad.jsonl"
    for text, message in (
        (b"{", "line 1: not JSON"),
        (b"[]", "line 1: a list"),
        (b"\xff", "UTF-8"),
    ):
        bad.write_bytes(text)
        with pytest.raises(DataError, match=message):
            list(read_rows(bad))
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(DataError, match="not Parquet"):
        list(read_rows(tmp_path / "bad.parquet"))
    with pytest.raises(DataError, match="unknown kind of file"):
        read_rows(RECIPES / "s1k" / "README.md")
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "none.jsonl")


# The debate.


def debater(sample="SAMPLE: Sell it <n>.\nREASON: secret reason", judge=None):
    """Replies of all seven parts, told apart by what they are asked."""
    drawn = Counter()

    def reply(messages):
        user = messages[-1]["content"]
        if "dimensions that are independent" in user:
            return "- tone: how it is said\n2) topic: what it is about\n"
        if "values that this dimension can take" in user:
            return "plain\npolite\nplain"
        if "Write a new sample" in user or "Change the sample" in user:
            drawn["n"] += 1
            return sample.replace("<n>", str(drawn["n"]))
        if "Your side: the label is" in user:
            return f"I speak for {user.split('the label is ')[1].split('.')[0]}"
        return judge(user)

    return reply


def run_debate(tmp_path, reply, **settings):
    values = {"dimensions": 2, "values": 2, "candidates": 6, "rounds": 2} | settings
    task = read_task(RECIPES / "debate" / "task.yaml")
    prompts = load_debate_prompts(RECIPES / "debate" / "prompts")
    with ChatServer(reply).running() as server, Journal(tmp_path / "journal.jsonl") as journal:
        debate = Debate(task, Settings(**values), prompts, Scribe(endpoint(server), journal))
        kept = debate.run(debate.plan(0))
        return debate, kept, server


def side_a(user):
    return user.split("Side A says the label is ")[1].split(":")[0]


def test_labels_that_every_verdict_confirms_survive(tmp_path):
    judge = lambda user: "Clear.\nVERDICT: **Advice**."  # noqa: E731
    debate, kept, _ = run_debate(tmp_path, debater(judge=judge))
    intended = [c.label for c in debate.plan(0)]
    assert set(intended) == {"advice", "no_advice"}
    assert len(kept) == intended.count("advice") and {c.label for c in kept} == {"advice"}
    assert debate.counts["label_not_confirmed"] == intended.count("no_advice")
    assert debate.counts["refined"] == intended.count("no_advice")
    row = debate.row(kept[0])
    assert row["answer"] == r"\boxed{advice}" and row["answer_field"] == "advice"
    assert row["plan"] == "I speak for advice"
    assert row["refined_plan"].startswith("Clear.") and row["dimension"].startswith(("to", "tone"))
    assert kept[0].sample in row["question"] and "advice, no_advice" in row["question"]


def test_a_judge_that_follows_the_order_keeps_nothing(tmp_path):
    judge = lambda user: f"VERDICT: {side_a(user)}"  # noqa: E731
    debate, kept, _ = run_debate(tmp_path, debater(judge=judge), refinements=0)
    assert kept == [] and debate.counts["label_not_confirmed"] == 6


def test_each_side_knows_what_it_may_know(tmp_path):
    judge = lambda user: "VERDICT: advice"  # noqa: E731
    _, _, server = run_debate(tmp_path, debater(judge=judge), refinements=0)
    users = server.users()
    opponents = [u for u in users if "Your side" in u and "Why it was written" not in u]
    proponents = [u for u in users if "Why it was written so" in u]
    judges = [u for u in users if "Side A says" in u]
    assert (
        len(opponents) == len(proponents) == len(judges) == 12
    )  # 6 candidates, 2 rounds or orders
    assert all("secret reason" in u for u in proponents)
    assert not any("secret reason" in u or "how it is said" in u for u in [*opponents, *judges])
    assert not any("intended" in u or "proponent" in u for u in judges)
    assert Counter(map(side_a, judges)) == {"advice": 6, "no_advice": 6}
    assert any("I speak for" in u.split("Said so far")[1] for u in opponents)


def test_unreadable_texts_are_counted_and_a_silent_writer_is_an_error(tmp_path):
    debate, kept, _ = run_debate(tmp_path, debater(sample="no form", judge=None))
    assert kept == [] and debate.counts["sample: unreadable"] == 6
    judge = lambda user: "I cannot decide"  # noqa: E731
    debate, kept, _ = run_debate(tmp_path / "b", debater(judge=judge), refinements=0)
    assert kept == [] and debate.counts["label_not_confirmed"] == 6
    with pytest.raises(DataError, match="the writer gave no dimensions"):
        run_debate(tmp_path / "c", lambda messages: "")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("so\nVERDICT: spam", "spam"),
        ("VERDICT: no\nbecause\nVERDICT: 'Yes'. ", "yes"),
        ("VERDICT: yes\nand more", None),
        ("yes", None),
    ],
)
def test_verdicts(text, label):
    assert verdict_of(text) == label


def test_bad_tasks_are_named(tmp_path):
    path = tmp_path / "task.yaml"
    good = {"description": "d", "labels": ["a", "b"], "samples": ["s"]}
    for change, message in (
        ({"labels": ["a"]}, "two or more different"),
        ({"labels": ["a", "A "]}, "two or more different"),
        ({"samples": []}, "at least one sample"),
        ({"labels": "a"}, "key labels is 'a', not a list"),
        ({"extra": 1}, "key extra is unknown"),
        ({"samples": "none.jsonl"}, "no such file"),
    ):
        path.write_text(json.dumps(good | change))
        with pytest.raises(DataError, match=message):
            read_task(path)
    with pytest.raises(DataError, match="No such file"):
        read_task(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="rounds=0"):
        Settings(rounds=0)
