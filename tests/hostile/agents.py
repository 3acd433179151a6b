"""Agent folders: config, weights, tokenizer, chat template, generation settings."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hostile.case import ODD_TEXTS, ODD_VALUES, Case, Makers, names

MAKERS = Makers()
CONFIG_KEYS = names("""
model_type architectures hidden_size intermediate_size num_hidden_layers num_attention_heads
num_key_value_heads head_dim vocab_size max_position_embeddings rms_norm_eps rope_parameters
tie_word_embeddings dtype hidden_act layer_types attention_bias torch_dtype use_cache eos_token_id
pad_token_id bos_token_id sliding_window quantization_config _attn_implementation auto_map
text_config transformers_weights fusion_config is_encoder_decoder
""")
TOKENIZER_KEYS = names("model added_tokens pre_tokenizer decoder normalizer post_processor version")
TOKENIZER_CONFIG_KEYS = names("""
tokenizer_class eos_token pad_token extra_special_tokens padding_side model_max_length auto_map
added_tokens_decoder chat_template clean_up_tokenization_spaces backend
""")
GENERATION_KEYS = names("eos_token_id pad_token_id bos_token_id max_length num_beams do_sample")
TEMPLATES = [
    "",
    "text",
    "{{ messages }}",
    "{{ messages[0].content }}{{ messages[0].content }}",
    "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
    "{% for m in messages %}{{ m.content | trim }}|{% endfor %}",
    "{% for m in messages %}{{ m.content[:3] }}{% endfor %}",
    "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{{ m.content }",
    "{% include 'config.json' %}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ raise_exception('no') }}",
    "{{ 1 / 0 }}",
    "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}",
    "{{ range(99999) | list }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for m in messages %}{{ m.content | random }}{% endfor %}",
    "{% for m in messages | reverse %}{{ m.content }} {% endfor %}",
    "{% for m in messages %}{{ m.nothing.at.all }}{% endfor %}",
]
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1000\n"


def case(random: Random, name: str, file: str, what: str, value: Any = None, **more: Any) -> Case:
    agent = random.choice(["planner", "critic", "solver"])
    stage = random.choice(["inner", "inner", "outer", "eval", "plan"])
    if more.get("refused") and stage == "plan":  # it reads no weights
        stage = "inner"
    return Case(name, [f"stage={stage}"], [(what, f"agents/{agent}/{file}", value)], **more)


def odd(random: Random) -> Any:
    return random.choice(ODD_VALUES + ODD_TEXTS)


@MAKERS
def config_key(random: Random) -> Case:
    key = random.choice(CONFIG_KEYS)
    return case(random, f"config {key}", "config.json", "json", [[key], odd(random)])


@MAKERS
def config_key_missing(random: Random) -> Case:
    key = random.choice(CONFIG_KEYS)
    return case(random, f"config without {key}", "config.json", "json_drop", [key])


@MAKERS
def config_number(random: Random) -> Case:
    key = random.choice(names("hidden_size vocab_size num_attention_heads num_hidden_layers"))
    value = random.choice([1, 2, 3, 7, 64, 100_000])
    return case(random, f"config {key}={value}", "config.json", "json", [[key], value])


@MAKERS
def rope_of_another_kind(random: Random) -> Case:
    kind = random.choice(["yarn2", "longrope", "dynamic", "yarn", 7, None, ""])
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": random.choice([2.0, -1, "x", None])}
    return case(random, f"rope {kind}", "config.json", "json", [["rope_parameters"], rope])


@MAKERS
def quantised(random: Random) -> Case:
    method = random.choice(["gptq", "awq", "bitsandbytes", "fp8", "nobody", 3, None])
    settings = {"quant_method": method, "bits": 4, "group_size": 128, "load_in_4bit": True}
    return case(
        random, f"quantised {method}", "config.json", "json", [["quantization_config"], settings]
    )


@MAKERS
def file_missing(random: Random) -> Case:
    file = random.choice(["config.json", "model.safetensors", "tokenizer.json"])
    return case(random, f"no {file}", file, "remove", refused=file != "tokenizer.json")


@MAKERS
def file_empty(random: Random) -> Case:
    file = random.choice(["config.json", "model.safetensors", "tokenizer.json"])
    return case(random, f"{file} empty", file, "empty", refused=True)


@MAKERS
def file_is_a_pointer(random: Random) -> Case:
    file = random.choice(["config.json", "model.safetensors", "tokenizer.json"])
    return case(random, f"{file} is an LFS pointer", file, "text", LFS, refused=True)


@MAKERS
def file_is_not_json(random: Random) -> Case:
    file = random.choice(names("config.json tokenizer.json generation_config.json"))
    text = random.choice(["[]", "{", "null", "3", '"text"', "{}", "[" * 3000, '{"a": NaN}'])
    return case(random, f"{file} holds {text[:5]}", file, "text", text)


@MAKERS
def file_loops(random: Random) -> Case:
    file = random.choice(["config.json", "model.safetensors", "tokenizer.json"])
    return case(random, f"{file} is a loop", file, "loop", refused=file != "tokenizer.json")


@MAKERS
def weights_truncated(random: Random) -> Case:
    return case(
        random, "weights cut", "model.safetensors", "truncate", random.random(), refused=True
    )


@MAKERS
def weights_head_flipped(random: Random) -> Case:
    value = [random.randrange(10**6), random.choice([1, 5, 50])]
    return case(random, "bits of the header flipped", "model.safetensors", "flip_head", value)


@MAKERS
def weights_flipped(random: Random) -> Case:
    value = [random.randrange(10**6), random.choice([1, 100])]
    return case(random, "bits of the weights flipped", "model.safetensors", "flip", value)


@MAKERS
def tensor_not_whole(random: Random) -> Case:
    what = random.choice(names("drop rename extra clear flat none nan inf one_nan"))
    value = [what, random.randrange(10**6)]
    return case(random, f"tensor {what}", "model.safetensors", "tensors", value, refused=True)


@MAKERS
def index_elsewhere(random: Random) -> Case:
    part = random.choice(["../x.safetensors", "/etc/passwd", "pytorch_model.bin", "", 3, None, "x"])
    found = case(random, f"index names {part}", "model.safetensors", "remove", refused=True)
    place = found.edits[0][1].replace("model.safetensors", "model.safetensors.index.json")
    index = json.dumps({"metadata": {}, "weight_map": {"model.embed_tokens.weight": part}})
    found.edits.append(("text", place, index))
    return found


@MAKERS
def adapter_beside(random: Random) -> Case:
    text = json.dumps({"peft_type": "LORA", "base_model_name_or_path": random.choice(ODD_TEXTS)})
    return case(random, "an adapter", "adapter_config.json", "text", text)


@MAKERS
def tokenizer_key(random: Random) -> Case:
    key = random.choice(TOKENIZER_KEYS)
    return case(random, f"tokenizer {key}", "tokenizer.json", "json", [[key], odd(random)])


@MAKERS
def tokenizer_config_key(random: Random) -> Case:
    key = random.choice(TOKENIZER_CONFIG_KEYS)
    value = [[key], odd(random)]
    return case(random, f"tokenizer config {key}", "tokenizer_config.json", "json", value)


@MAKERS
def tokenizer_truncated(random: Random) -> Case:
    return case(
        random, "tokenizer cut", "tokenizer.json", "truncate", random.random(), refused=True
    )


@MAKERS
def chat_template(random: Random) -> Case:
    text = random.choice([*TEMPLATES, *TEMPLATES, *ODD_TEXTS])
    return case(random, f"template {text[:20]!r}", "chat_template.jinja", "text", text)


@MAKERS
def generation_settings(random: Random) -> Case:
    key, value = random.choice(GENERATION_KEYS), odd(random)
    text = json.dumps({key: random.choice([value, [0, 5], 10**9, [10**9]])})
    return case(random, f"generation {key}", "generation_config.json", "text", text)


@MAKERS
def template_option(random: Random) -> Case:
    agent = random.choice(["planner", "critic", "solver"])
    value = random.choice(
        [*names("none plain alpaca chatml llama3 gemma nobody 7 [] true"), "{a: 1}", "{name: none}"]
    )
    stage = random.choice(["inner", "plan"])
    return Case(f"template={value}", [f"stage={stage}", f"agents.{agent}.template={value}"])


@MAKERS
def model_option(random: Random) -> Case:
    agent = random.choice(["planner", "critic", "solver"])
    places = "/nope nope org/nope x.gguf data/train.jsonl data prompts . .. agents run ''"
    value = random.choice([*names(places), f"agents/{agent}/config.json", "'a b'", "https://x.y/z"])
    return Case(f"model={value}", ["stage=inner", f"agents.{agent}.model={value}"], refused=True)
