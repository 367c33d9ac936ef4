# SPDX-License-Identifier: Apache-2.0
"""Timing of a device: CUDA events on a GPU, the processor's clock elsewhere."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from pixel4d_ros.benchmark.statistics import Spread

MIB = 2**20


@dataclass(frozen=True)
class Effort:
    """Numbers of runs."""

    runs: int
    warm_up: int  # runs before, which are not counted

    def __post_init__(self) -> None:
        if self.runs < 1 or self.warm_up < 0:
            raise ValueError(f"--runs must be at least 1 and --warm-up at least 0, got {self.runs} and {self.warm_up}")


@dataclass(frozen=True)
class Memory:
    """The most GPU memory that torch's allocator held at a time, MiB; the weights are part of it."""

    allocated: float
    reserved: float  # with what it keeps for later, and the memory of CUDA graphs


class Stopwatch:
    """Laps of one run. On a GPU nothing is waited for until the laps are read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._names: list[str] = []
        self._marks: list[Any] = [self._mark()]

    def restart(self) -> None:
        """Begin anew: what came before was preparation."""
        self._names, self._marks = [], [self._mark()]

    def lap(self, name: str) -> None:
        """End the lap of that name; the next begins."""
        self._names.append(name)
        self._marks.append(self._mark())

    def laps(self) -> dict[str, float]:
        """Milliseconds of each lap."""
        if self._device.type == "cuda":
            self._marks[-1].synchronize()
            times = [a.elapsed_time(b) for a, b in zip(self._marks, self._marks[1:])]
        else:
            times = [1e3 * (b - a) for a, b in zip(self._marks, self._marks[1:])]
        return dict(zip(self._names, times))

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


def measure_laps(
    run: Callable[[Stopwatch], object], device: torch.device, effort: Effort, name: str
) -> dict[str, Spread]:
    """Time the laps of many runs; each run begins with an idle device and ends laps on its stopwatch."""
    times: dict[str, list[float]] = defaultdict(list)
    for i in _rounds(effort, name):
        synchronize(device)
        watch = Stopwatch(device)
        run(watch)
        laps = watch.laps()
        if i >= effort.warm_up:
            for lap, milliseconds in laps.items():
                times[lap].append(milliseconds)
    return {lap: Spread.of(values) for lap, values in times.items()}


def measure_wall(run: Callable[[], object], device: torch.device, effort: Effort, name: str) -> Spread:
    """Wall time of runs that begin and end on the host; each begins with an idle device."""
    times = []
    for i in _rounds(effort, name):
        synchronize(device)
        began = time.perf_counter()
        run()
        if i >= effort.warm_up:
            times.append(1e3 * (time.perf_counter() - began))
    return Spread.of(times)


def _rounds(effort: Effort, name: str) -> Iterator[int]:
    yield from tqdm(range(effort.warm_up + effort.runs), name, unit="run", leave=False, mininterval=0.5)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], Memory | None]]:
    """Watch a GPU's memory; the yielded function returns the peak since then, None on the CPU."""
    if device.type != "cuda":
        yield lambda: None
        return
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)

    def peak() -> Memory:
        allocated = torch.cuda.max_memory_allocated(device) / MIB
        return Memory(allocated, torch.cuda.max_memory_reserved(device) / MIB)

    yield peak
