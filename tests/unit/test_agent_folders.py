"""Agent folders with one fault each: refused in one line that names file and remedy, or right."""

import json
import shutil
import warnings

import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors.torch import load_file, save_file
from tiny import make_agent, make_family

from rmas_train.__main__ import main
from rmas_train.agents.agent import Agent
from rmas_train.config import AgentConfig
from rmas_train.engine.loading import load_agent
from rmas_train.errors import AgentError
from rmas_train.support.hub_errors import hub_reason
from rmas_train.support.output import stop_log

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
DOWN = "model.layers.0.mlp.down_proj.weight"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1000\n"


def edit_json(folder, file=CONFIG, **values):
    path = folder / file
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(known | values))


def edit_tensors(folder, change):
    save_file(change(dict(load_file(folder / WEIGHTS))), folder / WEIGHTS, {"format": "pt"})


def without(*keys):
    return lambda folder: edit_tensors(
        folder, lambda t: {k: v for k, v in t.items() if k not in keys}
    )


def with_tensor(key, make):
    return lambda folder: edit_tensors(folder, lambda t: t | {key: make(t[DOWN])})


def write(file, data):
    return lambda folder: (folder / file).write_bytes(data)


def config(**values):
    return lambda folder: edit_json(folder, **values)


def prefixed(folder):
    edit_tensors(folder, lambda t: {f"base_model.model.{k}": v for k, v in t.items()})


def unmerged(folder):
    base = DOWN.replace("weight", "base_layer.weight")
    edit_tensors(folder, lambda t: {base if k == DOWN else k: v for k, v in t.items()})


def cut(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def index_of(part):
    def damage(folder):
        keys = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).rename(folder.parent / "elsewhere.safetensors")
        edit_json(
            folder, f"{WEIGHTS}.index.json", metadata={}, weight_map=dict.fromkeys(keys, part)
        )

    return damage


def symlink(folder):
    (folder / WEIGHTS).rename(folder.parent / "elsewhere.safetensors")
    (folder / WEIGHTS).symlink_to("../elsewhere.safetensors")


def adapter_only(folder):
    (folder / WEIGHTS).unlink()
    edit_json(folder, "adapter_config.json", peft_type="LORA", base_model_name_or_path="some/base")


def without_end(folder):
    known = json.loads((folder / "tokenizer_config.json").read_text())
    known.pop("eos_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(known))
    edit_json(folder, eos_token_id=None)
    (folder / "generation_config.json").unlink()
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )


def small_embedding(folder):
    name = "model.embed_tokens.weight"
    edit_tensors(folder, lambda t: t | {name: t[name][:100].contiguous()})
    edit_json(folder, vocab_size=100)


REFUSED = {
    "missing tensor": (without(DOWN), ["1 tensors are missing", DOWN, WEIGHTS]),
    "prefixed keys": (prefixed, ["base_model.model.", "another prefix"]),
    "unmerged LoRA": (unmerged, ["base_layer", "merge_and_unload"]),
    "another tensor": (with_tensor("model.layers.7.x", torch.clone), ["unexpected", "layers.7.x"]),
    "shape": (with_tensor(DOWN, lambda x: x[:, :-1].contiguous()), [DOWN, "[24, 47]", "[24, 48]"]),
    "width": (config(hidden_size=64), ["model.safetensors", "config.json asks for"]),
    "NaN": (with_tensor(DOWN, lambda x: torch.full_like(x, float("nan"))), [DOWN, "NaN"]),
    "infinite": (with_tensor(DOWN, lambda x: torch.full_like(x, float("inf"))), [DOWN, "NaN"]),
    "integers": (with_tensor(DOWN, lambda x: x.to(torch.int8)), [DOWN, "stored as I8"]),
    "layers": (config(num_hidden_layers=0, layer_types=None), ["unexpected"]),
    "many layers": (config(num_hidden_layers=100_000), [CONFIG, "0 to 1000"]),
    "longest text": (
        lambda folder: edit_json(folder, "tokenizer_config.json", model_max_length="x"),
        ["model_max_length is 'x'"],
    ),
    "kv heads": (config(num_key_value_heads=0), [CONFIG, "num_key_value_heads is 0"]),
    "heads": (config(num_attention_heads="2"), [CONFIG, "num_attention_heads is '2'"]),
    "config list": (write(CONFIG, b"[]"), [CONFIG, "[]"]),
    "config text": (write(CONFIG, b"{"), [CONFIG, "not JSON"]),
    "config gone": (lambda folder: (folder / CONFIG).unlink(), ["no config.json"]),
    "cut": (cut, [WEIGHTS, "not copied to its end"]),
    "empty": (write(WEIGHTS, b""), [WEIGHTS, "is empty"]),
    "header": (write(WEIGHTS, b"\xff" * 64), [WEIGHTS, "not a safetensors file"]),
    "LFS": (write(WEIGHTS, LFS.encode()), [WEIGHTS, "git lfs pull"]),
    "LFS tokenizer": (write(TOKENIZER, LFS.encode()), [TOKENIZER, "git lfs pull"]),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), ["no weights", WEIGHTS]),
    "tokenizer": (write(TOKENIZER, b"{}"), [TOKENIZER, "no key `model`"]),
    "tokens": (small_embedding, ["its embedding 100 rows"]),
    "end": (without_end, ["no token ends a text", "eos_token"]),
    "rope": (config(rope_parameters={"rope_type": "yarn2", "rope_theta": 1e4}), ["yarn2"]),
    "family": (config(model_type="nobody"), ["nobody"]),
    "gptq": (config(quantization_config={"quant_method": "gptq", "bits": 4}), ["gptqmodel"]),
    "awq": (config(quantization_config={"quant_method": "awq", "bits": 4}), ["gptqmodel"]),
    "quantised": (config(quantization_config={"quant_method": "x"}), ["'x'", "unquantised"]),
    "adapter": (adapter_only, ["some/base", "agents.planner.adapter="]),
    "index outside": (index_of("../elsewhere.safetensors"), ["same folder"]),
    "index to a pickle": (index_of("pytorch_model.bin"), ["same folder"]),
    "index to nothing": (index_of("model-2.safetensors"), ["model-2.safetensors is missing"]),
    "link outside": (symlink, [WEIGHTS, "symbolic link"]),
    "composite": (config(text_config=3), ["text_config is 3"]),
}


@pytest.fixture
def folder(agent_folders, tmp_path):
    shutil.copytree(agent_folders["planner"], tmp_path / "agents" / "planner")
    return tmp_path / "agents" / "planner"


@pytest.mark.parametrize("fault", REFUSED)
def test_it_is_refused_in_one_line(fault, folder):
    damage, said = REFUSED[fault]
    damage(folder)
    with pytest.raises(AgentError) as error:
        load_agent("planner", AgentConfig(model=str(folder)))
    line = str(error.value)
    assert len(line.splitlines()) == 1 and line.startswith("agents.planner.model=")
    for part in said:
        assert part in line


@pytest.mark.parametrize("said", ["eager", "some-org/some-kernel", "flash_attention_2"])
@pytest.mark.parametrize("asked", ["sdpa", "eager"])
def test_our_attention_wins_over_the_folders(said, asked, folder):
    edit_json(folder, _attn_implementation=said)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = load_agent("planner", AgentConfig(model=str(folder), attention=asked))
    assert agent.model.config._attn_implementation == asked
    assert all(
        layer.self_attn.config._attn_implementation == asked for layer in agent.model.model.layers
    )


def test_a_kernel_that_is_not_there_is_named(folder):
    config = AgentConfig(model=str(folder), attention="flash_attention_2")
    with pytest.raises(AgentError, match=r"FlashAttention2.*attention=sdpa") as error:
        load_agent("planner", config)
    assert len(str(error.value).splitlines()) == 1


def test_the_command_ends_with_2_and_trains_nothing(folder, overrides, workspace, capsys):
    without(DOWN)(folder)
    for stage in ("inner", "pipeline"):
        assert main([*overrides, f"agents.planner.model={folder}", f"stage={stage}"]) == 2
        stop_log()
        error = capsys.readouterr().err.strip()
        assert DOWN in error and len(error.splitlines()) == 1
    assert not list((workspace / "run").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("", "is empty"),
        ("/nope", "no such folder or file"),
        ("a/b/c", "no such folder or file"),
        ("nope.gguf", "no such folder or file"),
    ],
)
def test_a_place_that_is_none_is_told_so(model, said):
    with pytest.raises(AgentError, match=said) as error:
        load_agent("planner", AgentConfig(model=model))
    assert "repo" not in str(error.value)


def test_a_prompt_beyond_the_models_positions_is_refused(folder, overrides, capsys):
    edit_json(folder, max_position_embeddings=12)
    typed = [*overrides, f"agents.planner.model={folder}", "stage=inner"]
    assert main(typed) == 2
    stop_log()
    assert "agent planner reads 12 positions at most" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_stretched_positions_end_where_rows_would_depend_on_their_neighbours(kind):
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0}
    rope |= {"original_max_position_embeddings": 64}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    agent = make_family("llama", "planner", rope_parameters=rope, max_position_embeddings=256)
    assert agent.most_positions == 64
    assert make_agent("planner").most_positions == 256
    assert isinstance(agent, Agent)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (GatedRepoError, "access is restricted: ask for it at https://huggingface.co/org/model"),
        (RepositoryNotFoundError, "no such model on the hub, or it is private"),
        (LocalEntryNotFoundError, "neither a folder here nor in the hub's cache"),
    ],
)
def test_what_the_hub_refuses_comes_with_the_way_in(kind, said):
    """The library wraps the client's error in an OSError of many lines."""
    cause = kind.__new__(kind)
    try:
        try:
            raise cause
        except kind as inner:
            raise OSError("You are trying to access a gated repo.\nMake sure ...") from inner
    except OSError as error:
        reason = hub_reason(error, "org/model")
    assert said in reason and len(reason.splitlines()) == 1
    assert ("hf auth login" in reason) == (kind is not LocalEntryNotFoundError)
