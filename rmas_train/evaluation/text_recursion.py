"""Text recursion: the same agents, prompts, rounds and batching, passing text, not vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rmas_train.agents.prompts import tokenise
from rmas_train.agents.sequences import EncodedPrompt, embed_batch, fill_text
from rmas_train.evaluation.generation import Text, generate
from rmas_train.recursion import Rows, Team
from rmas_train.topology import Call

Translations = Mapping[str, Mapping[str, str]]


def answer_in_text(
    team: Team,
    rows: Rows,
    rounds: int,
    *,
    max_new_tokens: int,
    batch_size: int,
    translations: Translations | None = None,
) -> list[Text]:
    """Each agent writes text into the slots of the agents it sends to; the decoder answers.

    Args:
        team: agents, prompts, topology.
        rows: columns of each problem.
        rounds: 1 or more.
        max_new_tokens: longest message and answer.
        batch_size: rows per forward.
        translations: "source-target" -> word for word dictionary for what crosses that edge.

    Returns:
        per row the answer, with the tokens of all agents in all rounds.
    """
    calls = team.topology.live_calls(rounds)
    inboxes: dict[Call, dict[str, list[str]]] = {call: {} for call in calls}
    tokens = [0] * len(rows)
    written: list[Text] = []
    for call in calls:
        round_, name = call
        prompts = team.prompts[name].encode(list(rows), round_, first=not inboxes[call])
        written = _write(team, name, prompts, inboxes[call], max_new_tokens, batch_size)
        tokens = [t + w.tokens for t, w in zip(tokens, written, strict=True)]
        for edge in team.topology.sends(call, inboxes):
            words = (translations or {}).get(edge.key, {})
            target = (round_ + edge.next_round, edge.target)
            inboxes[target][name] = [translate(w.text, words) for w in written]
    return [Text(w.text, t) for w, t in zip(written, tokens, strict=True)]


def translate(text: str, words: Mapping[str, str]) -> str:
    return " ".join(words.get(w, w) for w in text.split()) if words else text


def _write(
    team: Team,
    name: str,
    prompts: list[EncodedPrompt],
    inbox: Mapping[str, list[str]],
    max_new_tokens: int,
    batch_size: int,
) -> list[Text]:
    agent: Any = team.agents[name]
    slots = {source: tokenise(agent, texts, plain=True) for source, texts in inbox.items()}
    written: list[Text] = []
    for begin in range(0, len(prompts), batch_size):
        part = range(begin, min(begin + batch_size, len(prompts)))
        filled = [fill_text(prompts[i], {s: ids[i] for s, ids in slots.items()}) for i in part]
        embeds, mask = embed_batch(agent, [EncodedPrompt(ids, []) for ids in filled], {})
        written += generate(agent, embeds, mask, max_new_tokens)
    return written
