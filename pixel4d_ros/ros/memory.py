# SPDX-License-Identifier: Apache-2.0
"""Memory management of a process that runs for days."""

from __future__ import annotations

import ctypes
import gc

import torch

M_MMAP_THRESHOLD = -3  # of malloc.h
LARGE = 1 << 20  # bytes


def configure_malloc() -> None:
    """Make glibc return freed blocks of a megabyte or more to the system at once.

    By default it caches them; images and clouds of changing sizes fragment that cache, and resident memory varies by a
    tenth. Other C libraries have no mallopt and are not changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)


def freeze_gc() -> None:
    """Exclude all current objects from garbage collection until free_gpu.

    Torch, ROS and the network are 200 000 objects. A full GC pass takes tens of milliseconds and would stall
    a forecast.
    """
    gc.collect()
    gc.freeze()


def free_gpu() -> None:
    """Free torch's unused GPU memory: cached blocks and cuBLAS workspaces.

    Also frees pinned host memory with torch 2.10 or newer. The CUDA context stays until the process ends.
    """
    gc.unfreeze()
    gc.collect()  # CUDA graphs form reference cycles with their buffers
    if not torch.cuda.is_available():
        return
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    if hasattr(torch, "accelerator") and hasattr(torch.accelerator, "empty_host_cache"):
        torch.accelerator.empty_host_cache()
