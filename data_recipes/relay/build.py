"""Write the relay's data files: train.jsonl, valid.jsonl, test.jsonl, references.json.

    python build.py --out FOLDER [--seed 0] [--train 40000] [--test 1000] [--dialect]

Columns: question, answer (what the decoder should end with), rounds_needed (rounds of three calls
that reach the answer), and for the inner stage the texts of a randomly chosen round: feedback
(empty in the first round), plan, refined_plan, solution.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import problems as relay

AGENTS = 3  # calls per round, each advances one operation


def row(problem: relay.Problem, rng: random.Random, names: tuple[str, ...]) -> dict:
    """One row; ``names``: the decoder's words for the states."""
    length = len(problem.operations)
    done = AGENTS * rng.randrange(relay.MAX_OPERATIONS // AGENTS)  # before the chosen round
    return {
        "question": problem.question,
        "answer": problem.hint(length, names),
        "rounds_needed": -(-length // AGENTS),
        "feedback": problem.hint(done) if done else "",
        "plan": problem.hint(done + 1),
        "refined_plan": problem.hint(done + 2),
        "solution": problem.hint(done + 3, names),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=40000, help="rows")
    parser.add_argument("--test", type=int, default=1000, help="rows, of valid and of test")
    parser.add_argument("--dialect", action="store_true", help="the decoder has its own names")
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
                file.write(json.dumps(row(relay.draw(rng), rng, names)) + "\n")
    lines = {str(rounds): relay.exact_lines(rounds, AGENTS) for rounds in range(1, 6)}
    (args.out / "references.json").write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
