# SPDX-License-Identifier: Apache-2.0
"""Work that tests of threads hold back, so that they do not depend on how busy the machine is."""

from __future__ import annotations

from threading import Semaphore

PATIENCE_S = 60.0


class HeldWork:
    """Does nothing with an item but to note it, once the test lets it go on."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self._begun, self._go_on = Semaphore(0), Semaphore(0)

    def __call__(self, item: object) -> None:
        self._begun.release()
        assert self._go_on.acquire(timeout=PATIENCE_S)
        self.done.append(item)

    def begins(self) -> None:
        """Wait until the next item is in work."""
        assert self._begun.acquire(timeout=PATIENCE_S)

    def goes_on(self) -> None:
        """Let the item in work end."""
        self._go_on.release()
