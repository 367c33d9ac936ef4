"""Rendering of Gaussians: gsplat on CUDA, a compiled kernel on the CPU, and a differentiable torch reference."""

from pixel4d_ros.rendering.rasterizer import GaussianViews, Moved, Rendering, rasterize, rasterize_futures

__all__ = ["GaussianViews", "Moved", "Rendering", "rasterize", "rasterize_futures"]
