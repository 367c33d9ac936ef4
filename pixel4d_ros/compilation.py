# SPDX-License-Identifier: Apache-2.0
"""Report that numba compiles, which takes minutes where its cache is empty or out of date.

This imports numba: import it late.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from numba.core.event import Event, Listener, install_listener

BEGUN = "compiling the CPU's loops with numba: up to three minutes, at the first start only"


class _FirstCompilation(Listener):
    """Calls `begun` when numba compiles its first function. Functions in its cache are loaded without an event."""

    def __init__(self, begun: Callable[[], object]) -> None:
        self._begun = begun
        self.began_at: float | None = None

    def on_start(self, event: Event) -> None:
        if self.began_at is None:
            self.began_at = time.monotonic()
            self._begun()

    def on_end(self, event: Event) -> None:
        pass


@contextmanager
def announced_compilation(say: Callable[[str], object]) -> Iterator[None]:
    """Say when numba begins to compile within the context, and at its end how long it took. Else say nothing."""
    listener = _FirstCompilation(lambda: say(BEGUN))
    with install_listener("numba:compile", listener):
        yield
    if listener.began_at is not None:
        say(f"compiled in {time.monotonic() - listener.began_at:.0f} s: later starts load it from numba's cache")
