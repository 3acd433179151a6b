"""lm-evaluation-harness with its own command and its own evaluator, on a small local task."""

import json
import subprocess

import pytest
import torch
from conftest import COMMAND
from launching import environment

import rmas_train
from rmas_train.errors import ConfigError, DataError, UserError
from rmas_train.recursion import last_call

pytestmark = pytest.mark.slow

TEXT = """
task: relay_text
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], do_sample: false, temperature: 0.0, max_gen_toks: 6}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
filter_list:
  - name: word
    filter:
      - {function: regex, regex_pattern: '(\\d \\w)'}
      - {function: take_first}
"""
CHOICE = """
task: relay_choice
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{[answer, '1 A', '2 B', '3 C']}}"
doc_to_target: 0
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture(scope="module")
def rows(relay_run):
    (path,) = relay_run.parent.glob("data/*/test.jsonl")
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for row in found if row["rounds_needed"] == 1]


@pytest.fixture
def tasks(tmp_path, rows):
    """A working folder with two tasks over the relay's questions."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "text.yaml").write_text(TEXT)
    (tmp_path / "tasks" / "choice.yaml").write_text(CHOICE)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def lm_eval(folder, arguments, *typed):
    return subprocess.run(
        [*COMMAND, "lm-eval", "--model", "rmas", "--model_args", arguments, *typed],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(),
        timeout=600,
    )


def test_the_command_scores_texts_and_choices(tasks, relay_run, rows):
    typed = ["--include_path", "tasks", "--tasks", "relay_text,relay_choice", "--batch_size", "8"]
    typed += ["--output_path", "out", "--log_samples"]
    done = lm_eval(tasks, f"run={relay_run},rounds=1", *typed)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = tasks.glob("out/**/results_*.json")
    found = json.loads(path.read_text())
    system = rmas_train.load(relay_run)
    answers = system.answer([row["question"] for row in rows])
    right = [a.text.strip() == row["answer"] for a, row in zip(answers, rows, strict=True)]
    assert sum(right) > len(rows) / 2
    assert found["results"]["relay_text"]["exact_match,word"] == pytest.approx(
        sum(right) / len(rows)
    )
    assert found["results"]["relay_choice"]["acc,none"] > 0.5
    assert found["config"]["rmas"] == {
        "rounds": 1,
        "latent_length": 2,
        "links_sha256": found["config"]["rmas"]["links_sha256"],
        "control": None,
        "questions": len(rows),
        "text_tokens": sum(a.tokens for a in answers),
        "latent_steps": sum(a.latent_steps for a in answers),
    }
    (path,) = tasks.glob("out/**/samples_relay_text_*.jsonl")
    written = [json.loads(line)["resps"][0][0] for line in path.read_text().splitlines()]
    assert sorted(written) == sorted(answer.text for answer in answers)


def test_an_error_of_the_command_is_one_line(tasks, relay_run):
    typed = ["--include_path", "tasks", "--tasks", "relay_text", "--apply_chat_template"]
    done = lm_eval(tasks, f"run={relay_run}", *typed, "--system_instruction", "Be brief.")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: messages[0] has role 'system'")


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        ("run={run},round=2", "Did you mean 'rounds'"),
        ("run=nowhere", "nowhere: no links.json there"),
        ("run={run},control=nul", "Did you mean 'null'"),
    ],
)
def test_bad_arguments(relay_run, arguments, needle):
    from rmas_train.serving.harness import RecursiveSystem

    with pytest.raises(UserError, match=needle):
        RecursiveSystem.create_from_arg_string(arguments.format(run=relay_run), {"batch_size": 2})


def test_scores_and_refusals_from_python(relay_run):
    from lm_eval.api.instance import Instance

    from rmas_train.serving.harness import RecursiveSystem

    model = RecursiveSystem(run=str(relay_run), batch_size=4, device="cuda:0")
    system = rmas_train.load(relay_run)
    asked = [("start C 0 x 1 u 2 stop", " 2 E"), ("start A 0 z 1 stop", " 1 B")]
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in asked]
    found = model.loglikelihood(requests)
    decoder = system.team.agents["solver"]
    for (question, text), (log_probability, _) in zip(asked, found, strict=True):
        ids = decoder.tokenizer(text.strip(), add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            loss = last_call(system.unroll([question])).answer_loss([ids])
        assert log_probability == pytest.approx(-float(loss), abs=1e-4)
    assert found[0][1]  # what it would write, and right
    assert model.apply_chat_template([{"role": "user", "content": "go"}]) == "go"
    null = RecursiveSystem(run=str(relay_run), control="null")
    settings = ({"until": ["D"]},)
    texts = null.generate_until([Instance("generate_until", {}, asked[:1][0][:1] + settings, 0)])
    (expected,) = system.answer([asked[0][0]], latent_length=0)
    assert texts == [expected.text.split("D")[0]]
    with pytest.raises(NotImplementedError, match="generate_until, multiple_choice"):
        model.loglikelihood_rolling(requests)
    warm = ({"until": [], "max_gen_toks": 6, "temperature": 3.0},)
    again = [Instance("generate_until", {}, asked[0][:1] + warm, 0)] * 6
    texts = model.generate_until(again)
    assert len(set(texts)) > 1 and model.generate_until(again) == texts
    with pytest.raises(ConfigError, match="batch_size='many'"):
        RecursiveSystem(run=str(relay_run), batch_size="many")


@pytest.mark.parametrize(
    ("settings", "temperature", "top_p"),
    [
        ({"until": "\n", "max_gen_toks": 9, "top_p": 0.3}, 0, 1),
        ({"do_sample": False, "temperature": 0.7, "num_beams": 4}, 0, 1),
        ({"do_sample": True}, 1, 1),
        ({"temperature": 0.5, "top_p": 0.3}, 0.5, 0.3),
        ({"do_sample": True, "temperature": 0.5, "num_beams": 1}, 0.5, 1),
    ],
)
def test_how_a_task_asks_for_drawn_tokens(settings, temperature, top_p):
    from rmas_train.serving.harness import read_settings

    _, _, decoding = read_settings(settings)
    assert (decoding.temperature, decoding.top_p) == (temperature, top_p)


@pytest.mark.parametrize(
    ("settings", "needle"),
    [
        ({"do_sample": True, "temperature": 0}, "change one of the two"),
        ({"temperature": -1}, "temperature=-1: give a number from 0"),
        ({"temperature": 1, "min_p": 0.1}, "min_p=0.1 is not offered"),
        ({"max_lenght": 3}, "max_lenght, which is not offered"),
    ],
)
def test_what_a_task_cannot_ask_for(settings, needle):
    from rmas_train.serving.harness import read_settings

    with pytest.raises(DataError, match=needle):
        read_settings(settings)
