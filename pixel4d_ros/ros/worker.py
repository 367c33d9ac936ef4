"""One thread that always works on the newest item: what arrives meanwhile replaces what waits, nothing queues.

Questions are another matter: each wants its answer. They are taken in their order, before the item that waits, and
only a few may wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
PendingRequest = TypeVar("PendingRequest")
MAX_QUESTIONS = 8  # that wait; who asks more often than that can be answered is told so at once


class LatestWorker(Generic[Item, PendingRequest]):
    """Calls handle(item) and answer(question) on its own thread. They must not raise: that is their owner's matter."""

    def __init__(self, handle: Callable[[Item], None], answer: Callable[[PendingRequest], None] | None = None) -> None:
        self._handle = handle
        self._answer = answer
        self._changed = Condition()
        self._waiting: Item | None = None
        self._questions: deque[PendingRequest] = deque()
        self._stopping = False
        self._thread = Thread(target=self._run, name="forecast", daemon=True)
        self._thread.start()

    def offer(self, item: Item) -> bool:
        """Hand over an item; true when it replaced one that still waited, which is dropped."""
        with self._changed:
            dropped = self._waiting is not None
            self._waiting = item
            self._changed.notify()
        return dropped

    def ask(self, question: PendingRequest) -> bool:
        """Hand over a question; false when too many wait already, or the worker ends."""
        with self._changed:
            if self._stopping or len(self._questions) >= MAX_QUESTIONS:
                return False
            self._questions.append(question)
            self._changed.notify()
        return True

    def clear(self) -> None:
        """Forget the item that waits; the one in work goes on."""
        with self._changed:
            self._waiting = None

    def stop(self) -> list[PendingRequest]:
        """Finish what is in work, forget the waiting item, end the thread; the questions left unanswered."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        return list(self._questions)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._questions or self._waiting is not None)
                if self._stopping:
                    return
                question = self._questions.popleft() if self._questions else None
                item = None
                if question is None:
                    item, self._waiting = self._waiting, None
            if question is not None:
                assert self._answer is not None
                self._answer(question)
            elif item is not None:
                self._handle(item)
