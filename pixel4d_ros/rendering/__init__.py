# SPDX-License-Identifier: Apache-2.0
"""Rendering of Gaussians: gsplat on CUDA, a compiled kernel on the CPU, and a differentiable torch reference."""

from pixel4d_ros.rendering.rasterizer import rasterize, rasterize_futures
from pixel4d_ros.rendering.types import GaussianViews, Moved, Rendering

__all__ = ["GaussianViews", "Moved", "Rendering", "rasterize", "rasterize_futures"]
