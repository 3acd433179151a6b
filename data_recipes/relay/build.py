"""Write the relay's data files: train.jsonl, valid.jsonl, test.jsonl, references.json.

    python build.py --out FOLDER [--seed 0] [--train 40000] [--test 1000] [--dialect]
        [--topology sequential | mixture | distillation | deliberation]

Columns: question, answer (what the decoder should end with), rounds_needed (rounds that reach the
answer), and for the inner stage the texts of a randomly chosen round: feedback (empty in the first
round), and what each agent writes (sequential: plan, refined_plan, solution; others: the agent's
name).
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import problems as relay

# Columns of the agents in the order of a round, and how many operations each adds to the round.
CHAINS = {
    "sequential": ("plan", "refined_plan", "solution"),
    "distillation": ("expert", "learner"),
    "deliberation": ("reflector", "toolcaller"),
    "mixture": ("experts", "summarizer"),  # of the three experts one is relevant
}


def row(
    problem: relay.Problem, rng: random.Random, names: tuple[str, ...], topology: str
) -> dict[str, str | int]:
    """One row; ``names``: the decoder's words for the states."""
    length, chain = len(problem.operations), CHAINS[topology]
    per_round = len(chain)
    done = per_round * rng.randrange(-(-relay.MAX_OPERATIONS // per_round))  # before this round
    found: dict[str, str | int] = {
        "question": problem.question,
        "answer": problem.hint(length, names),
        "rounds_needed": -(-length // per_round),
        "feedback": problem.hint(done) if done else "",
    }
    for i, column in enumerate(chain):
        last = names if i + 1 == per_round else relay.STATES
        found |= (
            expert_texts(problem, done)
            if column == "experts"
            else {column: problem.hint(done + i + 1, last)}
        )
    return found


def expert_texts(problem: relay.Problem, done: int) -> dict[str, str]:
    """An expert that does not know the next operation repeats what it was given."""
    following = problem.operations[done : done + 1]
    return {
        name: problem.hint(done + 1 if following and following[0] in own else done)
        for name, own in relay.EXPERTS.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=40000, help="rows")
    parser.add_argument("--test", type=int, default=1000, help="rows, of valid and of test")
    parser.add_argument("--dialect", action="store_true", help="the decoder has its own names")
    parser.add_argument("--topology", choices=sorted(CHAINS), default="sequential")
    args = parser.parse_args()
    if args.train < 1 or args.test < 1:
        parser.error(f"--train {args.train} --test {args.test}: give 1 or more rows")
    names = relay.DIALECT if args.dialect else relay.STATES
    args.out.mkdir(parents=True, exist_ok=True)
    sizes = {"train": args.train, "valid": args.test, "test": args.test}
    # Settings were chosen on what is now `valid`; `test` is a stream that nobody has looked at.
    streams = {"train": "train", "valid": "test", "test": "held out"}
    for split, count in sizes.items():
        rng = random.Random(f"{args.seed}/{streams[split]}")
        with (args.out / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(count):
                file.write(json.dumps(row(relay.draw(rng), rng, names, args.topology)) + "\n")
    per_round = len(CHAINS[args.topology])
    lines = {str(rounds): relay.exact_lines(rounds, per_round) for rounds in range(1, 6)}
    (args.out / "references.json").write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
