"""A single agent that is trained itself: by LoRA, or all of its weights."""

import json
import shutil

import pytest
import torch
from tiny import make_agent, make_rows
from torch.nn import functional as F

import rmas_train
from rmas_train.__main__ import main
from rmas_train.agents.prompts import Prompt, tokenise_whole
from rmas_train.compose import config_from
from rmas_train.engine.inputs import embed_prompts
from rmas_train.engine.kv_cache import new_cache
from rmas_train.stages.answer_trainer import AnswerTrainer, Examples, collate, finetune, trainable
from rmas_train.stages.finetune import rows_in_order
from rmas_train.stages.train import outer_sampler
from rmas_train.support.output import stop_log

FEW = ["training.inner.steps=1", "training.outer.steps=2"]


@pytest.fixture(autouse=True)
def logs():
    yield
    stop_log()


@pytest.fixture
def single(workspace):
    path = workspace / "prompts" / "single.yaml"
    path.write_text(json.dumps({"user": "<<question>> go"}))
    return path


def naive_loss(agent, prompt, row):
    """Summed cross-entropy of one answer, and its number of tokens: one row, no padding."""
    (encoded,) = prompt.encode([row], 1, first=True)
    (answer,) = tokenise_whole(agent, [row["answer"]])
    batch = embed_prompts(agent, [encoded], {}, [answer])
    hidden = new_cache(agent, None).read(batch)[0, -len(answer) - 1 : -1]
    loss = F.cross_entropy(agent.logits(hidden).double(), torch.tensor(answer), reduction="sum")
    return loss, len(answer)


@pytest.mark.parametrize("name", ["planner", "critic", "solver"])
def test_the_loss_is_the_mean_over_answer_tokens(agents64, name, tmp_path):
    agent, rows = agents64[name], make_rows(5)
    rows[1]["answer"] += " two three"
    prompt = Prompt(agent, {"user": "<<question>> go"})
    examples = Examples(prompt, rows)
    batch = collate([examples[i] for i in range(5)], agent.pad_id)
    found = AnswerTrainer.compute_loss(None, agent.model, dict(batch))
    each = [naive_loss(agent, prompt, row) for row in rows]
    wanted = sum(loss for loss, _ in each) / sum(count for _, count in each)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def few_arguments(steps):
    return {
        "max_steps": steps,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "save_steps": 2,
        "logging_steps": 1,
        "seed": 0,
    }


@pytest.mark.parametrize("method", ["lora", "sft"])
def test_logged_losses_are_those_of_the_rows_in_their_order(method, tmp_path):
    """At a learning rate of 0 every step's loss is that of the agent as it was."""
    agent, rows = make_agent("solver"), make_rows(12)
    prompt = Prompt(agent, {"user": "<<question>> go"})
    wanted = []
    for step in range(3):
        each = [naive_loss(agent, prompt, row) for row in rows[4 * step : 4 * step + 4]]
        wanted.append(float(sum(x for x, _ in each)) / sum(n for _, n in each))
    model = trainable(agent, method, 2, 4, 0)
    arguments = few_arguments(3) | {"learning_rate": 0.0}
    log = finetune(model, Examples(prompt, rows), arguments, tmp_path, False)
    assert [line["loss"] for line in log] == pytest.approx(wanted, rel=1e-3)


def test_the_rows_are_those_of_the_outer_stage_in_its_order(overrides):
    config = config_from([*overrides, *FEW])

    class Loaded:
        train = rmas_train.data.rows.read_table(rmas_train.support.files.Path("data/train.jsonl"))

    sampler = outer_sampler(config, Loaded)
    order = [i for step in range(2) for i in sampler.rows(step)]
    found = rows_in_order(config, Loaded, 20)
    assert found == [Loaded.train.rows[order[i % 8]] for i in range(20)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "sft"])
def test_a_fine_tuned_agent_learns_its_rows_and_has_a_row_of_results(
    method, overrides, workspace, single
):
    """Evaluated on the rows that it learnt; the agent of the system stays as it was."""
    shutil.copy(workspace / "data" / "train.jsonl", workspace / "data" / "test.jsonl")
    typed = [*overrides, *FEW, "data.allow_shared_rows=true", "finetune.lr=0.01"]
    typed += ["training.outer.steps=6", "training.outer.depth=fixed"]  # every row, and again
    typed += [f"evaluation.systems=[single,{method}]", "finetune.steps=300"]
    typed += ["finetune.rank=8", "finetune.alpha=8"]
    assert main(typed) == 0
    rows = json.loads((workspace / "run" / "results.json").read_text())["rows"]
    right = {(r["system"], r["control"]): r["accuracy"] for r in rows if r["rounds"] == 1}
    assert right[method, None] > 0.9 > 0.5 > right["single", "solver"]
    folder = workspace / "run" / method
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 30 and not (folder / "checkpoints").exists()
    before = (folder / "identity.json").stat().st_mtime_ns
    assert main([*typed, "resume=auto"]) == 0
    assert main([*typed, f"stage={method}"]) == 0
    assert (folder / "identity.json").stat().st_mtime_ns == before
    assert main([*typed, f"stage={method}", "finetune.steps=1"]) == 0
    assert (workspace / "run" / "earlier" / "1" / method / "model").is_dir()


def test_a_stopped_training_goes_on_to_the_same_weights(overrides, workspace, single, monkeypatch):
    typed = [*overrides, *FEW, "stage=lora", "finetune.steps=6", "finetune.save_every=2"]
    assert main([*typed, f"run_dir={workspace / 'whole'}"]) == 0
    step, seen = AnswerTrainer.training_step, []

    def stopping(self, *given, **more):
        seen.append(1)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return step(self, *given, **more)

    monkeypatch.setattr(AnswerTrainer, "training_step", stopping)
    assert main(typed) == 130
    assert not (workspace / "run" / "lora" / "model").exists()
    monkeypatch.setattr(AnswerTrainer, "training_step", step)
    assert main([*typed, "resume=auto"]) == 0
    one, other = (workspace / n / "lora" / "model" for n in ("whole", "run"))
    name = "adapter_model.safetensors"
    assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "needles"),
    [
        (["finetune.agent=nobody"], ["finetune.agent=nobody", "planner"]),
        (["finetune.micro_batch_size=3"], ["micro_batch_size=3", "4 rows"]),
        (["finetune.rank=0"], ["finetune.rank=0"]),
        (["finetune.lr=-1"], ["finetune.lr=-1"]),
        ([], ["single.yaml", "write the prompt"]),
    ],
)
def test_what_cannot_be_trained_is_told_first(options, needles, overrides, workspace, capsys):
    assert main([*overrides, *FEW, "stage=lora", *options]) == 2
    said = capsys.readouterr().err
    assert all(needle in said for needle in needles) and said.count("\n") == 1
    assert not (workspace / "run" / "lora").exists()


def test_without_training_it_is_not_applicable(overrides, workspace, single, capsys):
    assert main([*overrides, *FEW, "evaluation.systems=[]"]) == 0
    run = workspace / "run"
    assert main(["stage=eval", f"run={run}", "evaluation.systems=[lora]"]) == 0
    assert "lora: not applicable: not trained; make it with stage=lora" in capsys.readouterr().out
