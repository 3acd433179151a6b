"""A single agent that has been trained itself (stages lora and sft), not links beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rmas_train.agents.prompt_files import SINGLE
from rmas_train.agents.prompts import make_prompt
from rmas_train.config import AgentConfig
from rmas_train.engine.loading import load_agent
from rmas_train.recursion import Rows
from rmas_train.runs.finetuned import MODEL, agent_of, folder_of, is_there
from rmas_train.systems.alone import Alone, single_agent
from rmas_train.systems.base import Answer, Built, Ingredients, NotApplicable, SystemEntry
from rmas_train.systems.looks import BUILTIN


@dataclass(frozen=True)
class FineTuned:
    """The trained agent; loaded when it first answers.

    Attributes:
        plain: the same agent alone, as it was before.
        agent: where the trained one is.
        texts: of its prompt.
        method: ``lora`` or ``sft``.
        kept: see ``Ingredients``.
    """

    plain: Alone
    agent: AgentConfig
    texts: dict[str, str | None]
    method: str
    kept: dict[str, Any]
    latent_length: int = 0
    uses_rounds: bool = False

    @property
    def trained(self) -> Alone:
        before = self.plain.prompt.agent
        if self.method not in self.kept:
            self.kept[self.method] = load_agent(before.name, self.agent, before.device)
        agent = self.kept[self.method]
        return replace(self.plain, prompt=make_prompt(agent, self.texts, f"{SINGLE}.yaml", []))

    def answer(self, rows: Rows, rounds: int) -> list[Answer]:
        return self.trained.answer(rows, rounds)


def _entry(method: str) -> SystemEntry:
    def build(ingredients: Ingredients) -> Built:
        config = ingredients.config
        name, folder = agent_of(config), folder_of(config, method)
        plain = single_agent(ingredients, name)
        if isinstance(plain, NotApplicable):
            return plain
        if not is_there(folder):
            return NotApplicable(f"not trained; make it with stage={method} in the same run_dir")
        own = config.agents[name]
        trained = (
            replace(own, adapter=str(folder / MODEL), adapter_revision=None)
            if method == "lora"
            else replace(own, model=str(folder / MODEL), revision=None, adapter=None)
        )
        texts = dict(ingredients.prompts[SINGLE])
        return FineTuned(plain, trained, texts, method, ingredients.kept)

    return SystemEntry(method, None, build, BUILTIN[method])


LORA, SFT = _entry("lora"), _entry("sft")
