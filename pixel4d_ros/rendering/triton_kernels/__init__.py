# SPDX-License-Identifier: Apache-2.0
"""Triton kernels that replace several torch operations each, for inference on CUDA.

The torch code of each caller is the reference. Triton ships with torch's CUDA builds for desktops and servers. Where it
is missing or finds no C compiler, `is_available` returns False and callers use torch operations.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import lru_cache

import torch
from torch import Tensor

from pixel4d_ros.rendering.triton_kernels import operations  # imports Triton only when it launches a kernel

__all__ = ["can_use", "is_available", "operations"]


@lru_cache
def is_available(device: torch.device) -> bool:
    """Whether Triton kernels run on this device. Tried once per device."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    try:
        one = torch.ones(1, 2, 2, device=device)
        operations.depth_from_inverses(one, one)
        torch.cuda.synchronize(device)
    except Exception as error:  # noqa: BLE001 - the compiler, the driver and the file system all raise their own
        first = str(error).partition("\n")[0]
        warnings.warn(f"forecasts are slightly slower: Triton does not work here ({first})", stacklevel=2)
        return False
    return True


def can_use(tensor: Tensor) -> bool:
    """Whether kernels may replace torch operations on this tensor: float32, no gradients, on a device they run on."""
    return not torch.is_grad_enabled() and tensor.dtype == torch.float32 and is_available(tensor.device)
