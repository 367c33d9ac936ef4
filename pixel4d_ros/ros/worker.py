# SPDX-License-Identifier: Apache-2.0
"""One thread that processes the newest item; a newer item replaces the waiting one.

Requests each need a response: they are queued, up to MAX_REQUESTS, and served before the waiting item. While nothing is
to be done, `idle` is called every IDLE_S.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
PendingRequest = TypeVar("PendingRequest")
IDLE_S = 0.25
MAX_REQUESTS = 8  # queue length; further requests are rejected


class LatestWorker(Generic[Item, PendingRequest]):
    """Calls handle(item), respond(request) and idle() on its own thread. None of them may raise."""

    def __init__(
        self,
        handle: Callable[[Item], None],
        respond: Callable[[PendingRequest], None] | None = None,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._handle, self._respond, self._idle = handle, respond, idle
        self._changed = Condition()
        self._waiting: Item | None = None
        self._requests: deque[PendingRequest] = deque()
        self._stopping = False
        self._thread = Thread(target=self._run, name="forecast", daemon=True)
        self._thread.start()

    def offer(self, item: Item) -> bool:
        """Offer an item. Returns whether it replaced a waiting one, which is dropped."""
        with self._changed:
            dropped = self._waiting is not None
            self._waiting = item
            self._changed.notify()
        return dropped

    def submit(self, request: PendingRequest) -> bool:
        """Queue a request. Returns false if the queue is full or the worker is stopping."""
        with self._changed:
            if self._stopping or len(self._requests) >= MAX_REQUESTS:
                return False
            self._requests.append(request)
            self._changed.notify()
        return True

    def clear(self) -> bool:
        """Drop the waiting item; current work continues. Returns whether one was waiting."""
        with self._changed:
            dropped = self._waiting is not None
            self._waiting = None
        return dropped

    def stop(self) -> list[PendingRequest]:
        """Finish the current work, drop the waiting item and end the thread. Returns the unanswered requests."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        return list(self._requests)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._requests or self._waiting is not None, IDLE_S)
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
            else:
                self._idle()
