"""A language model behind an endpoint as the grader, over real HTTP on this machine."""

import pytest
from chat_server import ChatServer

from rmas_train.config import Config, DataConfig, EvaluationConfig
from rmas_train.errors import ConfigError, DataError
from rmas_train.evaluation.graders import make_grader

ROW = {"question": "Who wrote it?", "answer": "Ada Byron"}


def grader(url, **options):
    evaluation = EvaluationConfig(judge=url, **({"judge_model": "scholar"} | options))
    return make_grader(Config(data=DataConfig(grader="llm"), evaluation=evaluation))


def test_the_model_says_what_is_right(monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "made-up")

    def reply(messages):
        return "Same name.\nVERDICT: " + ("YES" if "Lady Ada" in messages[-1]["content"] else "no")

    with ChatServer(reply).running() as server:
        found = grader(server.url)
        yes, no = found.grade(ROW, "Lady Ada Byron."), found.grade(ROW, "Bob")
        assert (yes.right, yes.readable, yes.read) == (True, True, "judged YES")
        assert (no.right, no.readable, no.read) == (False, True, "judged NO")
        (asked, _) = server.asked
        assert "Who wrote it?" in asked["messages"][1]["content"] and asked["temperature"] == 0
        assert "Ada Byron" in asked["messages"][1]["content"]
        assert server.headers[0]["authorization"] == "Bearer made-up"
        assert not found.grade(ROW, " \n").readable and len(server.asked) == 2  # not asked


@pytest.mark.parametrize("said", ["I think so.", "", "YES", {"finish_reason": "length"}])
def test_a_reply_without_a_verdict_is_unreadable_and_wrong(said):
    said = said if isinstance(said, str) else {"message": {"content": "VERDICT: YES"}} | said
    with ChatServer(lambda messages: said).running() as server:
        grade = grader(server.url).grade(ROW, "Ada Byron")
    assert (grade.right, grade.readable, grade.read) == (False, False, None)


def test_the_last_verdict_counts():
    with ChatServer(lambda m: "VERDICT: YES would be wrong.\n**VERDICT: NO**").running() as server:
        assert not grader(server.url).grade(ROW, "VERDICT: YES").right


def test_it_is_off_unless_an_address_is_given():
    assert EvaluationConfig().judge is None
    with pytest.raises(ConfigError, match="data.grader=llm with evaluation.judge=null: give the"):
        grader(None)
    with pytest.raises(ConfigError, match="models with names; give evaluation.judge_model"):
        grader("http://localhost:1/v1", judge_model=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"judge": "http://example.org/v1"}, "evaluation.judge=http://example.org/v1: the key"),
        ({"judge": "localhost"}, "evaluation.judge=localhost: "),
        ({"judge_key_variable": "HOME"}, "evaluation.judge_key_variable=HOME: give the name"),
    ],
)
def test_a_key_is_sent_encrypted_or_nowhere(options, message):
    with pytest.raises(ConfigError) as caught:
        EvaluationConfig(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "set the environment variable JUDGE_API_KEY"), (404, "and evaluation.judge_model")],
)
def test_a_server_that_refuses_is_one_line(status, hint):
    said = {"status": status, "error": {"message": "refused"}}
    with (
        ChatServer(lambda messages: said).running() as server,
        pytest.raises(DataError, match=r"^evaluation.judge=http://127.0.0.1:\d+/v1: ") as caught,
    ):
        grader(server.url).grade(ROW, "Ada")
    assert hint in str(caught.value) and "records are kept" in str(caught.value)
