# SPDX-License-Identifier: Apache-2.0
"""For tests of `pixel4d replay` and `record` over real DDS: the commands as processes of their own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from pixel4d_ros.logs.reader import LogReader
from support.paths import REPOSITORY

PATIENCE_S = 60.0


def command(*arguments: object) -> list[str]:
    """The words of a `pixel4d` command."""
    return [sys.executable, "-m", "pixel4d_ros.cli", *map(str, arguments)]


def start(environment: dict[str, str], words: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """A process whose output can be read."""
    pipe = subprocess.PIPE
    return subprocess.Popen(words, env=environment, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True, **options)


def hear(stream: IO[str] | None, words: str, count: int = 1) -> str:
    """What a process that runs says, until these words have come so many times."""
    assert stream is not None
    said, end = "", time.monotonic() + PATIENCE_S
    while said.count(words) < count:
        assert time.monotonic() < end, f"waited {PATIENCE_S:g} s in vain for {words!r}:\n{said}"
        if select.select([stream], [], [], 0.1)[0]:
            # os.read bypasses the stream's buffer, which would hide from select what is left in it.
            chunk = os.read(stream.fileno(), 1000)
            assert chunk, f"it ended without {words!r}:\n{said}"
            said += chunk.decode(errors="replace")
    return said


def stopped(process: subprocess.Popen[str], how: signal.Signals | None = None) -> tuple[int, str]:
    """The exit code and all that it said, once it has ended, by a signal where one is given."""
    if how is not None:
        process.send_signal(how)
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out + err


def finish(process: subprocess.Popen[str], how: signal.Signals | None = None) -> str:
    """What it said; it must have ended well."""
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
