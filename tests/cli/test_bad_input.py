"""Wrong things typed on purpose: one line that names the place and the remedy, exit code 2."""

import hashlib
import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from rmas_train.__main__ import main
from rmas_train.support.output import stop_log


def fails(capsys, argv, *needles):
    """``main`` returns 2 and prints one line that holds every needle."""
    assert main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and error.count("error:") == 1
    assert len(error.splitlines()) == 1, error
    for needle in needles:
        assert needle in error, error
    stop_log()


@pytest.mark.parametrize(
    ("typed", "needles"),
    [
        (["roundz=3"], ["roundz", "Did you mean 'rounds'"]),
        (["training.outer.lrr=1"], ["training.outer.lrr", "training.outer.lr"]),
        (["rounds=0"], ["rounds=0", "1 or more"]),
        (["rounds=two"], ["rounds", "Integer"]),
        (["latent_length=-1"], ["latent_length=-1", "0 or more"]),
        (["latent_length=0"], ["latent_length=0", "stage=eval"]),
        (["stage=iner"], ["stage=iner", "Did you mean 'inner'"]),
        (["agents=nobody"], ["agents=nobody", "relay"]),
        (["links.variant=mlp"], ["links.variant=mlp"]),
        (["links.norm=layernorm", "links.variant=linear"], ["closing LayerNorm"]),
        (["links.variant=2layer"], ["res_2layer"]),
        (["data.answer_pattern=x"], ["(?P<answer>"]),
        (["training.outer.steps=0"], ["steps=0", "1 or more"]),
        (["training.outer.depth=deep"], ["depth=deep"]),
        (["tracking=[wanbd]"], ["Did you mean 'wandb'"]),
        (["rounds"], ["rounds=<value>"]),
        (["--fast"], ["--fast", "key=value"]),
        (["+data._target_=os.system"], ["_target_"]),
        (["data.recipe=rely"], ["data.recipe=rely", "relay"]),
        (["runtime.processes=2"], ["2 processes", "torchrun"]),
        (["stage=eval", "run=nowhere"], ["run=nowhere"]),
        (["-m", "rounds=1,zero"], ["rounds", "Integer"]),
        (["-m", "rounds=1,0"], ["rounds=0"]),
        (["rounds=1,2"], ["rounds=1,2:", "add -m"]),
        (["stage=trayn"], ["stage=trayn: no such choice", "outer"]),
        (["agents.plannr.model=x"], ["agents.plannr.model", "Did you mean 'planner'"]),
        (["data.folder="], ["data.folder is empty"]),
        (["training.outer.gradient=windw"], ["gradient=windw", "Did you mean 'window'"]),
        (["training.outer.gradient=window"], ["gradient=window", "need gradient_steps"]),
        (["training.outer.gradient_steps=2"], ["gradient=full", "take none"]),
        (
            ["training.outer.gradient=first_step", "training.outer.latents=teacher_forced"],
            ["gradient=first_step", "use gradient=full"],
        ),
        (["evaluation.decoding=fast"], ["decoding=fast", "static"]),
        (["training.outer.gradient_rounds=0"], ["gradient_rounds=0", "1 or more"]),
        (["training.outer.feedback=gold_answer"], ["latents=teacher_forced"]),
        (["topology.decoder=planner", "rounds=1"], ["no link can be reached by a gradient"]),
        (["training.outer.prefix_cache_gib=-1"], ["prefix_cache_gib=-1"]),
        (["rounds=1000000000000"], ["rounds=1000000000000", "10000 or less"]),
        (["training.outer.steps=1" + "0" * 5000], ["training.outer.steps", "5001 digits"]),
        (["training.outer.lr=inf"], ["lr=inf is too large"]),
        (["name=a\x1b[31m"], ["control characters"]),
        (["runtime.threads=1000000"], ["runtime.threads=1000000", "1024 or less"]),
    ],
)
def test_options(capsys, overrides, typed, needles):
    base = [o for o in overrides if o.split("=")[0] not in {t.split("=")[0] for t in typed}]
    fails(capsys, [*base, *typed], *needles)


def test_unknown_agent_in_a_topology(capsys, overrides):
    fails(capsys, [*overrides, "topology.decoder=solvr"], "solvr", "Did you mean 'solver'")


def test_missing_agent_folder(capsys, overrides, workspace):
    typed = [*overrides, f"agents.critic.model={workspace}/nothing/here"]
    fails(capsys, typed, "agents.critic.model", "no such folder")


def test_a_folder_that_is_no_agent(capsys, overrides, workspace):
    fails(capsys, [*overrides, f"agents.critic.model={workspace}/data"], "no config.json")


def test_row_without_a_question(capsys, overrides, workspace):
    with (workspace / "data" / "train.jsonl").open("a") as file:
        file.write(json.dumps({"answer": "x"}) + "\n")
    fails(capsys, overrides, "train.jsonl, line 25", "no question")


def test_empty_data_set(capsys, overrides, workspace):
    (workspace / "data" / "test.jsonl").write_text("")
    fails(capsys, overrides, "test.jsonl", "no rows")


def test_prompt_without_its_slot(capsys, overrides, workspace):
    (workspace / "prompts" / "solver.yaml").write_text('user: "<<question>>"')
    fails(capsys, overrides, "solver.yaml", "<<message:critic>>")


def test_prompt_with_an_unknown_column(capsys, overrides, workspace):
    (workspace / "prompts" / "solver.yaml").write_text('user: "<<quest>> <<message:critic>>"')
    fails(capsys, overrides, "train.jsonl, line 1", "'quest'", "Did you mean 'question'")


def test_answer_longer_than_max_length(capsys, overrides):
    fails(
        capsys, [*overrides, "data.max_length=10"], "train.jsonl, line 1", "data.max_length is 10"
    )


def test_no_role_text(capsys, overrides):
    typed = [*overrides, "data.role_texts.critic=refinedplan", "stage=inner"]
    fails(capsys, typed, "refinedplan", "Did you mean 'refined_plan'")


def test_every_missing_role_text_is_named(capsys, overrides):
    typed = ["data.role_texts.critic=x1", "data.role_texts.planner=x2", "stage=inner"]
    fails(capsys, [*overrides, *typed], "'x1', 'x2'", "data.role_texts.<agent>=<column>")


def test_outer_without_inner_links(capsys, overrides, workspace):
    fails(capsys, [*overrides, "stage=outer"], "no inner links", "stage=inner run_dir=")
    assert not (workspace / "run" / "outer").exists()


def test_run_dir_that_is_not_writable(capsys, overrides, workspace):
    (workspace / "file").write_text("")
    fails(capsys, [*overrides, f"run_dir={workspace}/file/run"], "run_dir=", "cannot be written")


def test_report_of_nothing(capsys, overrides):
    fails(capsys, [*overrides, "stage=report"], "no eval/results.json")


@pytest.fixture
def trained(overrides, workspace, capsys):
    """A finished inner stage."""
    assert main([*overrides, "stage=inner"]) == 0
    capsys.readouterr()
    return workspace / "run" / "inner" / "links"


def test_links_made_for_other_agents(capsys, overrides, trained, agent_folders):
    typed = [*overrides, "stage=outer", f"agents.critic.model={agent_folders['planner']}"]
    fails(capsys, typed, "links.json", "critic", "width", "agents=")


def test_links_made_for_agents_with_other_weights(
    capsys, overrides, trained, workspace, agent_folders
):
    from tiny import make_agent

    other = workspace / "other"
    shutil.copytree(agent_folders["critic"], other)
    model = make_agent("critic").model
    model.model.norm.weight.data += 1
    model.save_pretrained(other)
    typed = [*overrides, "stage=outer", f"agents.critic.model={other}"]
    fails(capsys, typed, "links.json", "critic", "fingerprint")


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove"])
def test_corrupt_links(capsys, overrides, trained, damage):
    path = trained / "links.safetensors"
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    fails(capsys, [*overrides, "stage=outer"], "links.safetensors", "again")


def test_a_damaged_card(capsys, overrides, trained):
    (trained / "links.json").write_text("{")
    fails(capsys, [*overrides, "stage=outer"], "links.json", "not JSON")


def test_links_of_another_variant(capsys, overrides, trained):
    typed = [*overrides, "stage=outer", "links.variant=res_2layer", f"inner={trained}"]
    fails(capsys, typed, "links.safetensors", "unknown key inner.")


@pytest.mark.parametrize(
    ("row", "needle"),
    [
        ('{"question": "one", "answer": "\\ud800"}', "surrogate"),
        ('{"question": "one", "answer": "a", "answer": "b"}', "'answer' stands twice"),
        ('{"question": "one", "x": ' + "[" * 100_000, "nested too deeply"),
        ('{"question": "one", "x": ' + "9" * 5000 + "}", "thousands of digits"),
    ],
)
def test_rows_that_stop_the_parser(capsys, overrides, workspace, row, needle):
    with (workspace / "data" / "train.jsonl").open("a") as file:
        file.write(row + "\n")
    fails(capsys, overrides, "train.jsonl, line 25", needle)


def test_a_byte_order_mark_is_no_error(overrides, workspace):
    path = workspace / "data" / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert main([*overrides, "stage=inner"]) == 0
    stop_log()


def bomb(levels):
    """A few lines of YAML for 9 to the power of ``levels`` values."""
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels + 1)]
    return "\n".join(["a0: &a0 [x, x]", *lines, ""])


def test_anchors_that_multiply(capsys, overrides, workspace):
    text = bomb(20) + "user: a\nsystem: *a20\n"
    (workspace / "prompts" / "solver.yaml").write_text(text)
    fails(capsys, overrides, "solver.yaml", "anchors that multiply")


def test_a_prompt_may_hold_private_use_characters(overrides, workspace):
    text = {"user": "<<question>> \ue0000\ue001 <<message:critic>>"}
    (workspace / "prompts" / "solver.yaml").write_text(json.dumps(text))
    assert main([*overrides, "stage=inner"]) == 0
    stop_log()


def test_a_flipped_bit_in_links(capsys, overrides, trained):
    path = trained / "links.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-10] ^= 1
    path.write_bytes(raw)
    fails(capsys, [*overrides, "stage=outer"], "inner/links", "not what was written", "again")


@pytest.mark.parametrize(
    ("key", "value", "needle"),
    [
        ("rounds", "two", "key rounds is 'two', not a whole number"),
        ("agents", {"x": {}}, "key agents.x.dtype is missing"),
        ("links", {"variant": 3}, "key links.variant is 3, not a text"),
        ("prompts", {}, "key prompts has none for"),
    ],
)
def test_a_card_of_wrong_types(capsys, overrides, trained, key, value, needle):
    card = json.loads((trained / "links.json").read_text())
    if key == "links":
        value = card["links"] | value
    (trained / "links.json").write_text(json.dumps(card | {key: value}))
    fails(capsys, [*overrides, "stage=outer"], "links.json", needle, "again")


def test_a_saved_config_that_is_no_config(capsys, overrides, trained, workspace):
    (workspace / "run" / "outer").mkdir()
    (workspace / "run" / "outer" / "config.yaml").write_text("rounds: [")
    typed = ["stage=eval", f"run={workspace / 'run'}"]
    fails(capsys, typed, "outer/config.yaml", "mend the file")


def seal(step):
    """A manifest that fits what lies in a checkpoint."""
    names = ("state.json", *(f"{n}.safetensors" for n in ("links", "optimizer", "random")))
    files = {}
    for name in names:
        raw = (step / name).read_bytes()
        files[name] = {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    (step / "manifest.json").write_text(json.dumps({"format": 1, "files": files}))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["step"], 10**9),
        (["state", "schedule", "last_epoch"], "one"),
        (["state", "schedule", "step"], 1),
        (["state", "callbacks", "LinkWatch"], 3),
        (["state", "updates"], []),
    ],
)
def test_a_sealed_checkpoint_with_a_wrong_state(capsys, overrides, workspace, trained, keys, value):
    step = workspace / "run" / "inner" / "checkpoints" / "step_00000003"
    state = json.loads((step / "state.json").read_text())
    at = state
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    (step / "state.json").write_text(json.dumps(state))
    seal(step)
    typed = [*overrides, "stage=inner", f"resume={step}"]
    fails(capsys, typed, "checkpoint", keys[-1])


def test_a_sealed_checkpoint_with_nan(capsys, overrides, workspace, trained):
    step = workspace / "run" / "inner" / "checkpoints" / "step_00000003"
    tensors = load_file(step / "optimizer.safetensors")
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, step / "optimizer.safetensors")
    seal(step)
    fails(capsys, [*overrides, "stage=inner", f"resume={step}"], "optimizer", "NaN", "resume from")


@pytest.mark.slow
def test_metrics_that_a_report_cannot_read(capsys, overrides, workspace):
    assert main(overrides) == 0
    capsys.readouterr()
    (workspace / "run" / "outer" / "metrics.jsonl").write_text('{"step": 0}\n')
    fails(
        capsys,
        [*overrides, "stage=report"],
        "metrics.jsonl, line 1",
        "key gradient_norms is missing",
    )
