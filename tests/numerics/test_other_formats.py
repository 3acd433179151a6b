"""Agents as users bring them: base and adapter, GGUF files, quantised weights."""

import json
import shutil
import warnings
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import make_agent, make_family, make_links, make_rows, make_team, make_tokenizer
from transformers import AutoModelForCausalLM

import rmas_train
from rmas_train.__main__ import main
from rmas_train.config import AgentConfig
from rmas_train.engine.inputs import embed_ids, read_whole
from rmas_train.engine.loading import load_agent
from rmas_train.errors import AgentError
from rmas_train.objectives.outer import OuterObjective
from rmas_train.planning.shapes import read_shape, shape_agent, weight_bytes

IDS = torch.tensor([[5, 9, 30, 12, 7]])


@pytest.fixture
def adapter(tmp_path, agent_folders):
    """A LoRA adapter of the planner, and the logits of the two together."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(agent_folders["planner"])
    settings = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(base, settings).eval()
    model.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        return tmp_path / "adapter", model(IDS).logits


def test_an_adapter_is_merged_into_its_model(adapter, agent_folders):
    folder, logits = adapter
    plain = AgentConfig(model=str(agent_folders["planner"]))
    config = AgentConfig(model=plain.model, adapter=str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = load_agent("planner", config)
    with torch.no_grad():
        torch.testing.assert_close(agent.model(IDS).logits, logits, rtol=1e-4, atol=1e-5)
    assert not any("lora" in key for key in agent.model.state_dict())
    assert not any(p.requires_grad for p in agent.model.parameters())
    assert agent.fingerprint() != load_agent("planner", plain).fingerprint()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("weights", "adapter_model.safetensors is missing"),
        ("tensor", "1 tensors are missing or unexpected"),
        ("pickle", "adapter_model.safetensors is missing"),
        ("kind", "cannot be merged"),
        ("other", "not made for this model|cannot be merged"),
        ("import", "megatron_config"),
    ],
)
def test_an_adapter_that_is_not_whole_is_refused(adapter, agent_folders, damage, said):
    folder, _ = adapter
    weights, settings = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    model = agent_folders["planner"]
    if damage in ("weights", "pickle"):
        weights.unlink()
        if damage == "pickle":
            torch.save({}, folder / "adapter_model.bin")
    elif damage == "tensor":
        tensors = load_file(weights)
        tensors.pop(sorted(tensors)[0])
        save_file(tensors, weights)
    elif damage == "other":
        model = agent_folders["critic"]
    else:
        change = {"peft_type": "NOTHING"} if damage == "kind" else {"megatron_config": {"a": 1}}
        settings.write_text(json.dumps(json.loads(settings.read_text()) | change))
    with pytest.raises(AgentError, match=said) as error:
        load_agent("planner", AgentConfig(model=str(model), adapter=str(folder)))
    assert len(str(error.value).splitlines()) == 1 and "agents.planner.adapter" in str(error.value)


def test_a_run_with_an_adapter_is_restored_with_it(adapter, overrides, workspace):
    folder, _ = adapter
    typed = [f"agents.planner.adapter={folder}", "evaluation.systems=[]"]
    assert main([*overrides, *typed]) == 0
    card = json.loads((workspace / "run" / "outer" / "links" / "links.json").read_text())
    assert card["agents"]["planner"]["adapter"] == str(folder)
    system = rmas_train.load(workspace / "run")
    assert system.team.agents["planner"].adapter == str(folder)
    assert len(system.answer(["one two"])) == 1


def as_gguf(agent, path: Path, quantise: bool) -> None:
    """A llama.cpp file of a tiny Llama: its own tensors, names and key-value pairs."""
    config, tokenizer = agent.model.config, agent.tokenizer
    file = gguf.GGUFWriter(path, "llama")
    file.add_block_count(config.num_hidden_layers)
    file.add_context_length(config.max_position_embeddings)
    file.add_embedding_length(config.hidden_size)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_head_count(config.num_attention_heads)
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_rope_freq_base(10000.0)
    file.add_rope_dimension_count(config.head_dim)
    file.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    own = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    file.add_tokenizer_model("gpt2")
    file.add_token_list([token for token, _ in vocabulary])
    added = tokenizer.get_added_vocab()
    file.add_token_types([3 if token in added else 1 for token, _ in vocabulary])
    file.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in own["merges"]])
    file.add_eos_token_id(tokenizer.eos_token_id)
    file.add_bos_token_id(tokenizer.eos_token_id)
    file.add_chat_template(tokenizer.chat_template)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for key, tensor in agent.model.state_dict().items():
        name = key.removesuffix(".weight").replace("model.layers.", "blk.")
        for ours, theirs in names.items():
            name = name.replace(ours, theirs) if name.endswith(ours) else name
        data = tensor.float().numpy()
        kind = name.rpartition(".")[2]
        if kind in heads:  # llama.cpp interleaves the halves of each head
            n = heads[kind]
            shape = (n, 2, data.shape[0] // n // 2, *data.shape[1:])
            data = data.reshape(shape).swapaxes(1, 2).reshape(data.shape)
        data = np.ascontiguousarray(data)
        if quantise and data.ndim == 2 and data.shape[1] % 32 == 0:
            packed = gguf.quants.quantize(data, gguf.GGMLQuantizationType.Q8_0)
            file.add_tensor(f"{name}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            file.add_tensor(f"{name}.weight", data)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


@pytest.mark.parametrize("quantise", [False, True])
def test_a_gguf_file_is_an_agent(tmp_path, quantise):
    original = make_family("llama", "planner", make_tokenizer("planner"), head_dim=16)
    path = tmp_path / "tiny.gguf"
    as_gguf(original, path, quantise)
    agent = load_agent("planner", AgentConfig(model=str(path)))
    text = "one two red green"
    ids = agent.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == original.tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        found, wanted = agent.model(IDS).logits, original.model(IDS).logits
    assert (found - wanted).norm() < (2e-2 if quantise else 1e-5) * wanted.norm()
    assert agent.end_id == original.end_id and agent.dtype == torch.float32
    shape = read_shape("planner", AgentConfig(model=str(path)))
    assert shape.num_hidden_layers == original.model.config.num_hidden_layers


def test_a_damaged_gguf_file_is_one_line(tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(AgentError, match=r"agents\.planner\.model=.*tiny\.gguf cannot be") as error:
        load_agent("planner", AgentConfig(model=str(path)))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("module", "change", "said"),
    [
        ("peft", {"adapter": "x"}, "pip install peft"),
        ("bitsandbytes", {"quantization": "4bit"}, "pip install bitsandbytes"),
    ],
)
def test_a_package_that_is_missing_is_named(
    monkeypatch, agent_folders, tmp_path, module, change, said
):
    real = __import__("importlib.util", fromlist=["find_spec"]).find_spec
    for where in ("quantised", "adapters"):
        monkeypatch.setattr(
            f"rmas_train.loading.{where}.find_spec", lambda n: None if n == module else real(n)
        )
    if "adapter" in change:
        (tmp_path / "x").mkdir()
        change = {"adapter": str(tmp_path / "x")}
    with pytest.raises(AgentError, match=said):
        load_agent("planner", AgentConfig(model=str(agent_folders["planner"]), **change))


@pytest.mark.slow
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_gradients_flow_through_quantised_weights(bits, table, tmp_path):
    """Made at loading, saved, and loaded again as published; links train through them."""
    team = make_team({n: make_agent(n) for n in ("planner", "critic", "solver")})
    folder = str(tmp_path / "wide")  # its blocks are of 64 weights
    sizes = {"hidden_size": 128, "intermediate_size": 128, "head_dim": 32}
    wide = make_family("llama", "critic", **sizes)
    wide.model.save_pretrained(folder)
    wide.tokenizer.save_pretrained(folder)
    team.agents["critic"] = wide
    config = AgentConfig(model=folder, quantization=bits, dtype="bfloat16")
    critic = load_agent("critic", config)
    kinds = {type(m).__name__ for m in critic.model.modules()}
    assert kinds & {"Linear4bit", "Linear8bitLt"}
    team.agents["critic"] = critic
    team.prompts["critic"].agent = critic
    links = make_links(team)
    objective = OuterObjective(team, links, table(make_rows(3)), 2, 2)
    objective([0, 1, 2], 2).sum().backward()
    grad = links.outer["planner-critic"].main_path.weight.grad
    assert grad.isfinite().all() and grad.norm() > 0
    shape = read_shape("critic", config)
    planned = weight_bytes(shape_agent("critic", shape, config), shape, config)
    full = AgentConfig(model=folder, dtype="bfloat16")
    assert planned < weight_bytes(shape_agent("critic", shape, full), shape, full)
    critic.model.save_pretrained(tmp_path / "saved")
    shutil.copy(f"{folder}/tokenizer.json", tmp_path / "saved")
    shutil.copy(f"{folder}/tokenizer_config.json", tmp_path / "saved")
    for file in Path(folder).glob("*.jinja"):
        shutil.copy(file, tmp_path / "saved")
    again = load_agent("critic", AgentConfig(model=str(tmp_path / "saved"), dtype="bfloat16"))
    batch = embed_ids(critic, [[5, 6, 7]])
    torch.testing.assert_close(read_whole(again, batch), read_whole(critic, batch))
