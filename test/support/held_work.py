# SPDX-License-Identifier: Apache-2.0
"""Work that tests of threads hold back, so that they do not depend on how busy the machine is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Semaphore, Thread
from unittest.mock import patch

from support.waiting import PATIENCE


class HeldWork:
    """Work on an item: it begins, waits until the test lets it end, and notes the item in `done`."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self._begun, self._go_on = Semaphore(0), Semaphore(0)

    def __call__(self, item: object) -> None:
        self._begun.release()
        assert self._go_on.acquire(timeout=PATIENCE)
        self.done.append(item)

    def begins(self) -> None:
        """Wait until the next item is in work."""
        assert self._begun.acquire(timeout=PATIENCE)

    def goes_on(self) -> None:
        """Let the item in work end."""
        self._go_on.release()

    @contextmanager
    def ends_when_awaited(self) -> Iterator[None]:
        """Let the item in work end as soon as another thread waits for the end of its thread."""
        join = Thread.join

        def release_and_join(thread: Thread, timeout: float | None = None) -> None:
            self.goes_on()
            join(thread, timeout)

        with patch.object(Thread, "join", release_and_join):
            yield
