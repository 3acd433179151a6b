"""Conversations that are held at the same time and ask one model in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Condition
from typing import Any

Ask = Callable[[Any], Any]  # request -> reply


def hold(talks: Sequence[Callable[[Ask], Any]], answer: Callable[[list[Any]], list[Any]]) -> list:
    """What each conversation returns.

    Args:
        talks: each gets a function that asks for one reply and waits for it.
        answer: requests -> replies, in the order of ``talks``; called when all conversations that
            are not over wait for a reply, so what a batch holds does not depend on their speed.
    """
    together = _Together(answer, len(talks))

    def run(place: int) -> Any:
        try:
            return talks[place](partial(together.ask, place))
        finally:
            together.leave()

    with ThreadPoolExecutor(max(1, len(talks))) as pool:
        running = [pool.submit(run, place) for place in range(len(talks))]
        try:
            return [one.result() for one in running]
        except BaseException as error:
            together.stop(error)
            raise


class _Together:
    def __init__(self, answer: Callable[[list[Any]], list[Any]], talking: int) -> None:
        self._answer, self._talking = answer, talking
        self._changed = Condition()
        self._asked: dict[int, Any] = {}
        self._given: dict[int, Any] = {}
        self._failed: BaseException | None = None

    def ask(self, place: int, request: Any) -> Any:
        with self._changed:
            self._asked[place] = request
            self._answer_if_all_wait()
            self._changed.wait_for(lambda: place in self._given or self._failed is not None)
            if self._failed is not None:
                raise self._failed
            return self._given.pop(place)

    def leave(self) -> None:
        with self._changed:
            self._talking -= 1
            self._answer_if_all_wait()

    def stop(self, error: BaseException) -> None:
        with self._changed:
            self._failed = self._failed or error
            self._changed.notify_all()

    def _answer_if_all_wait(self) -> None:
        if self._failed is not None or not self._asked or len(self._asked) < self._talking:
            return
        places = sorted(self._asked)
        try:
            replies = self._answer([self._asked[place] for place in places])
            self._given |= dict(zip(places, replies, strict=True))
        except BaseException as error:  # every conversation has to end with it
            self._failed = error
        self._asked.clear()
        self._changed.notify_all()
