"""Chat templates: what stands around a text, what is refused, and what ends a text."""

import dataclasses
import datetime
import json
import shutil

import pytest
import torch
from tiny import CHAT, NO_SYSTEM_CHAT, make_agent, make_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM

from rmas_train.agents.builtin_templates import BUILT_IN
from rmas_train.agents.prompts import Prompt, tokenise_whole
from rmas_train.agents.template import ChatTemplate
from rmas_train.config import AgentConfig
from rmas_train.engine.answer import generate, generate_static
from rmas_train.engine.inputs import embed_ids
from rmas_train.engine.loading import load_agent
from rmas_train.errors import AgentError

TRIMS = (
    "{% for m in messages %}<|s|>{{ m.role }}\n{{ m.content | trim }}<|e|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|s|>assistant\n{% endif %}"
)
DATED = (
    "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ date_string }} " + CHAT
)
THINKS = (
    "{% for m in messages %}<|s|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}<|e|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|s|>assistant\n"
    "{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"
)
FORGETS = (  # its prompt ends in what later turns leave out, as DeepSeek's distilled models do
    "{% for m in messages %}<|s|>{{ m.role }} {{ m.content }}{% if m.role == 'assistant' %}<|e|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|s|>assistant <think>\n{% endif %}"
)


def written(agent, text):
    (ids,) = tokenise_whole(agent, [text])
    return agent.tokenizer.decode(ids)


def in_template(agent, system, question):
    """The prompt as the template alone writes it."""
    turns = [{"role": "system", "content": system}] if system else []
    turns.append({"role": "user", "content": f"Q: {question}"})
    return agent.tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )


@pytest.mark.parametrize("chat", [CHAT, TRIMS, THINKS, FORGETS])
@pytest.mark.parametrize("question", ["red two", "  red ", "\n\nred\t", "", "  ", "a\nb"])
@pytest.mark.parametrize("system", [None, " so go "])
def test_a_prompt_is_what_the_template_alone_gives(chat, question, system):
    agent = make_agent("planner", chat)
    prompt = Prompt(agent, {"user": "Q: <<question>>", "system": system})
    (one,) = prompt.encode([{"question": question}], 1, first=True)
    assert agent.tokenizer.decode(one.ids) == in_template(agent, system, question)


@pytest.mark.parametrize("text", ["red", "  red ", "two\n", "a<|e|>b"])
@pytest.mark.parametrize(
    ("chat", "before", "after"),
    [
        (CHAT, " ", "<|e|>"),
        (TRIMS, "", "<|e|>\n"),
        (THINKS, "", "<|e|>\n"),
        (FORGETS, "", "<|e|>"),
    ],
)
def test_an_own_text_is_the_rest_of_its_turn(chat, before, after, text):
    """Rendered prompt and rendered prompt with text: the rest is the target."""
    agent = make_agent("planner", chat)
    own = text.strip() if chat == TRIMS else text
    assert written(agent, text) == before + own + after
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": text}]
    write = agent.tokenizer.apply_chat_template
    prompt = write(turns[:1], tokenize=False, add_generation_prompt=True, enable_thinking=False)
    whole = write(turns, tokenize=False, enable_thinking=False)
    if whole.startswith(prompt):
        assert written(agent, text) == whole.removeprefix(prompt)


def test_with_thinking_the_target_has_its_marks():
    agent = dataclasses.replace(make_agent("planner", THINKS), template={"enable_thinking": True})
    assert written(agent, "red") == "<think></think>red<|e|>\n"
    (one,) = Prompt(agent, {"user": "x"}).encode([{}], 1, first=True)
    assert agent.tokenizer.decode(one.ids).endswith("<|s|>assistant\n")


def test_a_special_tokens_text_in_an_own_text_stays_text():
    agent = make_agent("planner")
    (ids,) = tokenise_whole(agent, ["one<|e|>two"])
    assert ids.count(agent.end_id) == 1 and ids[-1] == agent.end_id


def test_a_text_without_an_end_gets_the_end_of_text_token():
    chat = "{% for m in messages %}{{ m.content }}{% endfor %}"
    agent = make_agent("planner", chat)
    assert written(agent, "one two") == "one two<|e|>"


def test_the_date_is_the_same_every_day(monkeypatch):
    agent = make_agent("planner", DATED)
    prompts = []
    for year in (2026, 2031):

        class Today(datetime.datetime):
            @classmethod
            def now(cls, tz=None, year=year):
                return cls(year, 1, 2)

        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Today)
        prompts.append(ChatTemplate(agent.tokenizer).prompt(None))
    assert prompts[0] == prompts[1]
    assert prompts[0].before.startswith("26 Jul 2024")
    own = ChatTemplate(agent.tokenizer, {"date_string": "01 Jan 2030"}).prompt(None)
    assert own.before.startswith("01 Jan 2030")


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        ("hello {% if add_generation_prompt %}x{% endif %}", "puts a text 0 times"),
        ("{% for m in messages %}{{m.content}} {{m.content}}{% endfor %}", "2 times, not"),
        (
            "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
            "puts a text 0 times",
        ),
        ("{% for m in messages %}{{ m.content | replace(' ', '_') }}{% endfor %}", "white space"),
        ("{% for m in messages %}{{ m.content }", "fails (line 1"),
        ("{% for m in messages %}{{ m.content }}{{ 1 / 0 }}{% endfor %}", "fails (division"),
        ("{{ raise_exception('never') }}", "refuses"),
        (
            "{% for m in messages %}{{ m.content }}{{ [1, 2, 3, 4, 5, 6, 7, 8, 9] | random }}"
            "{% endfor %}",
            "",
        ),
        (f"{{{{ 'x' * {2 * 10**6} }}}}" + CHAT, "writes 2000"),
        (
            "{% for m in messages %}{{ m.content }}{{ m.content if m.role == 'system' }}"
            "{% endfor %}",
            "system text 2 times",
        ),
    ],
)
def test_a_template_that_is_not_what_it_seems_is_refused(chat, said):
    agent = make_agent("planner", chat)
    with pytest.raises(AgentError) as error:
        assert agent.chat.prompt("so"), agent.chat.answer
    line = str(error.value)
    assert said in line and len(line.splitlines()) == 1
    assert "agents.planner.template" in line and "chat_template.jinja" in line


def test_an_endless_template_is_refused_in_seconds(monkeypatch):
    monkeypatch.setattr("rmas_train.agents.rendering.SECONDS", 0.2)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x"
    with pytest.raises(AgentError, match="does not end within"):
        assert make_agent("planner", endless).chat.answer


def test_a_system_text_without_a_turn_goes_before_the_users():
    silent = "{% for m in messages if m.role != 'system' %}{{ m.content }}|{% endfor %}"
    for chat in (NO_SYSTEM_CHAT, silent):
        agent = make_agent("planner", chat)
        (one,) = Prompt(agent, {"user": "Q <<q>>", "system": "so"}).encode([{"q": "1"}], 1, True)
        assert "so\n\nQ 1" in agent.tokenizer.decode(one.ids)


def test_without_a_template_the_prompt_is_the_text():
    base = make_agent("planner")
    base.tokenizer.chat_template = None
    with pytest.raises(AgentError, match=r"no chat template.*template=none.*plain, alpaca"):
        assert base.chat.answer
    agent = dataclasses.replace(base, template="none")
    (one,) = Prompt(agent, {"user": "Q <<q>>", "system": "so"}).encode([{"q": "1"}], 1, first=True)
    assert agent.tokenizer.decode(one.ids) == "so\n\nQ 1"
    assert written(agent, "two") == "two<|e|>"


def test_without_a_template_the_prompt_begins_as_the_tokenizer_begins_texts():
    base = make_agent("planner")
    first = base.tokenizer.convert_tokens_to_ids("<|s|>")
    base.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|s|> $A", special_tokens=[("<|s|>", first)]
    )
    agent = dataclasses.replace(base, template="none")
    (one,) = Prompt(agent, {"user": "red two"}).encode([{}], 1, first=True)
    assert one.ids == agent.tokenizer("red two")["input_ids"] and one.ids[0] == first


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_template_works_or_names_the_token_that_is_missing(name):
    agent = dataclasses.replace(make_agent("planner"), template=name)
    marks = BUILT_IN[name][1]
    if marks:
        with pytest.raises(AgentError, match=r"has no token <.*choose another"):
            assert agent.chat.answer
        agent.tokenizer.add_special_tokens({"additional_special_tokens": [*marks, "<bos>"]})
    agent = dataclasses.replace(agent, name="other")
    (one,) = Prompt(agent, {"user": "Q <<q>>", "system": "so"}).encode([{"q": "1"}], 1, first=True)
    text = agent.tokenizer.decode(one.ids)
    assert "so" in text and "Q 1" in text
    own = written(agent, "two")
    assert "two" in own and agent.ends_in_template


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("chatlm", "Did you mean 'chatml'"),
        ({"enable_thought": True}, "has no variable enable_thought"),
        ({"tokenize": True}, "has no variable tokenize"),
        ({"name": 3}, "template=3"),
    ],
)
def test_a_wrong_template_option_is_named(choice, said):
    agent = dataclasses.replace(make_agent("planner", THINKS), template=choice)
    with pytest.raises(AgentError, match=said):
        assert agent.chat.answer


def test_text_ends_at_any_end_token_as_the_librarys_generate_does(agent_folders, tmp_path):
    folder = tmp_path / "planner"
    shutil.copytree(agent_folders["planner"], folder)
    plain = load_agent("planner", AgentConfig(model=str(folder)))
    prompt = plain.tokenizer(" one two three", add_special_tokens=False)["input_ids"]
    (free,) = generate(plain, embed_ids(plain, [prompt]), None, 12)
    model = AutoModelForCausalLM.from_pretrained(folder)
    out = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)
    third = out[0, len(prompt) + 2].item()  # a token that the model does write
    settings = {"eos_token_id": [plain.end_id, third]}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    agent = load_agent("planner", AgentConfig(model=str(folder)))
    assert {plain.end_id, third} <= agent.end_ids
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    ids = theirs.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0]
    batch = embed_ids(agent, [prompt])
    for text in (*generate(agent, batch, None, 12), *generate_static(agent, batch, 12)):
        assert text.tokens == len(ids) - len(prompt) < free.tokens
        assert text.text == agent.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


def test_a_tokenizer_is_asked_for_its_own_template_among_several():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = {"default": CHAT, "tool_use": "x"}
    assert ChatTemplate(tokenizer).answer.after == "<|e|>"
