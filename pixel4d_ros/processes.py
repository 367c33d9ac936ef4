"""Programs that run side by side: started, watched, stopped; one that dies is reported with its last words."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.05
LAST_LINES = 8


class ProcessError(RuntimeError):
    """A program that died, or did not do what it was waited for; the message holds its last lines."""


@dataclass
class Child:
    """A running program; what it says goes to a file, or to the terminal where there is none."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path | None

    @staticmethod
    def start(name: str, command: Sequence[str], environment: dict[str, str], log: Path | None) -> Child:
        """Start a program with its output in the file log (None: in the terminal)."""
        if log is None:
            return Child(name, subprocess.Popen(command, env=environment), None)
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        return Child(name, process, log)

    @property
    def output(self) -> str:
        """All it has said so far."""
        return self.log.read_text(errors="replace") if self.log else ""

    def check_alive(self) -> None:
        """Raise ProcessError when the program has ended."""
        code = self.process.poll()
        if code is not None:
            raise ProcessError(f"the {self.name} ended with code {code}{self.last_words()}")

    def last_words(self) -> str:
        """Its last lines, for an error message."""
        lines = [line for line in self.output.splitlines() if line.strip()][-LAST_LINES:]
        return "".join(f"\n  | {line}" for line in lines) + (f"\n  all of it: {self.log}" if self.log else "")

    def wait_for_output(self, text: str, others: Sequence[Child], timeout: float) -> None:
        """Wait until it has said some text. Raises ProcessError when a program ends or time is up."""
        deadline = time.monotonic() + timeout
        while text not in self.output:
            for child in (self, *others):
                child.check_alive()
            if time.monotonic() > deadline:
                words = "".join(child.last_words() for child in others)
                raise ProcessError(f"the {self.name} did not say {text!r} within {timeout:g} s{words}")
            time.sleep(POLL_S)

    def wait(self, others: Sequence[Child]) -> None:
        """Wait until it ends well while others run. Raises ProcessError when it or one of them fails."""
        while self.process.poll() is None:
            for child in others:
                child.check_alive()
            time.sleep(POLL_S)
        if self.process.returncode != 0:
            self.check_alive()

    def stop(self, timeout: float = 20) -> None:
        """Ask it to end, then insist. Raises ProcessError when it had to be killed or ended badly."""
        asked = self.process.poll() is None
        if asked:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise ProcessError(f"the {self.name} did not stop within {timeout:g} s{self.last_words()}") from None
        if self.process.returncode != 0:
            self.check_alive()

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
