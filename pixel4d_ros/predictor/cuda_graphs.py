# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs: a computation of fixed shapes is recorded once, and then started as one piece."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

LARGEST_COUNT = 3  # graphs kept; each holds the memory of its computation
MOST_AT_ONCE = 4  # computations side by side
EAGER_PATH = "eager, float32"  # what runs where a computation cannot be recorded
WARM_UPS = 3  # runs before recording, in which libraries choose and load their kernels

T = TypeVar("T")


@dataclass(frozen=True)
class Recorded:
    """A graph, the tensors that it reads and those that every replay writes anew.

    The computation is stored because the graph reads the constants that it holds.
    """

    graph: torch.cuda.CUDAGraph
    computation: Callable[..., Any]
    inputs: tuple[Tensor | None, ...]
    outputs: Any


class Graphs:
    """Runs computations as CUDA graphs of one device, one per key; the least recently used is forgotten first."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._recorded: OrderedDict[Hashable, Recorded] = OrderedDict()

    def run(self, key: Hashable, computation: Callable[..., T], *inputs: Tensor | None) -> T:
        """What computation(*inputs) gives, until the next run with this key writes over it: copy what is to stay.

        The inputs may be on the host, from where they take the shortest way. One key must always mean the same
        computation and shapes of inputs, None included. The computation must not wait for the device, nor copy from the
        host. Raises RuntimeError when it cannot be recorded.
        """
        with torch.cuda.device(self._device):
            if key not in self._recorded:
                while len(self._recorded) >= LARGEST_COUNT:
                    self._recorded.popitem(last=False)
                self._recorded[key] = record(computation, inputs)
            self._recorded.move_to_end(key)
            recorded = self._recorded[key]
            for buffer, value in zip(recorded.inputs, inputs):
                if buffer is not None and value is not None:
                    buffer.copy_(value, non_blocking=True)
            recorded.graph.replay()
            outputs: T = recorded.outputs
            return outputs

    def attempt(self, key: Hashable, computation: Callable[..., T], *inputs: Tensor | None) -> T | None:
        """As run, but None with a warning when the computation cannot be recorded: use eager mode from then on.

        Running out of memory raises torch.cuda.OutOfMemoryError: the next attempt may succeed.
        """
        try:
            return self.run(key, computation, *inputs)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            warnings.warn(f"predictions are slower now, {EAGER_PATH}: no CUDA graph here ({error})", stacklevel=5)
            return None


def concurrently(*computations: Callable[[], Any]) -> list[Any]:
    """Results of computations that do not depend on each other: side by side in a graph, else one after another.

    Small kernels leave most of a GPU idle, and what a graph takes is the length of its longest chain of them.
    """
    if not torch.cuda.is_available() or not torch.cuda.is_current_stream_capturing():
        return [computation() for computation in computations]
    main, results = torch.cuda.current_stream(), []
    streams = _side_streams(main.device)[: len(computations)]
    for stream, computation in zip(streams, computations, strict=True):
        stream.wait_stream(main)
        with torch.cuda.stream(stream):
            results.append(computation())
    for stream in streams:
        main.wait_stream(stream)
    return results


@lru_cache
def _side_streams(device: torch.device) -> tuple[torch.cuda.Stream, ...]:
    return tuple(torch.cuda.Stream(device) for _ in range(MOST_AT_ONCE))


def record(computation: Callable[..., Any], inputs: tuple[Tensor | None, ...]) -> Recorded:
    """Record computation(*inputs) on the current device, after running it a few times. Its shapes must be fixed."""
    device = torch.device("cuda", torch.cuda.current_device())
    buffers = tuple(None if value is None else value.to(device, copy=True) for value in inputs)
    beside = torch.cuda.Stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(WARM_UPS):
            computation(*buffers)
    torch.cuda.current_stream(device).wait_stream(beside)
    torch.cuda.synchronize(device)
    _side_streams(device)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the device while this one records.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = computation(*buffers)
    return Recorded(graph, computation, buffers, outputs)
