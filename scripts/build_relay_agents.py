"""Pre-train the relay's tiny agents on one step each; writes ordinary Hugging Face folders.

Usage:
    python scripts/build_relay_agents.py [planner critic solver solver_dialect] [--threads 2]
    python scripts/build_relay_agents.py --measure     # one-step accuracy of the shipped agents

Seeded (the batch of step i depends on the agent's name and i alone) and resumable: a killed run
goes on from ``outputs/relay_agents/<agent>/state.safetensors``. About 20 minutes per agent on one
core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GraniteConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

ROOT = Path(__file__).resolve().parent.parent
RELAY = ROOT / "data_recipes" / "relay"
sys.path[:0] = [str(RELAY), str(ROOT / "scripts")]
import problems as relay  # noqa: E402
import relay_tokenizers  # noqa: E402

WORDS = [*relay.STATES, *relay.OPERATIONS, *map(str, range(10)), "start", "stop", "hint"]
FAMILIES = {
    "planner": (Qwen3Config, {"hidden_size": 144, "head_dim": 36}),
    "critic": (LlamaConfig, {"hidden_size": 128, "head_dim": 32}),
    # Grown from the critic, see grow(); with these values Granite's layers compute what Llama's do.
    "solver": (
        GraniteConfig,
        {"hidden_size": 136, "head_dim": 32, "attention_multiplier": 32**-0.5}
        | {"tie_word_embeddings": False},
    ),
    "solver_dialect": (None, {}),  # the solver renamed, see rename()
}
BATCH, BRANCHES = 96, 4  # problems per step, hints per problem
SMOOTH_STEPS, LR, SMOOTH_LR = 700, 1.5e-3, 6e-4
STEPS = 4000  # at most, until every length is solved; then the smooth part
MAX_END_TOKENS = 14  # end-of-text tokens that a message may carry after its pair
NOISE = 3.0  # largest noise on a hint, in units of the embeddings' rms
SOLVED = 0.03
LEARNT = 0.35  # lists grow by one operation when the smoothed state loss falls below this
NO_HINT = 0.15  # share of hint-less prompts


def state_names(agent: str) -> tuple[str, ...]:
    return relay.DIALECT if agent == "solver_dialect" else relay.STATES


def make_tokenizer(agent: str) -> PreTrainedTokenizerFast:
    names = state_names(agent)
    renamed = dict(zip(relay.STATES, names, strict=True)) if names != relay.STATES else {}
    return relay_tokenizers.build(agent, [*names, *WORDS[10:]], renamed)


def make_model(agent: str, tokenizer: PreTrainedTokenizerFast) -> torch.nn.Module:
    config_class, sizes = FAMILIES[agent]
    torch.manual_seed(int(hashlib.sha256(agent.encode()).hexdigest()[:8], 16))
    options = {
        "vocab_size": len(tokenizer),
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = config_class(**options | sizes)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


class Examples:
    """Token sequences ``prompt[hint] pair end...`` of one agent, drawn fresh for each step."""

    def __init__(self, agent: str, tokenizer: PreTrainedTokenizerFast) -> None:
        self.agent, self.names = agent, state_names(agent)
        self.end, self.pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": "@@ hint@@"}], tokenize=False, add_generation_prompt=True
        )
        before, hint, after = chat.split("@@")
        self.before, self.mark, self.after = (encode(tokenizer, t) for t in (before, hint, after))
        self.word = {w: encode(tokenizer, w) for w in [*self.names, *relay.STATES, *WORDS]}
        assert all(len(ids) == 1 for ids in self.word.values()), "a relay word is not one token"
        probe = next(relay.stream("probe"))
        assert self.words(probe.question) == encode(tokenizer, probe.question)

    def words(self, text: str) -> list[int]:
        return [self.word[w][0] for w in text.split()]

    def prompt(self, problem: relay.Problem, position: int | None, ends: int) -> tuple[list, slice]:
        """Prompt ids and where the hint stands in them; ``position`` None means no hint."""
        head = self.before + self.words(problem.question) + self.mark
        hint = []
        if position is not None:
            hint = self.words(problem.hint(position, self.names)) + [self.end] * ends
        return head + hint + self.after, slice(len(head), len(head) + len(hint))

    def batch(self, step: int, longest: int, is_smooth: bool) -> dict[str, Tensor]:
        """``BATCH`` problems with ``BRANCHES`` hints each, which share their question.

        A row is ``question [hint after pair] [hint after pair] ...``; a branch sees the question
        and itself, and its positions go on from the question's, so it reads as if it stood alone.
        """
        rng = random.Random(f"{self.agent}/{step}")
        # Ends are drawn for whole batches: less padding.
        ends, more = (rng.random() < (1 / 2 if is_smooth else 1 / 3) for _ in range(2))
        rows = []
        for _ in range(BATCH):
            problem = relay.draw(rng, max(rng.randint(1, longest) for _ in range(2)))
            head = self.before + self.words(problem.question) + self.mark
            rows.append((head, [self._branch(rng, problem, ends, more) for _ in range(BRANCHES)]))
        width = max(len(head) + sum(len(b[0]) for b in branches) for head, branches in rows)
        tensors = {
            "input_ids": torch.full((BATCH, width), self.pad),
            "position_ids": torch.zeros(BATCH, width, dtype=torch.long),
            "branch": torch.full((BATCH, width), -1),
            "labels": torch.full((BATCH, width), -100),
            "noisy": torch.zeros(BATCH, width),
            "state": torch.zeros(BATCH, width, dtype=torch.bool),  # predicts the pair's state
        }
        for i, (head, branches) in enumerate(rows):
            self._put(tensors, i, 0, 0, head, 0)
            at = len(head)
            for number, (ids, is_hint, begin) in enumerate(branches, start=1):
                self._put(tensors, i, at, len(head), ids, number)
                # Position t predicts token t + 1.
                target = torch.tensor(ids[begin:])
                tensors["labels"][i, at + begin - 1 : at + len(ids) - 1] = target
                tensors["state"][i, at + begin] = True
                tensors["noisy"][i, at : at + len(is_hint)] = torch.tensor(
                    is_hint, dtype=torch.float
                )
                tensors["noisy"][i, at + begin : at + len(ids)] = 0.3  # the rollout's own inputs
                at += len(ids)
        return tensors

    def _branch(
        self, rng: random.Random, problem: relay.Problem, ends: bool, more: bool
    ) -> tuple[list[int], list[bool], int]:
        """Ids of hint, chat marks and pair; which of the first are the hint; where the pair begins.

        The hinted state is any state, so that nothing but the hint tells it.
        """
        position, state, hint = 0, problem.start, []
        if rng.random() >= NO_HINT:
            end = len(problem.operations)  # its neighbourhood more often, or it stays the worst
            position = rng.choice([rng.randint(0, end), rng.randint(max(0, end - 2), end)])
            state = rng.randrange(10)
            hint = self.words(f"{position} {self.names[state]}")
            hint += [self.end] * (rng.randint(0, MAX_END_TOKENS) * ends)
        if position < len(problem.operations):
            state = relay.PERMUTATIONS[problem.operations[position]][state]
            position += 1
        pair = self.words(f"{position} {self.names[state]}")
        ending = [self.end] * (1 + rng.randint(0, MAX_END_TOKENS) * more)
        ids = hint + self.after + pair + ending
        return ids, [True] * len(hint), len(hint) + len(self.after)

    def _put(self, tensors: dict, row: int, at: int, position: int, ids: list, branch: int) -> None:
        here = slice(at, at + len(ids))
        tensors["input_ids"][row, here] = torch.tensor(ids)
        tensors["position_ids"][row, here] = torch.arange(position, position + len(ids))
        tensors["branch"][row, here] = branch


def attention_mask(branch: Tensor) -> Tensor:
    """Additive (batch, 1, length, length): causal, the question (0) and one's own branch only."""
    query, key = branch[:, :, None], branch[:, None, :]
    causal = torch.ones(branch.shape[1], branch.shape[1], dtype=torch.bool).tril()
    allowed = causal & ((key == 0) | (key == query))
    return torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[:, None]


def loss_of(
    model: torch.nn.Module, batch: dict[str, Tensor], step: int, smooth: bool
) -> tuple[Tensor, float]:
    """Mean cross-entropy on pairs and end tokens, and on states alone; noisy when ``smooth``."""
    embeds = model.get_input_embeddings()(batch["input_ids"])
    if smooth:
        generator = torch.Generator().manual_seed(step)
        rms = embeds.detach().pow(2).mean().sqrt()
        level = NOISE * torch.rand(BATCH, 1, 1, generator=generator)
        noise = torch.randn(embeds.shape, generator=generator)
        embeds = embeds + noise * level * rms * batch["noisy"][..., None]
    hidden = model.model(
        inputs_embeds=embeds,
        attention_mask=attention_mask(batch["branch"]),
        position_ids=batch["position_ids"],
        use_cache=False,
    ).last_hidden_state
    target = batch["labels"]
    losses = torch.nn.functional.cross_entropy(
        model.lm_head(hidden[target >= 0]),
        target[target >= 0],
        label_smoothing=0.02 if smooth else 0.0,
        reduction="none",
    )
    return losses.mean(), losses[batch["state"][target >= 0]].mean().item()


def learning_rate(step: int, smooth_from: int | None) -> float:
    """Warm-up and a plateau until every length is solved, then a lower cycle to 0."""
    if smooth_from is None:
        return LR * min(1.0, (step + 1) / 150)
    done = (step - smooth_from) / SMOOTH_STEPS
    return SMOOTH_LR * min(1.0, done * 20 + 0.05) * (1 - done) + 1e-6


@torch.no_grad()
def measure(agent: str, folder: Path, problems_per_position: int = 3000) -> dict[str, float]:
    """One-step accuracy of generated text on fresh problems, by hint position (0: no hint)."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    examples, rng = Examples(agent, tokenizer), random.Random(f"measure/{agent}")
    accuracy = {}
    for position in range(relay.MAX_OPERATIONS + 1):
        right = 0
        for _ in range(problems_per_position // 500):
            chosen = []
            while len(chosen) < 500:
                problem = relay.draw(rng)
                if len(problem.operations) >= position:
                    chosen.append(problem)
            prompts = [
                examples.prompt(p, position or None, rng.choice([0, rng.randint(0, 14)]))[0]
                for p in chosen
            ]
            width = max(map(len, prompts))
            ids = torch.tensor([[examples.pad] * (width - len(p)) + p for p in prompts])
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
            out = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=False
            )
            texts = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
            wanted = [p.hint(position + 1, examples.names) for p in chosen]
            right += sum(t.strip() == w for t, w in zip(texts, wanted, strict=True))
        accuracy[str(position)] = right / (problems_per_position // 500 * 500)
    accuracy["all"] = sum(accuracy.values()) / len(accuracy)
    return accuracy


def train(agent: str, work: Path, out: Path) -> None:
    tokenizer = make_tokenizer(agent)
    model = make_model(agent, tokenizer)
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    examples, state_file = Examples(agent, tokenizer), work / agent / "state.safetensors"
    start, longest, smoothed, smooth_from = 0, 1, 2.3, None
    if agent == "solver":
        grow(model, tokenizer, out)
        longest, smooth_from = relay.MAX_OPERATIONS, 0
    if state_file.exists():
        start, longest, smoothed, smooth_from = load_state(state_file, parameters, optimizer)
        print(f"{agent}: resumed at step {start}", flush=True)
    began = time.perf_counter()
    for step in range(start, STEPS + SMOOTH_STEPS):
        optimizer.param_groups[0]["lr"] = learning_rate(step, smooth_from)
        is_smooth = smooth_from is not None
        batch = examples.batch(step, longest, is_smooth)
        loss, state_loss = loss_of(model, batch, step, is_smooth)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        smoothed = 0.8 * smoothed + 0.2 * state_loss
        if smoothed < LEARNT and longest < relay.MAX_OPERATIONS:
            longest, smoothed = longest + 1, 2.3
        if smooth_from is None and (smoothed < SOLVED or step + 1 == STEPS):
            smooth_from = step + 1
        if step % 50 == 49:
            seconds = time.perf_counter() - began
            numbers = f"loss {loss.item():.4f} state {smoothed:.4f} longest {longest}"
            print(f"{agent} {step + 1} {numbers} smooth {smooth_from} {seconds:.0f}s", flush=True)
        if step % 200 == 199:
            progress = (step + 1, longest, smoothed, smooth_from)
            save_state(state_file, parameters, optimizer, progress)
        if smooth_from is not None and step + 1 == smooth_from + SMOOTH_STEPS:
            break
    model.save_pretrained(out / agent)
    tokenizer.save_pretrained(out / agent)


@torch.no_grad()
def grow(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Start the solver as the critic in a wider, randomly rotated space with its own vocabulary.

    With U (136 x 128, orthonormal columns) the residual stream x becomes U x: what writes to it is
    multiplied by U, what reads from it by U's transpose, after the norms' gains (and the ratio of
    the two widths' rms) are folded into it. The function is the critic's to rounding; embeddings
    and hidden states have nothing in common with the critic's. Training goes on from there.
    """
    critic = AutoModelForCausalLM.from_pretrained(out / "critic", dtype=torch.float32)
    old_rows = relay_tokenizers.bytes_to_ids(AutoTokenizer.from_pretrained(out / "critic"))
    wide, narrow = model.config.hidden_size, critic.config.hidden_size
    u, _ = torch.linalg.qr(torch.randn(wide, narrow, generator=torch.Generator().manual_seed(0)))
    shrink = (narrow / wide) ** 0.5
    for new, old in zip(model.model.layers, critic.model.layers, strict=True):
        gain = old.input_layernorm.weight
        for name in ("q_proj", "k_proj", "v_proj"):
            weight = getattr(old.self_attn, name).weight
            getattr(new.self_attn, name).weight.copy_(weight * gain @ u.T * shrink)
        new.self_attn.o_proj.weight.copy_(u @ old.self_attn.o_proj.weight)
        gain = old.post_attention_layernorm.weight
        for name in ("gate_proj", "up_proj"):
            weight = getattr(old.mlp, name).weight
            getattr(new.mlp, name).weight.copy_(weight * gain @ u.T * shrink)
        new.mlp.down_proj.weight.copy_(u @ old.mlp.down_proj.weight)
    rows = critic.get_input_embeddings().weight
    head = rows * critic.model.norm.weight
    for text, index in relay_tokenizers.bytes_to_ids(tokenizer).items():
        if text in old_rows:
            model.get_input_embeddings().weight[index] = u @ rows[old_rows[text]]
            model.lm_head.weight[index] = u @ head[old_rows[text]] * shrink
    critic_tokenizer = AutoTokenizer.from_pretrained(out / "critic")
    marks = zip(relay_tokenizers.MARKS["solver"], relay_tokenizers.MARKS["critic"], strict=True)
    for new_mark, old_mark in marks:
        index = tokenizer.convert_tokens_to_ids(new_mark)
        old = critic_tokenizer.convert_tokens_to_ids(old_mark)
        model.get_input_embeddings().weight[index] = u @ rows[old]
        model.lm_head.weight[index] = u @ head[old] * shrink


def rename(out: Path) -> None:
    """The dialect's decoder: the solver with its ten state tokens under other names.

    Embedding rows move with their strings; strings that the solver's vocabulary lacks (pieces of
    words that the relay never uses) get a row of zeros.
    """
    model = AutoModelForCausalLM.from_pretrained(out / "solver", dtype=torch.float32)
    old = AutoTokenizer.from_pretrained(out / "solver").get_vocab()
    tokenizer = make_tokenizer("solver_dialect")
    solver_name = dict(zip(relay.DIALECT, relay.STATES, strict=True))
    rows, head = torch.zeros(2, len(tokenizer), model.config.hidden_size)
    for token, index in tokenizer.get_vocab().items():
        word = token.removeprefix("\u0120")
        source = (
            f"\u0120{solver_name[word]}" if token[0] == "\u0120" and word in solver_name else token
        )
        if source in old:
            rows[index] = model.get_input_embeddings().weight[old[source]].detach()
            head[index] = model.lm_head.weight[old[source]].detach()
    model.resize_token_embeddings(len(tokenizer))
    model.get_input_embeddings().weight.data.copy_(rows)
    model.lm_head.weight.data.copy_(head)
    model.save_pretrained(out / "solver_dialect")
    tokenizer.save_pretrained(out / "solver_dialect")


def save_state(
    path: Path, parameters: dict, optimizer: torch.optim.Optimizer, progress: tuple
) -> None:
    tensors = {f"model.{n}": p.detach().clone() for n, p in parameters.items()}
    for name, p in parameters.items():
        moments = optimizer.state[p]
        tensors |= {f"{k}.{name}": moments[k] for k in ("exp_avg", "exp_avg_sq", "step")}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path.with_suffix(".tmp"), metadata={"progress": json.dumps(progress)})
    path.with_suffix(".tmp").replace(path)


def load_state(
    path: Path, parameters: dict, optimizer: torch.optim.Optimizer
) -> tuple[int, int, float, int | None]:
    """Step, longest list, smoothed loss and begin of the smooth part of a killed run."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        progress = json.loads(file.metadata()["progress"])
    for name, p in parameters.items():
        p.data.copy_(tensors[f"model.{name}"])
        optimizer.state[p] = {k: tensors[f"{k}.{name}"] for k in ("exp_avg", "exp_avg_sq", "step")}
    step, longest, smoothed, smooth_from = progress
    return step, longest, smoothed, smooth_from


def write_hashes(out: Path) -> None:
    files = sorted(p for p in out.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(out)}" for p in files]
    (out / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("agents", nargs="*", default=list(FAMILIES), help="default: all four")
    parser.add_argument("--out", type=Path, default=RELAY / "agents")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "relay_agents")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", action="store_true", help="only measure the agents in --out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for agent in args.agents:
        if not args.measure and agent == "solver_dialect":
            rename(args.out)
        elif not args.measure:
            train(agent, args.work, args.out)
    if not args.measure:
        write_hashes(args.out)
        return
    table = {agent: measure(agent, args.out / agent) for agent in args.agents}
    record = {
        "command": "python scripts/build_relay_agents.py --measure",
        "problems_per_position": 3000,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "one_step_accuracy": table,
    }
    (RELAY / "one_step_accuracy.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
