# SPDX-License-Identifier: Apache-2.0
"""Input and output of the rasterizers, and their common constants."""

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
    """The M of N Gaussians whose pose differs between V views."""

    index: Tensor  # (M,) int64, into the N
    means: Tensor  # (V, M, 3) metres
    quaternions: Tensor  # (V, M, 4) wxyz, unit


@dataclass(frozen=True)
class GaussianViews:
    """V views to render, each of its own N Gaussians, for example of one moving scene at V times.

    Tensors may be expanded (stride 0). `moved` then holds what differs between the views.
    """

    means: Tensor  # (V, N, 3) metres
    quaternions: Tensor  # (V, N, 4) wxyz, unit
    scales: Tensor  # (V, N, 3) metres
    opacities: Tensor  # (V, N)
    features: Tensor  # (V, N, C) colours and other blended channels
    T_camera_world: Tensor  # (V, 4, 4)
    K: Tensor  # (V, 3, 3) pixels, pixel centres at integers
    size: tuple[int, int]  # width, height of the images
    moved: Moved | None = None  # replaces means and quaternions at its index

    def placed(self) -> GaussianViews:
        """The same views with `moved` written into means and quaternions."""
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

    features: Tensor  # (V, H, W, C) blended features, premultiplied by alpha
    depth: Tensor  # (V, H, W) metres, mean with weights w / z^2; inf where nothing is visible
    alpha: Tensor  # (V, H, W) 0..1


def depth_from_inverses(inverse: Tensor, square: Tensor) -> Tensor:
    """Metres from the blended inverse depth and its blended square; inf where nothing is visible.

    Gradients stay finite there too.
    """
    if triton_kernels.can_use(inverse):
        return triton_kernels.operations.depth_from_inverses(inverse, square)
    seen = square > 0
    return torch.where(seen, inverse / torch.where(seen, square, torch.ones_like(square)), torch.inf)
