"""Text recursion: the same agents, prompts, rounds and batching, passing text, not vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rmas_train.agents.prompts import tokenise
from rmas_train.engine.answer import Text, write
from rmas_train.engine.interrupt import Interrupt
from rmas_train.engine.kv_cache import is_recurrent
from rmas_train.engine.prefix import Prefixes
from rmas_train.engine.prompt_batch import PromptBatch
from rmas_train.recursion import Rows, Team, take_turn
from rmas_train.topology import CallId

Translations = Mapping[str, Mapping[str, str]]


def answer_in_text(
    team: Team,
    rows: Rows,
    rounds: int,
    *,
    max_new_tokens: int,
    batch_size: int,
    translations: Translations | None = None,
    decoding: str = "plain",
    interrupts: Sequence[Interrupt] | None = None,
) -> list[Text]:
    """Each agent writes text into the slots of the agents it sends to; the decoder answers.

    Args:
        team: agents, prompts, topology.
        rows: columns of each problem.
        rounds: 1 or more.
        max_new_tokens: longest message and answer.
        batch_size: rows per forward.
        translations: "source-target" -> word for word dictionary for what crosses that edge.
        decoding: see ``engine.answer.write``.
        interrupts: one per row, of the decoder's answer alone.

    Returns:
        per row the answer, with the tokens of all agents in all rounds.
    """
    written: list[Text] = []
    for begin in range(0, len(rows), batch_size):
        part = rows[begin : begin + batch_size]
        own = interrupts and interrupts[begin : begin + batch_size]
        how = (max_new_tokens, translations or {}, decoding, own)
        written += _answer_batch(team, part, rounds, *how)
    return written


def _answer_batch(
    team: Team,
    rows: Rows,
    rounds: int,
    max_new_tokens: int,
    translations: Translations,
    decoding: str,
    interrupts: Sequence[Interrupt] | None,
) -> list[Text]:
    calls = team.topology.live_calls(rounds)
    prefixes = Prefixes()
    inboxes: dict[CallId, dict[str, list[str]]] = {call: {} for call in calls}
    tokens = [0] * len(rows)
    written: list[Text] = []
    for call in calls:
        round_, name = call
        turn = take_turn(team, rows, call, calls, prefixes, inboxes[call])
        own = interrupts if call == calls[-1] else None
        written = _write(turn, inboxes[call], max_new_tokens, decoding, own)
        tokens = [t + w.tokens for t, w in zip(tokens, written, strict=True)]
        for edge in team.topology.sends(call, inboxes):
            words = translations.get(edge.key, {})
            target = (round_ + edge.next_round, edge.target)
            inboxes[target][name] = [translate(w.text, words) for w in written]
    return [Text(w.text, t) for w, t in zip(written, tokens, strict=True)]


def translate(text: str, words: Mapping[str, str]) -> str:
    return " ".join(words.get(w, w) for w in text.split()) if words else text


def _write(
    turn: PromptBatch,
    inbox: Mapping[str, list[str]],
    max_new_tokens: int,
    decoding: str,
    interrupts: Sequence[Interrupt] | None,
) -> list[Text]:
    slots = {s: tokenise(turn.agent, texts, plain=True) for s, texts in inbox.items()}
    # In recurrent agents, texts of unequal length would need padding behind the prefix.
    if decoding == "static" or is_recurrent(turn.agent):
        turn = turn.whole()
    opened = turn.open_text(range(len(turn.prompts)), slots)
    return write(turn, opened, max_new_tokens, decoding, interrupts)
