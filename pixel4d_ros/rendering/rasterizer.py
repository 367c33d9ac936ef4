"""One door to the rasterizers, which all compute the same image.

Shared definition (that of gsplat 1.5, Kerbl et al. 2023): EWA projection with EPS2D square pixels added to each
projected covariance; alpha = min(0.999, opacity exp(-d^T conic d / 2)), dropped under 1/255; Gaussians blended front
to back by the depth of their means, in the order given where that is the same, until the transmittance would fall to
1e-4. Depth is a mean in which a Gaussian counts by its blending weight over its depth squared: the little of the sky,
and of what is hidden, that shines through a near surface would drag any other mean far off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from pixel4d_ros import fused

# Smaller than the usual 0.3, which would blur the first frame: our Gaussians already overlap their neighbours.
EPS2D = 0.05
NEAR = 0.2  # metres: nearer Gaussians are not drawn
MAX_ALPHA = 0.999
MIN_ALPHA = 1 / 255
MIN_TRANSMITTANCE = 1e-4


@dataclass(frozen=True)
class Moved:
    """The M of N Gaussians that are elsewhere in each of V views."""

    index: Tensor  # (M,) int64, into the N
    means: Tensor  # (V, M, 3) metres
    quaternions: Tensor  # (V, M, 4) wxyz, unit


@dataclass(frozen=True)
class GaussianViews:
    """What to draw: V views, each of its own N Gaussians (of one moving scene at V times, say).

    Expanded (stride 0) tensors are welcome, and with those `moved` says what differs between the views.
    """

    means: Tensor  # (V, N, 3) metres
    quaternions: Tensor  # (V, N, 4) wxyz, unit
    scales: Tensor  # (V, N, 3) metres
    opacities: Tensor  # (V, N)
    features: Tensor  # (V, N, C) colours and whatever else is blended like them
    T_camera_world: Tensor  # (V, 4, 4)
    K: Tensor  # (V, 3, 3) pixels, pixel centres at integers
    size: tuple[int, int]  # width, height of the images
    moved: Moved | None = None  # where it is given, in place of what means and quaternions say

    def placed(self) -> GaussianViews:
        """The same views, written out: with every Gaussian where it is in each view, and nothing moved."""
        if self.moved is None:
            return self
        means, quaternions = self.means.clone(), self.quaternions.clone()
        means[:, self.moved.index], quaternions[:, self.moved.index] = self.moved.means, self.moved.quaternions
        return replace(self, means=means, quaternions=quaternions, moved=None)

    def tensors(self) -> tuple[Tensor, ...]:
        """All but the size, in the order of the fields."""
        return tuple(value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor))


@dataclass(frozen=True)
class Rendering:
    """V rendered views."""

    features: (
        Tensor  # (V, H, W, C) blended features (colours, and whatever was appended to them), premultiplied by alpha
    )
    depth: Tensor  # (V, H, W) metres: mean over what is seen, the near above the far; inf where nothing is
    alpha: Tensor  # (V, H, W) 0..1


def rasterize(views: GaussianViews, with_depth: bool = True) -> Rendering:
    """Render all views; without depth, which then is NaN, a little faster on CUDA.

    On CUDA gsplat renders; on the CPU the compiled kernel, or the torch reference where gradients are wanted or numba
    is not installed.
    """
    if views.means.is_cuda:
        from pixel4d_ros.rendering.gsplat_rasterizer import rasterize_gsplat

        return rasterize_gsplat(views, with_depth)
    views = views.placed()
    if _compiled(views):
        from pixel4d_ros.rendering.numba_rasterizer import rasterize_numba

        return rasterize_numba(views)
    from pixel4d_ros.rendering.torch_rasterizer import rasterize_torch

    return rasterize_torch(views)


def rasterize_futures(futures: Sequence[GaussianViews], with_depth: bool = True) -> Iterator[Rendering]:
    """Render futures of one scene that differ only in where the same Gaussians moved, each when its turn comes.

    The first is rendered whole, and of the others only what their moving Gaussians change, but for the torch reference.
    No gradients where that is so.
    """
    if futures[0].means.is_cuda:
        from pixel4d_ros.rendering.gsplat_rasterizer import rasterize_gsplat_futures

        return rasterize_gsplat_futures(futures, with_depth)
    if _compiled(futures[0]) and all(views.moved is not None for views in futures):
        from pixel4d_ros.rendering.numba_rasterizer import rasterize_numba_futures

        return rasterize_numba_futures(futures)
    return (rasterize(views) for views in futures)


def _compiled(views: GaussianViews) -> bool:
    """Whether the compiled CPU kernel is there and can do what is wanted."""
    wants_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in views.tensors())
    return not wants_gradient and numba_available()


def depth_from_inverses(inverse: Tensor, square: Tensor) -> Tensor:
    """Metres from the blended inverse depth and its blended square; inf where nothing is seen.

    Gradients stay finite there too.
    """
    if fused.applicable(inverse):
        return fused.rendering.depth_from_inverses(inverse, square)
    seen = square > 0
    return torch.where(seen, inverse / torch.where(seen, square, torch.ones_like(square)), torch.inf)


def numba_available() -> bool:
    """Whether the compiled CPU kernel can be used (the extra `cpu`)."""
    from importlib.util import find_spec

    return find_spec("numba") is not None
