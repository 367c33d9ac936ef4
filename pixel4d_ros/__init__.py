# SPDX-License-Identifier: Apache-2.0
"""pixel4d_ros: one camera image in, a moving 3D scene out (Pixel-to-4D, arXiv 2601.00678)."""

from __future__ import annotations

from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The messages (pixel4d_ros.msg) are in the colcon installation, these modules may be in the source tree.
__path__ = extend_path(__path__, __name__)

from pixel4d_ros.files import provide_numba_cache

provide_numba_cache()  # before numba is imported

if TYPE_CHECKING:
    from pixel4d_ros.camera import Camera, CameraPath
    from pixel4d_ros.forecaster import Forecast, Forecaster
    from pixel4d_ros.scene import DynamicGaussians
    from pixel4d_ros.two_view.reference_view import ReferenceView

_HOMES = {
    "Camera": "pixel4d_ros.camera",
    "CameraPath": "pixel4d_ros.camera",
    "DynamicGaussians": "pixel4d_ros.scene",
    "ReferenceView": "pixel4d_ros.two_view.reference_view",
    "Forecast": "pixel4d_ros.forecaster",
    "Forecaster": "pixel4d_ros.forecaster",
}
__all__ = ["Camera", "CameraPath", "DynamicGaussians", "ReferenceView", "Forecast", "Forecaster"]


def __getattr__(name: str) -> Any:
    # Lazy: tools that need only message types or logs do not import torch.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
