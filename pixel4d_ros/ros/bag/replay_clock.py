# SPDX-License-Identifier: Apache-2.0
"""The clock of a replay: follows the wall clock, stops while paused."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

KEY_PERIOD_S = 0.1


@dataclass
class ReplayClock:
    """Maps wall time to log time, and measures the lag."""

    start_ns: int
    rate: float
    stop: Event
    began: float = field(default_factory=time.monotonic)
    max_lag: float = 0.0  # s of wall time

    def wait_until(self, log_ns: int) -> None:
        """Sleep until a log time; returns at once when late or stopped."""
        remaining = self.began + (log_ns - self.start_ns) * 1e-9 / self.rate - time.monotonic()
        if remaining > 0:
            self.stop.wait(remaining)
        else:
            self.max_lag = max(self.max_lag, -remaining)

    def now_ns(self) -> int:
        """The current log time."""
        return self.start_ns + int((time.monotonic() - self.began) * self.rate * 1e9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the log time within the context."""
        began = time.monotonic()
        yield
        self.began += time.monotonic() - began


def toggle(event: Event) -> None:
    """Invert an event."""
    (event.clear if event.is_set() else event.set)()


@contextmanager
def space_bar(paused: Event, stop: Event) -> Iterator[bool]:
    """The space bar pauses and resumes, as in `ros2 bag play`; yields whether there is a keyboard.

    There is none if stdin is no terminal, or this is a background job of the shell.
    """
    import termios
    import tty

    keyboard = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    if keyboard is None or os.tcgetpgrp(keyboard) != os.getpgrp():
        yield False
        return
    before = termios.tcgetattr(keyboard)
    done = Event()
    listener = Thread(target=_listen, args=(keyboard, paused, stop, done), daemon=True)
    try:
        tty.setcbreak(keyboard)  # unbuffered, without echo; Ctrl-C still interrupts
        listener.start()
        yield True
    finally:
        done.set()
        listener.join()
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _listen(keyboard: int, paused: Event, stop: Event, done: Event) -> None:
    while not (stop.is_set() or done.is_set()):
        if not select.select([keyboard], [], [], KEY_PERIOD_S)[0]:
            continue
        keys = os.read(keyboard, 64)
        if not keys:
            return  # the terminal was closed
        if keys.count(b" ") % 2:
            toggle(paused)
