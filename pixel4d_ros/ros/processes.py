# SPDX-License-Identifier: Apache-2.0
"""Child processes: start, watch, stop; failures are reported with their last output."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

POLL_S = 0.05
LAST_LINES = 8


class ProcessError(ChildProcessError):
    """A program ended or timed out; the message contains its last lines."""


@dataclass
class Child:
    """A running program whose output goes to a file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @staticmethod
    def start(
        name: str, command: Sequence[str], environment: dict[str, str], log: Path, show_errors: bool = False
    ) -> Child:
        """Start a program with its output in the file log; show_errors: stderr, with progress bars, in the terminal."""
        with log.open("wb") as output:
            errors = None if show_errors else subprocess.STDOUT
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=errors)
        return Child(name, process, log)

    @property
    def output(self) -> str:
        """Its output so far."""
        return self.log.read_text(errors="replace")

    def check_alive(self) -> None:
        """Raise ProcessError when the program has ended."""
        code = self.process.poll()
        if code is not None:
            raise ProcessError(f"the {self.name} ended with code {code}{self.last_words()}")

    def last_words(self) -> str:
        """Its last lines, for an error message."""
        lines = [line for line in self.output.splitlines() if line.strip()][-LAST_LINES:]
        return "".join(f"\n  | {line}" for line in lines) + (f"\n  full output: {self.log}" if lines else "")

    def wait_for_output(self, text: str, others: Sequence[Child], timeout: float) -> bool:
        """Wait for a text in the output; False after the timeout. Raises ProcessError if a program ends first."""
        deadline = time.monotonic() + timeout
        while text not in self.output:
            for child in (self, *others):
                child.check_alive()
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def stop(self, timeout: float = 20) -> None:
        """Stop it by SIGINT. Raises ProcessError if it does not stop, or fails."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise ProcessError(f"the {self.name} did not stop within {timeout:g} s{self.last_words()}") from None
        if self.process.returncode != 0:
            self.check_alive()

    def end(self) -> None:
        """Stop it, by force if necessary."""
        with suppress(ProcessError):
            self.stop(timeout=5)


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


def ros_environment() -> dict[str, str]:
    """The environment with a private ROS domain on this machine, unless the user chose a domain."""
    private = {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100), "PYTHONUNBUFFERED": "1"}
    if "ROS_LOCALHOST_ONLY" not in os.environ:
        private["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    return {**private, **os.environ}
