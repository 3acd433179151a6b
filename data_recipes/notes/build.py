"""Write the notes' data files: a passage of facts, and a question about some of them.

    python build.py --out FOLDER [--seed 0] [--train 20000] [--test 1000] [--facts 4] [--asked 1]
        [--planner_sees question | passage] [--unseen 300] [--hops 0]

Files: train, valid and test.jsonl; test_names.jsonl (names that are in no training row),
test_words.jsonl (the same for the words asked for), test_both.jsonl; references.json.
Columns: passage, question, lead (the beginning of a sentence that answers), answer (its end: the
words asked for), note (what the planner should write), choices (every word of the closed set),
kind. With --hops R: the notes in hops, of up to R rounds (hops.py); train, valid, test and
test_names.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb, factorial, perm
from pathlib import Path
from typing import NoReturn

import hops
from closed_sets import HELD_OUT_NAMES, KINDS, MOST_ASKED, MOST_FACTS, NAMES, Kind

Row = dict[str, str | list[str]]
PLANNER_SEES = ("question", "passage")
DEPTHS = range(1, 6)  # rounds that references.json has lines for


@dataclass(frozen=True)
class Problem:
    """Facts of one kind, and the positions of those that are asked for, in this order."""

    kind: Kind
    facts: tuple[tuple[str, str], ...]  # name, word
    asked: tuple[int, ...]

    @property
    def key(self) -> tuple[str, frozenset[tuple[str, str]], str]:
        """Equal for rows with the same facts, in any order, and the same question."""
        return self.kind.name, frozenset(self.facts), self.ask()[0]

    def ask(self) -> tuple[str, str]:
        """The question, and the beginning of a sentence that answers it."""
        return self.kind.ask([self.facts[i][0] for i in self.asked])

    def row(self, planner_sees: str) -> Row:
        """Columns; a text that an agent writes begins with the space that stands before it."""
        answer = " " + ", ".join(self.facts[i][1] for i in self.asked)
        passage = " ".join(self.kind.sentence(name, word) for name, word in self.facts)
        question, lead = self.ask()
        return {
            "passage": passage,
            "question": question,
            "lead": lead,
            "answer": answer,
            "note": answer if planner_sees == "question" else f" {passage}",
            "choices": sorted(self.kind.words),
            "kind": self.kind.name,
        }


@dataclass(frozen=True)
class Source:
    """Where the problems of one file are drawn from."""

    facts: int
    asked: int
    names: Sequence[str] = NAMES
    has_new_words: bool = False

    def draw(self, rng: random.Random) -> Problem:
        """One problem; with new words every one that is asked for is held out."""
        kind = rng.choice(KINDS)
        new = rng.sample(kind.held_out, self._new(kind)) if self.has_new_words else []
        words = [*new, *rng.sample(kind.known, self.facts - len(new))]
        wanted = rng.sample(new or words, self.asked)
        rng.shuffle(words)
        names = rng.sample(self.names, self.facts)
        facts = tuple(zip(names, words, strict=True))
        return Problem(kind, facts, tuple(words.index(word) for word in wanted))

    def _new(self, kind: Kind) -> int:
        """How many words of a passage are held out: all of them, as far as they go."""
        return min(self.facts, len(kind.held_out)) if self.has_new_words else 0

    @property
    def size(self) -> int:
        """Number of different problems."""
        return sum(
            comb(len(self.names), self.facts)
            * factorial(self.facts)  # which name has which word
            * comb(len(kind.held_out), new)
            * comb(len(kind.known), self.facts - new)
            * perm(new or self.facts, self.asked)
            for kind in KINDS
            for new in [self._new(kind)]
        )


def sources(facts: int, asked: int) -> dict[str, Source]:
    """File -> where its problems come from; test and valid first, so that train avoids them."""
    return {
        "test": Source(facts, asked),
        "valid": Source(facts, asked),
        "train": Source(facts, asked),
        "test_names": Source(facts, asked, HELD_OUT_NAMES),
        "test_words": Source(facts, asked, NAMES, has_new_words=True),
        "test_both": Source(facts, asked, HELD_OUT_NAMES, has_new_words=True),
    }


def most_test_rows(facts: int, asked: int) -> int:
    """Test and valid take no more than half of the problems that training draws from."""
    return sources(facts, asked)["train"].size // 4


def most_unseen_rows(facts: int, asked: int) -> int:
    return min(source.size for name, source in sources(facts, asked).items() if "_" in name)


def size_of(name: str, args: argparse.Namespace) -> int:
    """Rows of a file."""
    sizes: dict[str, int] = {"train": args.train, "test": args.test, "valid": args.test}
    return sizes.get(name, args.unseen)


def draw_all(args: argparse.Namespace) -> Iterator[tuple[str, list[Problem]]]:
    """File -> its problems. Only training rows may repeat, and none of them is in another file."""
    taken = set()
    for name, source in sources(args.facts, args.asked).items():
        rng = random.Random(f"{args.seed}/{name}")
        problems: list[Problem] = []
        while len(problems) < size_of(name, args):
            problem = source.draw(rng)
            if problem.key in taken:
                continue
            problems.append(problem)
            if name != "train":
                taken.add(problem.key)
        yield name, problems


def references(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """By rounds, what two blind guesses score: words of the passage, and of the closed set."""
    within = 1 / perm(args.facts, args.asked)
    anything = sum(1 / perm(len(kind.words), args.asked) for kind in KINDS) / len(KINDS)
    lines = {"ceiling": 1.0, "guess_shown": within, "guess_any": anything}
    return {str(rounds): lines for rounds in DEPTHS}


class Parser(argparse.ArgumentParser):
    """Errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; --help lists the options.\n")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True)
    add("--seed", type=int, default=0)
    add("--train", type=int, default=20000, help="rows")
    add("--test", type=int, default=1000, help="rows, of test and of valid")
    add("--unseen", type=int, default=300, help="rows, of each file with unseen names or words")
    add("--hops", type=int, default=0, help="most rounds of the notes in hops; 0: the notes")
    add("--facts", type=int, default=4, help="facts in a passage")
    add("--asked", type=int, default=1, help="of how many persons the question asks")
    add("--planner_sees", "--planner-sees", choices=PLANNER_SEES, default="question")
    args = parser.parse_args(argv)
    if not 1 <= args.facts <= MOST_FACTS:
        parser.error(f"--facts {args.facts}: give 1 to {MOST_FACTS}, as a passage repeats no word")
    most = min(args.facts, MOST_ASKED)
    if not 1 <= args.asked <= most:
        parser.error(f"--asked {args.asked} of --facts {args.facts}: give 1 to {most}")
    if min(args.train, args.test, args.unseen) < 1:
        parser.error(
            f"--train {args.train} --test {args.test} --unseen {args.unseen}: give 1 or more rows"
        )
    if args.hops:
        check_hops(parser, args)
        return args
    if args.test > (most := most_test_rows(args.facts, args.asked)):
        parser.error(
            f"--test {args.test} with --facts {args.facts} and --asked {args.asked}: there are too "
            f"few different problems; give --test {most} or less"
        )
    if args.unseen > (most := most_unseen_rows(args.facts, args.asked)):
        parser.error(
            f"--unseen {args.unseen} with --facts {args.facts} and --asked {args.asked}: there are "
            f"too few different problems; give --unseen {most} or less"
        )
    return args


def check_hops(parser: Parser, args: argparse.Namespace) -> None:
    """A circle has a person for each round and one more, so that no round leads back."""
    most = min(max(hops.TIMES), args.facts - 1)
    if not 1 <= args.hops <= most:
        parser.error(
            f"--hops {args.hops} with --facts {args.facts}: give 1 to {most}, as a circle of "
            f"{args.facts} persons leads back to its start after {args.facts} rounds"
        )


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.hops:
        sizes = {name: size_of(name, args) for name in ("train", "valid", "test", "test_names")}
        files = hops.draw_all(args.seed, sizes, args.facts, args.hops).items()
        lines = hops.references(args.facts, args.hops)
    else:
        drawn = draw_all(args)
        files = ((name, [p.row(args.planner_sees) for p in problems]) for name, problems in drawn)
        lines = references(args)
    for name, rows in files:
        with (args.out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    (args.out / "references.json").write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
