"""Memory of a process that runs for days."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3  # of malloc.h
LARGE = 1 << 20  # bytes


def return_large_blocks() -> None:
    """Let glibc give freed blocks of a megabyte or more back to the system at once.

    By default it learns to keep them, and images and clouds of changing sizes fragment what it keeps: resident memory
    then wanders by a tenth. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
