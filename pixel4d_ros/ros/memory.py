# SPDX-License-Identifier: Apache-2.0
"""Memory of a process that runs for days: giving back what is no longer needed."""

from __future__ import annotations

import ctypes
import gc

import torch

M_MMAP_THRESHOLD = -3  # of malloc.h
LARGE = 1 << 20  # bytes


def configure_malloc() -> None:
    """Let glibc give freed blocks of a megabyte or more back to the system at once.

    By default it learns to keep them, and images and clouds of changing sizes fragment what it keeps: resident memory
    then wanders by a tenth. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)


def freeze_gc() -> None:
    """Leave every object there is now out of garbage collection, until free_gpu.

    Torch, ROS and the network are 200 000 objects. To look through them takes tens of milliseconds, amid a forecast or
    an answer, every twenty requests with thirty paths.
    """
    gc.collect()
    gc.freeze()


def free_gpu() -> None:
    """Give back what torch holds of the GPU for objects that are gone: blocks it caches, workspaces of cuBLAS.

    Page-locked host memory goes too where torch can do that (2.10 on). The CUDA context stays until the process ends.
    """
    gc.unfreeze()
    gc.collect()  # CUDA graphs are in reference cycles with what they captured
    if not torch.cuda.is_available():
        return
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    if hasattr(torch, "accelerator") and hasattr(torch.accelerator, "empty_host_cache"):
        torch.accelerator.empty_host_cache()
