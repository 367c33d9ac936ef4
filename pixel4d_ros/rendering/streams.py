# SPDX-License-Identifier: Apache-2.0
"""Copies between host and device, through page-locked memory and without waiting for a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UNPINNED_BYTES = 1 << 15  # the driver copies so few bytes to a buffer of its own, so nobody waits for the device


def pin_memory(array: NDArray[Any], device: torch.device) -> Tensor:
    """A writable contiguous array as a host tensor that can be copied to the device without waiting.

    It shares the array's memory unless that must be page-locked first.
    """
    if device.type != "cuda" or array.nbytes <= UNPINNED_BYTES:
        return torch.from_numpy(array)
    # torch's pool does not reuse page-locked memory before the copy is done. numpy fills it, since torch would wake all
    # its threads for this small copy and wait for the last of them.
    locked = torch.empty_like(torch.from_numpy(array), pin_memory=True)
    np.copyto(locked.numpy(), array)
    return locked


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A writable contiguous array as a tensor on the device; on the CPU it shares the array's memory."""
    return pin_memory(array, device).to(device, non_blocking=True)


class HostBuffer:
    """One large result in host memory, filled part by part.

    The parts are complete after the next to_host, which waits for the device.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self._tensor = torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")

    def put(self, start: int, part: Tensor) -> None:
        """Copy part to [start : start + len(part)], without waiting for it."""
        self._tensor[start : start + len(part)].copy_(part, non_blocking=True)
        if part.is_cuda:  # keeps its memory until this stream has copied it
            part.record_stream(torch.cuda.current_stream(part.device))

    def array(self) -> NDArray[Any]:
        """The result."""
        result: NDArray[Any] = self._tensor.numpy()
        return result


class PendingCopy:
    """A tensor on its way to host memory, after the current stream's work so far."""

    def __init__(self, tensor: Tensor) -> None:
        self._host, self._copied = tensor, torch.cuda.Event(blocking=True) if tensor.is_cuda else None
        if self._copied is not None:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
            self._copied.record(torch.cuda.current_stream(tensor.device))

    def array(self) -> NDArray[Any]:
        """The tensor on the host, once it is there."""
        if self._copied is not None:
            self._copied.synchronize()
        result: NDArray[Any] = self._host.numpy()
        return result


class StreamPool:
    """CUDA streams for the parts of a long computation in turn, and one more for copies to the host.

    While the host waits for the size of one part's result, the device computes another, and copies run beside both. A
    single part stays on the current stream. On the CPU there are no streams.
    """

    def __init__(self, device: torch.device, parts: int) -> None:
        streams = _stream_pool(device) if device.type == "cuda" else ()
        self._copies, self._streams = streams[:1], streams[1:] if parts > 1 else ()
        self._taken = 0

    @contextmanager
    def take_turn(self) -> Iterator[None]:
        """Run the next part on its stream, after all earlier work of the current stream."""
        if not self._streams:
            yield
            return
        stream = self._streams[self._taken % len(self._streams)]
        self._taken += 1
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            yield

    @contextmanager
    def copying(self) -> Iterator[None]:
        """Copy to the host, after the current stream's work so far and beside its later work."""
        if not self._copies:
            yield
            return
        (stream,) = self._copies
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            yield

    def join(self) -> None:
        """Make the current stream wait for all parts and copies."""
        for stream in self._streams + self._copies:
            torch.cuda.current_stream(stream.device).wait_stream(stream)


@lru_cache
def _stream_pool(device: torch.device) -> tuple[torch.cuda.Stream, ...]:
    return tuple(torch.cuda.Stream(device) for _ in range(3))


def to_host(*tensors: Tensor) -> tuple[NDArray[Any], ...]:
    """Tensors of one device as arrays, with one wait for all of them."""
    if not tensors or not tensors[0].is_cuda:
        return tuple(np.asarray(tensor) for tensor in tensors)
    hosts = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True) for t in tensors]
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return tuple(host.numpy() for host in hosts)
