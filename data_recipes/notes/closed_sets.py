"""The names and words of the notes, and the sentences that they stand in.

Every word is common English and one token, with the space before it, for the agents of
``conf/agents/small*.yaml``. What is held out is fixed, so that all seeds hold out the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of fact.

    Attributes:
        name: in the rows' column ``kind``.
        lead: the beginning of a fact's sentence; the word and a full stop follow.
        question: about one person.
        leads, questions: the same about several persons.
        known, held_out: the closed set: words of the training rows, and words they never have.
    """

    name: str
    lead: str
    question: str
    leads: str
    questions: str
    known: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.known, *self.held_out)

    def sentence(self, name: str, word: str) -> str:
        return f"{self.lead.format(name)} {word}."

    def ask(self, names: Sequence[str]) -> tuple[str, str]:
        """The question, and the beginning of a sentence that answers it."""
        if len(names) == 1:
            return self.question.format(names[0]), self.lead.format(names[0])
        listed = f"{', '.join(names[:-1])} and {names[-1]}"
        return self.questions.format(listed), self.leads.format(listed)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


KINDS = (
    Kind(
        "colour",
        "{}'s favourite colour is",
        "What is {}'s favourite colour?",
        "The favourite colours of {}, in this order:",
        "What are the favourite colours of {}?",
        _split("red blue green yellow white brown pink orange gold gray violet navy"),
        _split("black purple silver tan"),
    ),
    Kind(
        "animal",
        "{} has a",
        "What animal does {} have?",
        "The animals of {}, in this order:",
        "What are the animals of {}?",
        _split("cat horse cow sheep goat lion bear wolf rabbit duck snake monkey"),
        _split("dog pig tiger frog"),
    ),
    Kind(
        "city",
        "{} lives in",
        "What city does {} live in?",
        "The cities of {}, in this order:",
        "What are the cities of {}?",
        _split("Paris London Berlin Madrid Tokyo Vienna Boston Moscow Cairo Athens Oslo Sydney"),
        _split("Rome Dublin Chicago Prague"),
    ),
    Kind(
        "job",
        "{} is a",
        "What is {}'s job?",
        "The jobs of {}, in this order:",
        "What are the jobs of {}?",
        _split("doctor teacher nurse lawyer pilot baker singer painter judge sailor soldier chef"),
        _split("farmer driver writer dancer"),
    ),
)
NAMES = _split(
    "Ben Tom Sam Max Adam John Paul Luke Peter David James Simon Leo Jack Robert Kevin "
    "Anna Emma Lucy Mary Kate Sara Julia Laura Alice Helen Nina Clara"
)
HELD_OUT_NAMES = _split("Mark Oscar Harry Brian George Daniel Maria Rosa Linda Susan Diana Jane")
MOST_FACTS = min(len(HELD_OUT_NAMES), *(len(kind.known) for kind in KINDS))
MOST_ASKED = min(len(kind.held_out) for kind in KINDS)
