"""What torch does in many small steps, in one or two Triton kernels: for inference on CUDA.

The torch code of those who call this is the reference. Triton comes with torch's CUDA builds for desktops and servers;
where it is missing, or finds no C compiler, `usable` says so and torch's own steps are taken.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import lru_cache

import torch
from torch import Tensor

from pixel4d_ros.fused import prediction, rendering  # which import Triton only where they launch a kernel

__all__ = ["applicable", "prediction", "rendering", "usable"]


@lru_cache
def usable(device: torch.device) -> bool:
    """Whether the kernels run on this device; tried once."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    try:
        one = torch.ones(1, 2, 2, device=device)
        prediction.surface_gaussians(one, torch.eye(3, device=device)[None], one, 1.0)
        torch.cuda.synchronize(device)
    except Exception as error:  # noqa: BLE001 - whatever a compiler, a driver or the file system has to say
        first = str(error).partition("\n")[0]
        warnings.warn(f"forecasts take a little longer, Triton does not work here ({first})", stacklevel=2)
        return False
    return True


def applicable(tensor: Tensor) -> bool:
    """Whether kernels may take this in place of torch's steps: float32, no gradients wanted, on such a device."""
    return not torch.is_grad_enabled() and tensor.dtype == torch.float32 and usable(tensor.device)
