# SPDX-License-Identifier: Apache-2.0
"""What every rasterizer here takes and gives, and the constants of the image that they all compute."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from pixel4d_ros.rendering import triton_kernels

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


def depth_from_inverses(inverse: Tensor, square: Tensor) -> Tensor:
    """Metres from the blended inverse depth and its blended square; inf where nothing is seen.

    Gradients stay finite there too.
    """
    if triton_kernels.can_use(inverse):
        return triton_kernels.operations.depth_from_inverses(inverse, square)
    seen = square > 0
    return torch.where(seen, inverse / torch.where(seen, square, torch.ones_like(square)), torch.inf)
