# SPDX-License-Identifier: Apache-2.0
"""One door to the rasterizers, which all compute the same image.

Shared definition (that of gsplat 1.5, Kerbl et al. 2023): EWA projection with EPS2D square pixels added to each
projected covariance; alpha = min(0.999, opacity exp(-d^T conic d / 2)), dropped under 1/255; Gaussians blended front
to back by the depth of their means, in the order given where that is the same, until the transmittance would fall to
1e-4. Depth is a mean in which a Gaussian counts by its blending weight over its depth squared: the little of the sky,
and of what is hidden, that shines through a near surface would drag any other mean far off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from pixel4d_ros.rendering.types import GaussianViews, Rendering


def rasterize(views: GaussianViews, with_depth: bool = True) -> Rendering:
    """Render all views. Without depth, which then is NaN, CUDA is a little faster.

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
    """Render futures of one scene, which differ only in `moved`, one by one.

    The first is rendered whole, of the others only the tiles that their moving Gaussians change, without gradients. The
    torch reference renders all of them whole.
    """
    if futures[0].means.is_cuda:
        from pixel4d_ros.rendering.gsplat_rasterizer import rasterize_gsplat_futures

        return rasterize_gsplat_futures(futures, with_depth)
    if _compiled(futures[0]) and all(views.moved is not None for views in futures):
        from pixel4d_ros.rendering.numba_rasterizer import rasterize_numba_futures

        return rasterize_numba_futures(futures)
    return (rasterize(views) for views in futures)


def _compiled(views: GaussianViews) -> bool:
    """Whether the compiled CPU kernel is installed, and no gradients are wanted."""
    wants_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in views.tensors())
    return not wants_gradient and numba_available()


def numba_available() -> bool:
    """Whether the compiled CPU kernel can be used (numba)."""
    from importlib.util import find_spec

    return find_spec("numba") is not None
