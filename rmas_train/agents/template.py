"""What a chat template puts around a prompt's text and around an agent's own text.

The text is rendered as a mark. The mark has to come back exactly once, and what the template strips
beside it is found by trying. So each row's prompt is what the template alone would give, although
the template runs only a few times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rmas_train.agents.builtin_templates import NONE, TEMPLATES
from rmas_train.agents.rendering import NoSuchTurnError, Renderer, Turn
from rmas_train.errors import AgentError, did_you_mean
from rmas_train.support.reading import short

MARK, OTHER = "\ue000\ue001", "\ue000\ue002"  # of the private use area: no template has them
SPACES = " \n\t\r\v\f"


@dataclass(frozen=True)
class Strips:
    """White space that a template strips at the left and right end of a text."""

    left: str = ""
    right: str = ""

    def from_left(self, text: str) -> str:
        return text.lstrip(None if self.left == SPACES else self.left) if self.left else text

    def from_right(self, text: str) -> str:
        return text.rstrip(None if self.right == SPACES else self.right) if self.right else text


@dataclass(frozen=True)
class Frame:
    """What stands before and after a text, and what is stripped off the text."""

    before: str
    after: str
    strips: Strips = Strips()


class ChatTemplate:
    """How one tokenizer's chats are written.

    Args:
        tokenizer: with or without a template of its own.
        choice: ``agents.<name>.template``: ``none``, the name of a built-in one, a mapping with
            arguments for the template (``name`` in it: a built-in one), or None.
        where, option: name the model and its option in errors.

    Raises:
        AgentError: no such template, or an argument that it does not know.
    """

    def __init__(
        self,
        tokenizer: Any,
        choice: str | Mapping[str, Any] | None = None,
        where: str = "the model",
        option: str = "agents.<name>.template",
    ) -> None:
        arguments = dict(choice) if isinstance(choice, Mapping) else {}
        name = arguments.pop("name", None) if isinstance(choice, Mapping) else choice
        if name is not None and name not in TEMPLATES:
            raise AgentError(f"{option}={short(name)}: {did_you_mean(str(name), TEMPLATES)}")
        self.name, self._tokenizer = name, tokenizer
        self._renderer = Renderer(
            tokenizer, None if name == NONE else name, arguments, where, option
        )
        if name is None and tokenizer.chat_template is None:
            raise AgentError(
                f"{where} has no chat template, as base models have none; set {option}=none (the "
                f"prompt's text as it is), or to one of {', '.join(TEMPLATES[1:])}, or use an "
                "instruction-tuned model."
            )
        if name != NONE:
            self._renderer.check()

    def prompt(self, system: str | None) -> Frame:
        """Around the user's text, up to where the agent's own text begins.

        A system text for which the template has no place is put before the user's text.

        Raises:
            AgentError: the template drops, repeats or changes a text.
        """
        lead = f"{system}\n\n" if system else ""
        if self.name == NONE:
            return Frame(self._begin + lead, "")
        turns = [_turn("system", system)] if system and self._takes_system else []
        lead = "" if turns else lead
        try:
            return self._frame(lambda text: self._prompt([*turns, _turn("user", lead + text)]))
        except NoSuchTurnError as error:
            raise self._renderer.error(f"refuses a user's turn ({error})") from error

    @cached_property
    def answer(self) -> Frame:
        """Around the agent's own text, from the end of its prompt on.

        Raises:
            AgentError: the template drops, repeats or changes the text.
        """
        if self.name == NONE:
            return Frame("", "")
        turns = [_turn("user", OTHER)]

        def chat(text: str) -> str:
            return self._renderer.render([*turns, _turn("assistant", text)], False)

        try:
            frame, prompt = self._frame(chat), self._prompt(turns)
        except NoSuchTurnError as error:
            raise self._renderer.error(f"refuses an assistant's turn ({error})") from error
        # A prompt may end in what later turns leave out ("<think>"); the text then follows that.
        goes_on = frame.before.startswith(prompt)
        before = frame.before.removeprefix(prompt) if goes_on else ""
        return Frame(before, frame.after, frame.strips)

    @cached_property
    def _takes_system(self) -> bool:
        """Whether the template has a place for a system text, where it stands once."""
        try:
            text = self._prompt([_turn("system", OTHER), _turn("user", MARK)])
        except NoSuchTurnError:  # Gemma and Mistral style: "roles must alternate"
            return False
        if (times := text.count(OTHER)) > 1:
            raise self._renderer.error(f"puts the system text {times} times, not exactly once")
        return times == 1

    @cached_property
    def _begin(self) -> str:
        """What the tokenizer puts before a text: its beginning-of-text token, or nothing."""
        whole = self._tokenizer("x")["input_ids"]
        plain = self._tokenizer("x", add_special_tokens=False)["input_ids"]
        starts = (i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        return "".join(self._tokenizer.convert_ids_to_tokens(whole[: next(starts, 0)]))

    def _prompt(self, turns: list[Turn]) -> str:
        return self._renderer.render(turns, True)

    def _frame(self, chat: Callable[[str], str]) -> Frame:
        """Around the text of a chat; ``chat`` renders it with a text."""
        text = chat(MARK)
        if (times := text.count(MARK)) != 1:
            raise self._renderer.error(f"puts a text {times} times, not exactly once")
        if chat(MARK) != text:
            raise self._renderer.error("writes something else each time")
        before, after = text.split(MARK)
        left = right = ""
        for space in SPACES:
            head, _, tail = chat(f"{space}{MARK}{space}").partition(MARK)
            if head not in (before, before + space) or tail not in (after, space + after):
                raise self._renderer.error("changes the white space around a text")
            left += space if head == before else ""
            right += space if tail == after else ""
        return Frame(before, after, Strips(left, right))


def _turn(role: str, content: str | None) -> Turn:
    return {"role": role, "content": content or ""}
