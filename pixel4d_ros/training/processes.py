# SPDX-License-Identifier: Apache-2.0
"""The processes of a run: one, or several under torchrun, which stop together when one of them is asked to."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Team:
    """This process among those of the run."""

    device: torch.device
    rank: int
    world: int

    def agree(self, progress: float, stopping: bool) -> tuple[float, bool]:
        """The largest progress of all processes, and whether any of them is stopping: all must do the same."""
        if self.world == 1:
            return progress, stopping
        values = torch.tensor([progress, float(stopping)], dtype=torch.float64)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return float(values[0]), bool(values[1])


@contextmanager
def join_processes(device: str) -> Iterator[Team]:
    """Join the processes that torchrun started, as its environment variables name them, and leave them in the end."""
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Team(torch.device(kind), 0, 1)
        return
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if kind == "cuda":
        torch.cuda.set_device(local)
        kind = f"cuda:{local}"
    dist.init_process_group("cpu:gloo,cuda:nccl" if kind.startswith("cuda") else "gloo")
    try:
        yield Team(torch.device(kind), rank, world)
        dist.barrier()
    finally:
        dist.destroy_process_group()


class StopRequest:
    """Ctrl-C and SIGTERM as something to ask for between steps; a second one ends a process as usual."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextmanager
    def listen(self) -> Iterator[StopRequest]:
        """Until the end of the block. Only the main thread may listen; elsewhere signals stay as they are."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        kinds = (signal.SIGINT, signal.SIGTERM)
        before = {kind: signal.signal(kind, self._note) for kind in kinds}
        try:
            yield self
        finally:
            for kind in kinds:
                signal.signal(kind, before[kind])

    def _note(self, kind: int, frame: FrameType | None) -> None:
        self.signal = kind
        if "WORLD_SIZE" not in os.environ:  # torchrun passes a terminal's Ctrl-C on, and ends who is late by itself
            signal.signal(kind, signal.default_int_handler if kind == signal.SIGINT else signal.SIG_DFL)
