# SPDX-License-Identifier: Apache-2.0
"""The reference rasterizer: pure torch, differentiable, any device, slow.

Every (Gaussian, pixel) pair that matters is written out, sorted by pixel and depth, and blended with cumulative sums.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixel4d_ros.rendering.projection import ProjectedGaussians, project
from pixel4d_ros.rendering.types import (
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    NEAR,
    GaussianViews,
    Rendering,
    depth_from_inverses,
)


def rasterize_torch(views: GaussianViews) -> Rendering:
    """Render with plain torch operations. The oracle for the other rasterizers."""
    images = []
    for means, quaternions, scales, opacities, features, T_camera_world, K in zip(*views.tensors()):
        seen = project(means, quaternions, scales, T_camera_world, K, views.size)
        images.append(_blend(seen, opacities, features, views.size))
    return Rendering(*(torch.stack(tensors) for tensors in zip(*images)))


def _blend(seen: ProjectedGaussians, opacities: Tensor, features: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
    width, height = size
    gaussian, pixel, alpha = _pairs(seen, opacities, size)
    order = torch.argsort(pixel, stable=True)  # pairs come in depth order, so each pixel keeps it
    gaussian, pixel, alpha = gaussian[order], pixel[order], alpha[order]

    # Transmittance before each pair: a running sum of log(1 - alpha) that restarts at each pixel. float64,
    # since the sum runs over the whole image before the restart is subtracted.
    log_through = torch.log1p(-alpha.double())
    after = torch.cumsum(log_through, 0)
    first = torch.searchsorted(pixel, pixel)
    start = (after - log_through)[first] if len(pixel) else after
    alive = torch.exp(after - start) > MIN_TRANSMITTANCE
    weight = alpha * torch.exp(after - log_through - start).to(alpha.dtype) * alive

    inverse = 1 / seen.depths[:, None]
    values = torch.cat((features, inverse, inverse.square(), torch.ones_like(inverse)), 1)
    image = values.new_zeros(width * height, values.shape[1]).index_add(0, pixel, weight[:, None] * values[gaussian])
    image = image.view(height, width, -1)
    return image[..., :-3], depth_from_inverses(image[..., -3], image[..., -2]), image[..., -1]


def _pairs(seen: ProjectedGaussians, opacities: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs with alpha of at least MIN_ALPHA, by depth: Gaussian index, pixel index, alpha, each (P,)."""
    width, height = size
    with torch.no_grad():
        reach = torch.sqrt(2 * torch.log((opacities / MIN_ALPHA).clamp(min=1)))
        rx, ry = reach * seen.covariances[:, 0].sqrt(), reach * seen.covariances[:, 2].sqrt()
        x0 = (seen.means[:, 0] - rx).ceil().clamp(0, width)
        x1 = (seen.means[:, 0] + rx).floor().clamp(-1, width - 1)
        y0 = (seen.means[:, 1] - ry).ceil().clamp(0, height)
        y1 = (seen.means[:, 1] + ry).floor().clamp(-1, height - 1)
        columns, rows = (x1 - x0 + 1).clamp(min=0), (y1 - y0 + 1).clamp(min=0)
        count = (columns * rows * (seen.depths > NEAR)).nan_to_num(0).long()
        by_depth = torch.argsort(seen.depths, stable=True)
        by_depth = by_depth[count[by_depth] > 0]
        gaussian = torch.repeat_interleave(by_depth, count[by_depth])
        before = torch.cumsum(count[by_depth], 0) - count[by_depth]
        inside = torch.arange(len(gaussian), device=gaussian.device) - torch.repeat_interleave(before, count[by_depth])
        columns_of = columns.long()[gaussian]
        x = x0.long()[gaussian] + inside % columns_of.clamp(min=1)
        y = y0.long()[gaussian] + inside // columns_of.clamp(min=1)
    dx, dy = (torch.stack((x, y), -1) - seen.means[gaussian]).unbind(-1)
    a, b, c = seen.conics[gaussian].unbind(-1)
    alpha = (opacities[gaussian] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)).clamp(max=MAX_ALPHA)
    keep = alpha.detach() >= MIN_ALPHA
    return gaussian[keep], (y * width + x)[keep], alpha[keep]
