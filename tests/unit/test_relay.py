"""The relay: its problems, its exact lines, its recipe and its shipped agents."""

import hashlib
import itertools
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
RELAY = ROOT / "data_recipes" / "relay"
sys.path.insert(0, str(RELAY))
import build  # noqa: E402
import problems as relay  # noqa: E402

AGENTS = ["planner", "critic", "solver", "solver_dialect"]


def test_operations_are_permutations_without_fixed_points():
    for images in relay.PERMUTATIONS.values():
        assert sorted(images) == list(range(10))
        assert all(i != j for i, j in enumerate(images))


def test_a_problem_by_hand():
    problem = relay.Problem(2, ("x", "u"))
    assert problem.question == "start C 0 x 1 u 2 stop"
    assert [problem.hint(k) for k in (0, 1, 2, 5)] == ["0 C", "1 D", "2 E", "2 E"]
    assert problem.hint(2, relay.DIALECT) == "2 bu"


def test_exact_lines_against_enumeration():
    """All lists of three operations from all states; both systems hold the state after one."""
    counts = {}
    stops = total = 0
    for start in range(10):
        for operations in itertools.product(relay.OPERATIONS, repeat=3):
            problem = relay.Problem(start, operations)
            held, final = problem.state_after(1), problem.state_after(3)
            counts.setdefault(held, [0] * 10)[final] += 1
            stops += held == final
            total += 1
    matrix = relay.transition_matrix(2)
    assert sum(matrix[i][i] for i in range(10)) / 10 == pytest.approx(stops / total)
    best = sum(max(row) for row in counts.values()) / total
    assert sum(max(row) for row in matrix) / 10 == pytest.approx(best)


def test_reach_grows_by_three_a_round():
    lines = [relay.exact_lines(r) for r in (1, 2, 3)]
    assert [line["ceiling"] for line in lines] == [pytest.approx(x / 3) for x in (1, 2, 3)]
    assert lines[2]["stops_beyond_reach"] is None
    assert 0.05 < lines[0]["stops_beyond_reach"] < lines[0]["best_guess_beyond_reach"] < 0.3


def test_the_recipe_writes_what_its_readme_says(tmp_path):
    command = [sys.executable, str(RELAY / "build.py"), "--out", str(tmp_path), "--train", "300"]
    subprocess.run([*command, "--test", "50"], check=True)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 300
    for row in rows:
        length = int(row["answer"].split()[0])
        assert row["rounds_needed"] == -(-length // 3)
        done = int(row["feedback"].split()[0]) if row["feedback"] else 0
        positions = [int(row[c].split()[0]) for c in ("plan", "refined_plan", "solution")]
        assert positions == [min(done + k, length) for k in (1, 2, 3)]
    test = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    long = {r["question"] for r in rows if r["rounds_needed"] == 3}
    assert not long & {r["question"] for r in test if r["rounds_needed"] == 3}
    sample = (RELAY / "sample.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in sample] == rows[:8]


def test_shipped_files_have_their_hashes():
    lines = (RELAY / "agents" / "SHA256SUMS").read_text().splitlines()
    files = [p for p in (RELAY / "agents").rglob("*") if p.is_file() and p.name != "SHA256SUMS"]
    assert len(lines) == len(files)
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((RELAY / "agents" / name).read_bytes()).hexdigest() == digest, name
    assert sum(p.stat().st_size for p in files) < 20 * 2**20


@pytest.mark.parametrize("name", AGENTS)
def test_shipped_agents_advance_one_step_with_nothing_of_ours(name):
    """Text in, text out, through transformers alone; every hint position, and no hint."""
    tokenizer = AutoTokenizer.from_pretrained(RELAY / "agents" / name)
    model = AutoModelForCausalLM.from_pretrained(RELAY / "agents" / name)
    names = relay.DIALECT if name == "solver_dialect" else relay.STATES
    rng, right, total = random.Random(5), 0, 0
    for position in range(10):
        chosen = [relay.draw(rng, max(position, 1)) for _ in range(8)]
        chats = [
            tokenizer.apply_chat_template(
                [
                    {
                        "role": "user",
                        "content": f"{p.question} hint {p.hint(position, names)}".rstrip(),
                    }
                ]
                if position
                else [{"role": "user", "content": f"{p.question} hint"}],
                tokenize=False,
                add_generation_prompt=True,
            )
            for p in chosen
        ]
        batch = tokenizer(chats, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            out = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=4,
                do_sample=False,
            )
        texts = tokenizer.batch_decode(
            out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        right += sum(
            t.strip() == p.hint(position + 1, names) for t, p in zip(texts, chosen, strict=True)
        )
        total += len(chosen)
    assert right >= total - 1


def test_families_widths_and_vocabularies_differ():
    configs = [json.loads((RELAY / "agents" / n / "config.json").read_text()) for n in AGENTS[:3]]
    for key in ("model_type", "hidden_size", "vocab_size"):
        assert len({c[key] for c in configs}) == 3, key


def test_the_dialects_states_are_in_no_other_vocabulary():
    vocabularies = {
        n: set(AutoTokenizer.from_pretrained(RELAY / "agents" / n).get_vocab()) for n in AGENTS
    }
    for word in relay.DIALECT:
        assert [n for n, v in vocabularies.items() if {f"\u0120{word}", f"\u2581{word}"} & v] == [
            "solver_dialect"
        ]


@pytest.mark.parametrize("topology", sorted(build.CHAINS))
def test_every_topologys_row_is_one_round_of_a_problem(topology):
    """Each agent's text follows from what it is sent; only an expert that knows a step takes it."""
    rng = random.Random(7)
    for _ in range(300):
        problem = relay.draw(rng)
        row = build.row(problem, rng, relay.STATES, topology)
        at = int(row["feedback"].split()[0]) if row["feedback"] else 0
        end = len(problem.operations)
        for i, column in enumerate(build.CHAINS[topology]):
            if column != "experts":
                assert row[column] == problem.hint(at + i + 1)
                continue
            moved = [n for n in relay.EXPERTS if row[n] == problem.hint(at + 1)]
            assert moved == (
                list(relay.EXPERTS)
                if at >= end
                else [n for n, own in relay.EXPERTS.items() if problem.operations[at] in own]
            )
            assert all(row[n] == problem.hint(at) for n in relay.EXPERTS if n not in moved)
        per_round = len(build.CHAINS[topology])
        assert row["rounds_needed"] == math.ceil(end / per_round)


@pytest.mark.parametrize("name", [*relay.EXPERTS, "summarizer"])
def test_the_mixtures_agents_take_their_own_steps_only(name):
    """Text in, text out; with the positions that the system holds at the start of a round."""
    tokenizer = AutoTokenizer.from_pretrained(RELAY / "agents" / name)
    model = AutoModelForCausalLM.from_pretrained(RELAY / "agents" / name, dtype=torch.float32)
    rng, chats, wanted = random.Random(11), [], []
    for position in (0, 2, 4, 8):
        for _ in range(12):
            problem = relay.draw(rng, max(position, 1) + rng.randrange(2))
            following = problem.operations[position : position + 1]
            at = {
                n: position + (bool(following) and following[0] in own)
                for n, own in relay.EXPERTS.items()
            }
            hints = [problem.hint(p) for p in at.values()]
            if name != "summarizer":
                wanted.append(problem.hint(at[name]))
                hints = [problem.hint(position)] if position else [""]
            else:
                wanted.append(problem.hint(max(at.values()) + 1))
            text = " ".join([problem.question, *(f"hint {h}".rstrip() for h in hints)])
            chats.append([{"role": "user", "content": text}])
    texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.no_grad():
        out = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=4,
            do_sample=False,
        )
    written = tokenizer.batch_decode(
        out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
    )
    pairs = zip(texts, written, wanted, strict=True)
    wrong = [(chat, said, pair) for chat, said, pair in pairs if said.strip() != pair]
    assert len(wrong) <= 1, wrong
