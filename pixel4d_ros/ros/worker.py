# SPDX-License-Identifier: Apache-2.0
"""One thread that works on the newest item. An item that arrives meanwhile replaces the waiting one: nothing queues.

Requests each need a response. They are served in their order, before the waiting item, and only a few may wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
PendingRequest = TypeVar("PendingRequest")
MAX_REQUESTS = 8  # that may wait; further ones are rejected at once


class LatestWorker(Generic[Item, PendingRequest]):
    """Calls handle(item) and respond(request) on its own thread. Neither may raise."""

    def __init__(self, handle: Callable[[Item], None], respond: Callable[[PendingRequest], None] | None = None) -> None:
        self._handle = handle
        self._respond = respond
        self._changed = Condition()
        self._waiting: Item | None = None
        self._requests: deque[PendingRequest] = deque()
        self._stopping = False
        self._thread = Thread(target=self._run, name="forecast", daemon=True)
        self._thread.start()

    def offer(self, item: Item) -> bool:
        """Hand over an item. Returns true when it replaced a waiting one, which is dropped."""
        with self._changed:
            dropped = self._waiting is not None
            self._waiting = item
            self._changed.notify()
        return dropped

    def submit(self, request: PendingRequest) -> bool:
        """Hand over a request. Returns false when too many wait already, or the worker is ending."""
        with self._changed:
            if self._stopping or len(self._requests) >= MAX_REQUESTS:
                return False
            self._requests.append(request)
            self._changed.notify()
        return True

    def clear(self) -> None:
        """Forget the waiting item; current work goes on."""
        with self._changed:
            self._waiting = None

    def stop(self) -> list[PendingRequest]:
        """Finish the current work, forget the waiting item and end the thread. Returns the unanswered requests."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        return list(self._requests)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._requests or self._waiting is not None)
                if self._stopping:
                    return
                request = self._requests.popleft() if self._requests else None
                item = None
                if request is None:
                    item, self._waiting = self._waiting, None
            if request is not None:
                assert self._respond is not None
                self._respond(request)
            elif item is not None:
                self._handle(item)
