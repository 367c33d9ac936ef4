# SPDX-License-Identifier: Apache-2.0
"""For tests of `pixel4d replay` and `record` over real DDS: the commands as processes of their own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from pixel4d_ros.cli import main
from pixel4d_ros.logs.reader import LogReader
from support.paths import REPOSITORY
from support.waiting import PATIENCE, wait_until


def command(*arguments: object) -> list[str]:
    """The words of a `pixel4d` command."""
    return [sys.executable, "-m", "pixel4d_ros.cli", *map(str, arguments)]


def run_here(environment: dict[str, str], *arguments: object) -> int:
    """The exit code of a `pixel4d` command that runs in this process, for what needs no process of its own.

    A start costs a second or two of CPU time; capfd and caplog have what it says.
    """
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        return main([str(word) for word in arguments])
    finally:
        os.environ.clear()
        os.environ.update(before)


def start(environment: dict[str, str], words: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """A process whose output can be read."""
    pipe = subprocess.PIPE
    return subprocess.Popen(words, env=environment, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True, **options)


def hear(stream: IO[str] | None, words: str, count: int = 1) -> str:
    """The output of a running process, until these words have come so many times."""
    assert stream is not None
    said = ""

    def read() -> None:
        nonlocal said
        if select.select([stream], [], [], 0.1)[0]:
            # os.read bypasses the stream's buffer, which would hide from select what is left in it.
            chunk = os.read(stream.fileno(), 1000)
            assert chunk, f"it ended without {words!r}:\n{said}"
            said += chunk.decode(errors="replace")

    wait_until(lambda: said.count(words) >= count, lambda: f"no {words!r} in\n{said}", read)
    return said


def stopped(process: subprocess.Popen[str], how: signal.Signals | None = None) -> tuple[int, str]:
    """The exit code and all that it said, once it has ended, by a signal where one is given."""
    if how is not None:
        process.send_signal(how)
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out + err


def finish(process: subprocess.Popen[str], how: signal.Signals | None = None) -> str:
    """All that it said; its exit code must be 0."""
    code, said = stopped(process, how)
    assert code == 0, said
    return said


def recorder(out: Path, environment: dict[str, str], *topics: str) -> subprocess.Popen[str]:
    """`pixel4d record` of these topics."""
    return start(environment, command("record", out, "--topics", *topics))


def arrivals(out: Path, topic: str) -> np.ndarray:
    """When a recorder on the wall clock got this topic's messages, s."""
    with LogReader(out) as log:
        return np.array([m.time_ns for m in log.raw([topic])]) * 1e-9


def pace_error(came: np.ndarray, due: np.ndarray) -> float:
    """How much longer the messages took than they should have, s, by the most punctual of the first and last third.

    A wrong pace shows; single messages that a busy machine delays do not.
    """
    late, third = came - due, len(came) // 3
    return float(late[-third:].min() - late[:third].min())
