# SPDX-License-Identifier: Apache-2.0
"""Run the commands of a setup step: their output goes to a log, one line of progress to the screen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Sequence

BAR_WIDTH = 24
TAIL_LINES = 25


class StepFailed(RuntimeError):
    """A command of a step ended with an error; `output` holds what it printed."""

    def __init__(self, command: str, output: str) -> None:
        super().__init__(f"{command} failed")
        self.output = output


class Progress:
    """One line with step, time and detail, updated on a terminal; two lines per step in a log file."""

    def __init__(self, total: int, log_path: Path) -> None:
        log_path.parent.mkdir(exist_ok=True)
        self.log = log_path.open("w", encoding="utf-8", errors="replace")
        self.log_path = log_path
        self.total = total
        self.done = 0
        self.title = ""
        self.detail = ""
        self.started = time.monotonic()
        self.moving = sys.stdout.isatty()

    def begin(self, title: str) -> None:
        self.title, self.detail, self.started = title, "", time.monotonic()
        self.log.write(f"\n=== {title}\n")
        self.log.flush()
        if not self.moving:
            print(f"[{self.done + 1}/{self.total}] {title} ...", flush=True)

    def end(self) -> None:
        self.done += 1
        seconds = time.monotonic() - self.started
        if self.moving:
            self._write(f"[{self.done}/{self.total}] {self.title}: {seconds:.0f} s\n")
        else:
            print(f"[{self.done}/{self.total}] {self.title}: done in {seconds:.0f} s", flush=True)

    def show(self) -> None:
        """Redraw the progress line."""
        if not self.moving:
            return
        filled = BAR_WIDTH * self.done // self.total
        bar = "#" * filled + ">" + "." * (BAR_WIDTH - filled - 1)
        seconds = time.monotonic() - self.started
        self._write(f"[{bar}] {self.done + 1}/{self.total} {self.title} {seconds:4.0f} s  {self.detail}")

    def close(self) -> None:
        self.log.close()

    def _write(self, line: str) -> None:
        width = shutil.get_terminal_size().columns
        newline = "\n" if line.endswith("\n") else ""
        sys.stdout.write("\r\033[K" + line.rstrip("\n")[: width - 1] + newline)
        sys.stdout.flush()

    def run(self, command: Sequence[str | Path], environment: dict[str, str] | None = None) -> str:
        """Run a command to its end, its output in the log; StepFailed when it ends with an error."""
        words = [str(word) for word in command]
        self.log.write("$ " + " ".join(words) + "\n")
        self.log.flush()
        process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        lines: list[str] = []
        reader = threading.Thread(target=self._read, args=(process, lines), daemon=True)
        reader.start()
        try:
            while reader.is_alive():
                self.show()
                reader.join(0.2)
        except KeyboardInterrupt:
            process.terminate()
            raise
        if process.wait() != 0:
            raise StepFailed(os.path.basename(words[0]), "".join(lines))
        return "".join(lines)

    def _read(self, process: subprocess.Popen[str], lines: list[str]) -> None:
        assert process.stdout is not None  # opened with PIPE
        with process.stdout as output:
            for line in output:
                lines.append(line)
                self.log.write(line)
                self.log.flush()
                if line.strip():
                    self.detail = line.strip()

    def tail(self, output: str) -> str:
        """The last lines of a command's output, which show the reason of an error."""
        return "\n".join("    " + line for line in output.strip().splitlines()[-TAIL_LINES:])
