"""Fine-tune the relay's agents into the mixture's: three experts and a summarizer.

Usage:
    python scripts/build_relay_experts.py [math code science summarizer]
    python scripts/build_relay_experts.py --measure    # one-step accuracy of the shipped agents

An expert applies the next operation if it is one of its own two, and otherwise repeats the pair it
was given. The summarizer has three slots; it takes the pair that is furthest and applies one more
operation, of any kind. Seeded; minutes per agent. Weights are saved in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parent))
import build_relay_agents as base
from build_relay_agents import relay

BASES = {"math": "planner", "code": "critic", "science": "solver", "summarizer": "planner"}
STEPS = {"math": 220, "code": 300, "science": 300, "summarizer": 320}
LR = 6e-4
base.BATCH = 48  # they know the operations already
base.MAX_END_TOKENS = 6  # so latent lengths of 2 to 8


def pair_after(problem: relay.Problem, position: int, state: int, known: str) -> tuple[int, int]:
    """One step from a pair by whoever knows these operations; others repeat it."""
    if position < len(problem.operations) and problem.operations[position] in known:
        return position + 1, relay.PERMUTATIONS[problem.operations[position]][state]
    return position, state


class Examples(base.Examples):
    """What an expert, or the summarizer, reads and should write."""

    def __init__(self, agent: str, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(agent, tokenizer)
        # A template that ends in a space: within a whole text it is part of the next word's token.
        space = base.encode(tokenizer, " ")
        if self.before[-len(space) :] == space:
            self.before = self.before[: -len(space)]

    def _pair(self, pair: tuple[int, int]) -> list[int]:
        return self.words(f"{pair[0]} {self.names[pair[1]]}")

    def _slots(self, problem: relay.Problem, pair: tuple[int, int]) -> list[tuple[int, int]]:
        """What stands in the slots when the system holds this pair."""
        if self.agent != "summarizer":
            return [pair]
        return [pair_after(problem, *pair, "".join(own)) for own in relay.EXPERTS.values()]

    def target(self, problem: relay.Problem, slots: list[tuple[int, int]]) -> tuple[int, int]:
        known = "".join(relay.EXPERTS.get(self.agent, relay.OPERATIONS))
        return pair_after(problem, *max(slots), known)

    def prompt(
        self, problem: relay.Problem, position: int | None, ends: int
    ) -> tuple[list[int], slice]:
        """As the system would ask when it holds the true pair at ``position``; None: empty."""
        head = self.before + self.words(problem.question) + self.mark
        body, _ = self._body(problem, self._held(problem, position), ends)
        return head + body + self.after, slice(len(head), len(head) + len(body))

    def wanted(self, problem: relay.Problem, position: int | None) -> str:
        held = self._held(problem, position)
        slots = [(0, problem.start)] if held is None else self._slots(problem, held)
        reached, state = self.target(problem, slots)
        return f"{reached} {self.names[state]}"

    def _held(self, problem: relay.Problem, position: int | None) -> tuple[int, int] | None:
        return None if position is None else (position, problem.state_after(position))

    def _body(
        self, problem: relay.Problem, held: tuple[int, int] | None, ends: int
    ) -> tuple[list[int], list[bool]]:
        """Ids from the first slot to the end of the prompt's text, and which are message."""
        count = len(relay.EXPERTS) if self.agent == "summarizer" else 1
        slots = [[]] * count
        if held is not None:
            slots = [self._pair(p) + [self.end] * ends for p in self._slots(problem, held)]
        ids: list[int] = []
        is_hint: list[bool] = []
        for i, slot in enumerate(slots):
            between = self.mark if i else []
            ids += between + slot
            is_hint += [False] * len(between) + [True] * len(slot)
        return ids, is_hint

    def _branch(
        self, rng: random.Random, problem: relay.Problem, ends: bool, more: bool
    ) -> tuple[list[int], list[bool], int]:
        held, count = None, len(problem.operations)
        if rng.random() >= base.NO_HINT:
            position = rng.choice([rng.randint(0, count), rng.randint(max(0, count - 2), count)])
            held = position, rng.randrange(10)
        body, is_hint = self._body(problem, held, rng.randint(0, base.MAX_END_TOKENS) * ends)
        slots = [(0, problem.start)] if held is None else self._slots(problem, held)
        pair = self._pair(self.target(problem, slots))
        ending = [self.end] * (1 + rng.randint(0, base.MAX_END_TOKENS) * more)
        return body + self.after + pair + ending, is_hint, len(body) + len(self.after)


def train(agent: str, out: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base.RELAY / "agents" / BASES[agent])
    folder = base.RELAY / "agents" / BASES[agent]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    examples, began = Examples(agent, tokenizer), time.perf_counter()
    for step in range(STEPS[agent]):
        done = step / STEPS[agent]
        optimizer.param_groups[0]["lr"] = LR * min(1.0, step / 50 + 0.02) * (1 - done) + 1e-6
        batch = examples.batch(step, relay.MAX_OPERATIONS, is_smooth=True)
        loss, state_loss = base.loss_of(model, batch, step, smooth=True)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 49:
            seconds = time.perf_counter() - began
            print(
                f"{agent} {step + 1} loss {loss.item():.4f} state {state_loss:.4f} {seconds:.0f}s",
                flush=True,
            )
    model.to(torch.bfloat16).save_pretrained(out / agent)
    tokenizer.save_pretrained(out / agent)


@torch.no_grad()
def measure(agent: str, folder: Path, problems_per_position: int = 1000) -> dict[str, float]:
    """One-step accuracy of generated text, by the position that the system holds."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    examples, rng = Examples(agent, tokenizer), random.Random(f"measure/{agent}")
    accuracy = {}
    for position in range(relay.MAX_OPERATIONS + 1):
        right = 0
        for _ in range(problems_per_position // 500):
            chosen = [relay.draw(rng, rng.randint(max(1, position), 9)) for _ in range(500)]
            held = position or None
            asked = [examples.prompt(p, held, rng.choice([0, 6])) for p in chosen]
            texts = write(model, tokenizer, [ids for ids, _ in asked], examples.pad)
            right += sum(
                t.strip() == examples.wanted(p, held) for t, p in zip(texts, chosen, strict=True)
            )
        accuracy[str(position)] = right / (problems_per_position // 500 * 500)
    accuracy["all"] = sum(accuracy.values()) / len(accuracy)
    return accuracy


def write(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, prompts: list[list[int]], pad: int
) -> list[str]:
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
    return tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("agents", nargs="*", default=list(BASES), help="default: all four")
    parser.add_argument("--out", type=Path, default=base.RELAY / "agents")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", action="store_true", help="only measure the agents in --out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.measure:
        for agent in args.agents:
            train(agent, args.out)
        base.write_hashes(args.out)
        return
    record = {
        "command": "python scripts/build_relay_experts.py --measure",
        "problems_per_position": 1000,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "one_step_accuracy": {agent: measure(agent, args.out / agent) for agent in args.agents},
    }
    (base.RELAY / "one_step_accuracy_experts.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["one_step_accuracy"], indent=2))


if __name__ == "__main__":
    main()
