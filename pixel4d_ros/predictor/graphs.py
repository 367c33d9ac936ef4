"""CUDA graphs: a computation of fixed shapes is recorded once, and then started as one piece."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

LARGEST_COUNT = 3  # graphs kept; each holds the memory of its computation
MOST_AT_ONCE = 4  # computations side by side
WARM_UPS = 3  # runs before recording, in which libraries choose and load their kernels

Computation = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class Recorded:
    """A graph, the tensors that it reads and those that every replay writes anew.

    The computation is kept because the graph reads whatever constants it holds.
    """

    graph: torch.cuda.CUDAGraph
    computation: Computation
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Graphs:
    """Runs computations as CUDA graphs, one per key; the least recently used is forgotten first."""

    def __init__(self) -> None:
        self._recorded: OrderedDict[Hashable, Recorded] = OrderedDict()

    def run(self, key: Hashable, computation: Computation, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What computation(*inputs) gives, as copies that the next run leaves alone.

        One key must always mean the same computation and shapes of inputs. The computation must not wait for the
        device, nor copy from the host. Raises RuntimeError when it cannot be recorded.
        """
        with torch.cuda.device(inputs[0].device):
            if key not in self._recorded:
                while len(self._recorded) >= LARGEST_COUNT:
                    self._recorded.popitem(last=False)
                self._recorded[key] = record(computation, inputs)
            self._recorded.move_to_end(key)
            recorded = self._recorded[key]
            for buffer, value in zip(recorded.inputs, inputs):
                buffer.copy_(value, non_blocking=True)
            recorded.graph.replay()
            return tuple(output.clone() for output in recorded.outputs)


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


def record(computation: Computation, inputs: tuple[Tensor, ...]) -> Recorded:
    """Record computation(*inputs), whose shapes must be fixed, after running it a few times.

    The inputs' device must be the current one.
    """
    buffers = tuple(value.clone() for value in inputs)
    device = buffers[0].device
    beside = torch.cuda.Stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(WARM_UPS):
            computation(*buffers)
    torch.cuda.current_stream(device).wait_stream(beside)
    torch.cuda.synchronize(device)
    _side_streams(device)
    graph = torch.cuda.CUDAGraph()
    # What other threads ask of the device meanwhile is no error of this one.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = tuple(computation(*buffers))
    return Recorded(graph, computation, buffers, outputs)
