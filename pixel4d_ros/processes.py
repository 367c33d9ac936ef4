# SPDX-License-Identifier: Apache-2.0
"""Programs that run side by side: started, watched, stopped; one that dies is reported with its last words."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.05
LAST_LINES = 8


class ProcessError(ChildProcessError):
    """A program that died, or did not do what it was waited for; the message holds its last lines."""


@dataclass
class Child:
    """A running program; what it says goes to a file."""

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
        """All it has said so far."""
        return self.log.read_text(errors="replace")

    def check_alive(self) -> None:
        """Raise ProcessError when the program has ended."""
        code = self.process.poll()
        if code is not None:
            raise ProcessError(f"the {self.name} ended with code {code}{self.last_words()}")

    def last_words(self) -> str:
        """Its last lines, for an error message."""
        lines = [line for line in self.output.splitlines() if line.strip()][-LAST_LINES:]
        return "".join(f"\n  | {line}" for line in lines) + (f"\n  all of it: {self.log}" if lines else "")

    def wait_for_output(self, text: str, others: Sequence[Child], timeout: float) -> bool:
        """Wait until it has said some text; False when time is up. Raises ProcessError when a program ends first."""
        deadline = time.monotonic() + timeout
        while text not in self.output:
            for child in (self, *others):
                child.check_alive()
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def stop(self, timeout: float = 20) -> None:
        """Ask it to end. Raises ProcessError when it does not, or ends badly."""
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
        """Make sure that it has ended, however it takes that."""
        with suppress(ProcessError):
            self.stop(timeout=5)


def ros_environment() -> dict[str, str]:
    """The environment with a ROS domain of this process on this machine only, unless the user chose one."""
    private = {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100), "PYTHONUNBUFFERED": "1"}
    if "ROS_LOCALHOST_ONLY" not in os.environ:
        private["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    return {**private, **os.environ}
