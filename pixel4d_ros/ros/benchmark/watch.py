# SPDX-License-Identifier: Apache-2.0
"""Wait while a program is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from pixel4d_ros.ros.processes import Child, ProcessError


@dataclass(frozen=True)
class Watch:
    """A measured program. Waiting ends when the program ends or the user interrupts."""

    child: Child
    stop: Event

    def check(self) -> None:
        """Raise KeyboardInterrupt when interrupted, ProcessError when the program has ended."""
        # In this order: Ctrl-C reaches the program too.
        if self.stop.is_set():
            raise KeyboardInterrupt
        self.child.check_alive()

    def wait(self, true: Callable[[], bool], seconds: float, complaint: str, poll_s: float = 0.01) -> None:
        """Wait until a condition holds. Raises as check does, and ProcessError(complaint) after the timeout."""
        end = time.monotonic() + seconds
        while not true():
            self.check()
            if time.monotonic() > end:
                raise ProcessError(f"{complaint} (waited {seconds:g} s){self.child.last_words()}")
            time.sleep(poll_s)

    def rest(self, seconds: float) -> None:
        """Sleep. Raises as check does."""
        self.stop.wait(seconds)
        self.check()
