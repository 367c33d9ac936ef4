"""One thread that always works on the newest item: what arrives meanwhile replaces what waits, nothing queues."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")


class LatestWorker(Generic[Item]):
    """Calls handle(item) on its own thread. handle must not raise: what should happen then is its owner's to decide."""

    def __init__(self, handle: Callable[[Item], None]) -> None:
        self._handle = handle
        self._changed = Condition()
        self._waiting: Item | None = None
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

    def clear(self) -> None:
        """Forget the item that waits; the one in work goes on."""
        with self._changed:
            self._waiting = None

    def stop(self) -> None:
        """Finish the item in work, forget the waiting one and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting is not None)
                item, self._waiting = self._waiting, None
                if self._stopping:
                    return
            assert item is not None
            self._handle(item)
