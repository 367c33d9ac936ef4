# SPDX-License-Identifier: Apache-2.0
"""The node in a process of its own: started anew as a user does, or forked from a server that has imported all of it.

Importing torch, numba and ROS takes a node five seconds of CPU time, a fork next to nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from support.coarse_predictions import coarse_predictions
from support.waiting import PATIENCE, wait_until

TESTS = Path(__file__).resolve().parent.parent


class NodeProcess:
    """`python -m pixel4d_ros.ros.forecast_node` with its output in a file."""

    def __init__(self, log: Path, *arguments: str, **parameters: Any) -> None:
        self._log = log
        self.process = self._start(ros_words(arguments, parameters))

    def _start(self, words: list[str]) -> Any:
        command = [sys.executable, "-m", "pixel4d_ros.ros.forecast_node", *words]
        with self._log.open("w") as file:
            return subprocess.Popen(command, stdout=file, stderr=file, env=_environment())

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def errors(self) -> list[str]:
        """Its ERROR lines."""
        return [line for line in self.log.splitlines() if "[ERROR]" in line]

    @property
    def resident_mib(self) -> float:
        """Its resident memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def wait_for(self, words: str, count: int = 1) -> None:
        """Wait until these words are in the log so many times."""

        def logged() -> bool:
            alive = self.process.poll() is None
            found = self.log.count(words) >= count
            assert found or alive, f"the node ended with {self.process.returncode}:\n{self.log}"
            return found

        wait_until(logged, lambda: f"{words!r} not in the log:\n{self.log}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """End it; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


class ForkedNodeProcess(NodeProcess):
    """The same node, or a program in its place, in a fork of a process that has imported it.

    Its predictions are coarse (see coarse_predictions) unless `fine`.
    """

    def __init__(
        self, log: Path, *arguments: str, program: Sequence[str] = (), fine: bool = False, **parameters: Any
    ) -> None:
        self._program, self._fine = program, fine
        super().__init__(log, *arguments, **parameters)

    def _start(self, words: list[str]) -> Any:
        return Fork(*self._program[:1], words=[*self._program[1:], *words], log=self._log, fine=self._fine)


@contextmanager
def running_node(log: Path, *arguments: str, **parameters: Any) -> Iterator[NodeProcess]:
    """A forked node that is active (or, with autostart false, there); ended at the end.

    A busy machine may take seconds between two steps of a test, so the node calls itself STALE later than by default.
    """
    node = ForkedNodeProcess(log, *arguments, **{"diagnostics_silence": PATIENCE, **parameters})
    try:
        if parameters.get("autostart", "true") == "true":
            node.wait_for("active: ")
        yield node
    finally:
        node.stop()


def ros_words(arguments: Sequence[str], parameters: dict[str, Any]) -> list[str]:
    """The words of a command line with these ROS arguments and parameters."""
    return [
        "--ros-args",
        *arguments,
        *(word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")),
    ]


def _environment() -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1"}


class Fork:
    """A fork that runs the node, or the Python file given, with the methods of Popen that tests use."""

    def __init__(self, file: str | None = None, *, words: Sequence[str], log: Path, fine: bool) -> None:
        log.write_bytes(b"")  # its reader does not wait for the fork
        arguments = (file, list(words), _environment(), log, fine)
        self._process = _server().Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("forecast_node", timeout)
        return self._process.exitcode

    def send_signal(self, how: signal.Signals) -> None:
        assert self.pid is not None
        os.kill(self.pid, how)

    def kill(self) -> None:
        self._process.kill()


@cache
def _server() -> ForkServerContext:
    """The fork server of this test process. It ends with it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.node_imports"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), before]))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def _run(file: str | None, words: list[str], environment: dict[str, str], log: Path, fine: bool) -> None:
    """In the fork: its output into the file, then the node, or a program as `python FILE` runs it."""
    with log.open("wb") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [file or "forecast_node", *words]
    with nullcontext() if fine else coarse_predictions():
        if file is not None:
            runpy.run_path(file, run_name="__main__")
            return
        from pixel4d_ros.ros.forecast_node import main

        sys.exit(main())
