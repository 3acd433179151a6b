"""The method stated naively: one row, whole sequences again for each step, no cache, no padding."""

from __future__ import annotations

import torch


def own_text(agent, text):
    """Token ids of an agent's own text: what its template writes after the prompt."""
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": text}]
    write = agent.tokenizer.apply_chat_template
    prompt = write(turns[:1], tokenize=False, add_generation_prompt=True)
    whole = write(turns, tokenize=False)
    rest = whole.removeprefix(prompt) if whole.startswith(prompt) else text + whole.split(text)[1]
    ids = agent.tokenizer(rest, add_special_tokens=False)["input_ids"]
    return ids if agent.tokenizer.eos_token_id in ids else [*ids, agent.tokenizer.eos_token_id]


def rollout(agent, inner, embeds_LD, latent_length):
    """Hidden states and latents (M, D) each."""
    hidden, latents = [], []
    for _ in range(latent_length):
        out = agent.model.base_model(inputs_embeds=embeds_LD[None], use_cache=False)
        h = out.last_hidden_state[0, -1]
        z = inner(h.to(torch.promote_types(h.dtype, torch.float32)))
        hidden.append(h)
        latents.append(z)
        embeds_LD = torch.cat([embeds_LD, z[None].to(embeds_LD.dtype)])
    return torch.stack(hidden), torch.stack(latents)


def prompt_embeds(team, name, row, round_, inbox):
    """A prompt's input embeddings (L, D), its slots filled from source -> message (M, D)."""
    agent = team.agents[name]
    (prompt,) = team.prompts[name].encode([row], round_, first=not inbox)
    pieces, begin = [], 0
    for source, position in prompt.slots:
        pieces.append(agent.embed(torch.tensor(prompt.ids[begin:position], dtype=torch.long)))
        if source in inbox:
            pieces.append(inbox[source].to(agent.dtype))
        begin = position
    pieces.append(agent.embed(torch.tensor(prompt.ids[begin:], dtype=torch.long)))
    return torch.cat(pieces)


def unroll(team, links, row, rounds, latent_length, roll=(rollout, None)):
    """Messages (round, edge) -> (M, D), and what the decoder got in the last round.

    ``links``: of all rounds, or one of each. ``roll``: another statement of the rollout, and its
    last argument.
    """
    every = links if isinstance(links, list) else [links] * rounds
    think, argument = roll
    messages, inbox = {}, {}
    calls = team.topology.live_calls(rounds)
    for r, name in calls[:-1]:
        embeds = prompt_embeds(team, name, row, r, inbox.get((r, name), {}))
        own = every[r - 1]
        h, z = think(team.agents[name], own.inner[name], embeds, argument or latent_length)
        for edge in team.topology.outgoing(name):
            target = (r + edge.next_round, edge.target)
            if target in calls:
                sent = own.outer[edge.key](z if team.edge_input == "inner" else h)
                if team.message_update == "residual" and (r - 1, edge.key) in messages:
                    both = sent + messages[r - 1, edge.key]
                    sent = both / both.norm(dim=-1)[:, None] * sent.norm(dim=-1)[:, None]
                messages[r, edge.key] = sent
                inbox.setdefault(target, {})[name] = sent
    return messages, inbox.get(calls[-1], {})


def loss(team, links, row, rounds, latent_length, roll=(rollout, None)):
    """Summed cross-entropy of the answer's tokens, one whole forward for each."""
    _, inbox = unroll(team, links, row, rounds, latent_length, roll)
    name = team.topology.decoder
    agent = team.agents[name]
    embeds = prompt_embeds(team, name, row, rounds, inbox)
    total = 0.0
    for token in own_text(agent, row["answer"]):
        logits = agent.model(inputs_embeds=embeds[None], use_cache=False).logits[0, -1]
        total = total - logits.to(embeds.dtype).log_softmax(-1)[token]
        embeds = torch.cat([embeds, agent.embed(torch.tensor([token]))])
    return total
