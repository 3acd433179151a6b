"""How an agent's call becomes messages: in vectors through the links, or as text.

Tensor names: B rows, M latent steps, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from rmas_train.agents.prompts import tokenise_whole
from rmas_train.engine.decoding import GREEDY, Chooser
from rmas_train.engine.inputs import LatentMessage, Message, TextMessage
from rmas_train.engine.prompt_batch import PromptBatch
from rmas_train.engine.recompute import recompute
from rmas_train.engine.rollout import FULL, Gradient, parallel, read_text, reread, rollout
from rmas_train.engine.thoughts import ThoughtStore, parameters_hash
from rmas_train.links.link_set import LinkSet
from rmas_train.recursion import Call, Sent, Team
from rmas_train.topology import Edge

NORM_FLOOR = 1e-12  # of a sum of two opposite vectors
Translations = Mapping[str, Mapping[str, str]]  # "source-target" -> word -> word


@dataclass
class LatentChannel:
    """An agent rolls out, and its states go through its links.

    Attributes:
        links: inner and outer links; gradients flow into those that require them.
        latent_length: M; 0 leaves every slot empty (control `null`).
        edge_input, message_update: see ``Team``.
        gradient: how gradients go back through each rollout.
        recompute: keep each call's outputs only, and run the call again in backward, so that
            memory hardly grows with rounds; same gradient, more time.
        role_texts: agent -> column; such an agent does not roll out but reads the first M tokens of
            its text, and the states of these tokens are sent (the release's teacher forcing).
        in_buffer: see ``rollout``.
        thoughts: keeps the rollouts of prompts without messages; for links that do not change while
            this channel is used, and without a graph.
    """

    links: LinkSet
    latent_length: int
    edge_input: str = "inner"
    message_update: str = "replace"
    gradient: Gradient = FULL
    recompute: bool = False
    role_texts: Mapping[str, str] = field(default_factory=dict)
    in_buffer: bool = False
    thoughts: ThoughtStore | None = None
    _hashes: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, team: Team, links: LinkSet, latent_length: int, **options: Any) -> Self:
        """The channel of a team's edges; ``options`` as of this class."""
        return cls(links, latent_length, team.edge_input, team.message_update, **options)

    def send(self, call: Call) -> Sent:
        inner = self.links.inner[call.agent]
        outer = [self.links.outer[edge.key] for edge in call.edges]
        texts = self._role_texts(call)
        earlier = [self.earlier(call, edge) for edge in call.edges]
        old = [x for x in earlier if x is not None]
        inputs = [x for message in call.inbox.values() for x in message.tensors()]
        inputs += old
        # Each one once: links may share parameters, and a leaf that is named twice counts twice.
        parameters = list(nn.ModuleList((inner, *outer)).parameters())

        def run(*inputs: Tensor, again: Tensor | None = None) -> tuple[Tensor, ...]:
            hidden_BMD, latents_BMD = self._think(call, inner, inputs, texts, again)
            given = iter(inputs[len(inputs) - len(old) :])
            before = [None if x is None else next(given) for x in earlier]
            return hidden_BMD, latents_BMD, *self._through(outer, hidden_BMD, latents_BMD, before)

        if not any(x.requires_grad for x in (*inputs, *inner.parameters())):
            # Upstream of no trainable link: there is nothing to go back through.
            with torch.no_grad():
                thought = self._think(call, inner, inputs, texts)
            outputs: tuple[Tensor, ...] = (*thought, *self._through(outer, *thought, earlier))
        elif self.gradient.mode == "parallel":
            outputs = parallel(run, inputs, parameters, self.gradient.steps)
        elif self.recompute:
            outputs = recompute(run, inputs, parameters)
        else:
            outputs = run(*inputs)
        hidden_BMD, latents_BMD, *vectors = outputs
        counts = None if texts is None else [len(ids) for ids in texts]
        messages = [LatentMessage(x, counts) for x in vectors]
        keys = [edge.key for edge in call.edges]
        return Sent(dict(zip(keys, messages, strict=True)), hidden_BMD, latents_BMD)

    def _role_texts(self, call: Call) -> list[list[int]] | None:
        column = self.role_texts.get(call.agent)
        if column is None:
            return None
        texts = [str(row[column]) for row in call.rows]
        return [ids[: self.latent_length] for ids in tokenise_whole(call.prompts.agent, texts)]

    def _think(
        self,
        call: Call,
        inner: nn.Module,
        inputs: Sequence[Tensor],
        texts: list[list[int]] | None,
        again: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """States and latents of all rows; ``again``: all positions at once, over these latents."""
        prompts, agent = call.prompts.filled(_with_tensors(call, inputs)), call.prompts.agent
        found: list[tuple[Tensor, Tensor]] = []
        order: list[int] = []
        for part in prompts.parts(call.chunk):
            order += part
            own = texts and [texts[i] for i in part]
            if texts and own:
                batch, prefix = prompts.embed(part, own)
                lengths = max(map(len, own)), max(map(len, texts))
                found.append(read_text(agent, inner, batch, *lengths, prefix))
            elif again is None:
                found.append(self._roll_out(call, inner, prompts, part))
            else:
                batch, prefix = prompts.embed(part)
                found.append(reread(agent, inner, batch, again[part], prefix))
        hidden, latents = (torch.cat(x) for x in zip(*found, strict=True))
        if order == sorted(order):
            return hidden, latents
        back = torch.tensor(order).argsort().to(hidden.device)
        return hidden[back], latents[back]

    def _roll_out(
        self, call: Call, inner: nn.Module, prompts: PromptBatch, part: list[int]
    ) -> tuple[Tensor, Tensor]:
        """The rollout of some rows; one that is known already, where nothing arrived."""

        def think() -> tuple[Tensor, Tensor]:
            batch, prefix = prompts.embed(part)
            how = (self.latent_length, prefix, self.gradient, self.in_buffer)
            return rollout(prompts.agent, inner, batch, *how)

        if self.thoughts is None or call.inbox or torch.is_grad_enabled():
            return think()
        if call.agent not in self._hashes:
            self._hashes[call.agent] = parameters_hash(inner)
        ids = tuple(tuple(prompts.prompts[i].ids) for i in part)
        how = (call.agent, self._hashes[call.agent], self.latent_length, self.in_buffer)
        return self.thoughts.get((*how, ids), think)

    def earlier(self, call: Call, edge: Edge) -> Tensor | None:
        """The vectors that the new ones are added to, if any."""
        found = call.earlier.get(edge.key) if self.message_update == "residual" else None
        return found.vectors if isinstance(found, LatentMessage) else None

    def _through(
        self,
        outer: Sequence[nn.Module],
        hidden_BMD: Tensor,
        latents_BMD: Tensor,
        earlier: Sequence[Tensor | None],
    ) -> tuple[Tensor, ...]:
        thought_BMD = self.thought(hidden_BMD, latents_BMD)
        pairs = zip(outer, earlier, strict=True)
        return tuple(updated(link(thought_BMD), before) for link, before in pairs)

    def thought(self, hidden_BMD: Tensor, latents_BMD: Tensor) -> Tensor:
        """What an outer link reads of a rollout."""
        return latents_BMD if self.edge_input == "inner" else hidden_BMD


def updated(new_BMD: Tensor, before_BMD: Tensor | None) -> Tensor:
    """A message added to the one before, vector by vector as loud as the new one."""
    if before_BMD is None:
        return new_BMD
    sum_BMD = new_BMD + before_BMD
    new_BM1, sum_BM1 = (x.norm(dim=-1, keepdim=True) for x in (new_BMD, sum_BMD))
    return sum_BMD * (new_BM1 / sum_BM1.clamp_min(NORM_FLOOR))


def _with_tensors(call: Call, tensors: Sequence[Tensor]) -> dict[str, Message]:
    """The call's inbox, of these tensors."""
    rest, inbox = list(tensors), dict[str, Message]()
    for source, message in call.inbox.items():
        count = len(message.tensors())
        inbox[source] = message.with_tensors(rest[:count])
        rest = rest[count:]
    return inbox


@dataclass(frozen=True)
class TextChannel:
    """An agent writes, and its text goes to the agents behind its edges (text recursion).

    Attributes:
        max_new_tokens: longest message.
        chooser: of the rows' tokens.
        translations: "source-target" -> word for word dictionary for what crosses that edge.
        most: tokens of a message, as its target counts them; None: as many as were written.
    """

    max_new_tokens: int
    chooser: Chooser = GREEDY
    translations: Translations = field(default_factory=dict)
    most: int | None = None

    def send(self, call: Call) -> Sent:
        written = call.write(self.max_new_tokens, self.chooser)
        messages = {}
        for edge in call.edges:
            words = self.translations.get(edge.key, {})
            translated = [translate(text.text, words) for text in written]
            messages[edge.key] = TextMessage(translated, self.most)
        texts, tokens = [text.text for text in written], [text.tokens for text in written]
        return Sent(messages, tokens=tokens, texts=texts, ids=[text.ids for text in written])


def translate(text: str, words: Mapping[str, str]) -> str:
    return " ".join(words.get(w, w) for w in text.split()) if words else text
