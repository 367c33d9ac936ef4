"""Canvas: how a camera image maps onto what the network sees, and back.

The network sees square pixels at one canonical focal length, so that one apparent size means one distance; the image is
padded on all sides, so that the scene reaches beyond what the camera saw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.camera import Camera

CANONICAL_FOCAL = 244.0  # pixels
STRIDE = 32  # the encoder's coarsest stride: the canvas is a multiple of it
# Pixels of the image on the canvas, for cameras of unusual field of view.
MIN_WIDTH, MAX_WIDTH, MAX_HEIGHT = 256, 640, 1280
MAX_VISIBLE_PIXELS = 1_600_000  # the visible layer of larger images is built from a smaller copy


@dataclass(frozen=True)
class Canvas:
    """The image, resized to (inner_width, inner_height), sits at (left, top) of a padded canvas (width, height)."""

    inner: Camera  # the resized image's camera: fx = fy = focal
    width: int
    height: int
    left: int
    top: int

    @property
    def depth_scale(self) -> float:
        """Metres per canonical metre: a longer lens makes things look nearer than they are."""
        return float(self.inner.K[0, 0]) / CANONICAL_FOCAL

    @property
    def camera(self) -> Camera:
        """The padded canvas as a camera."""
        return self.inner.shifted(-self.left, -self.top, self.width, self.height)

    def inside(self, device: torch.device) -> Tensor:
        """(height, width) float: 1 where the camera saw, 0 in the padding."""
        return inside_mask(self.camera, self.inner, self.left, self.top, device)

    @staticmethod
    def of(camera: Camera) -> Canvas:
        """The canvas of a camera: canonical focal length, within the limits of the network's image size."""
        focal = CANONICAL_FOCAL
        width = camera.width * focal / camera.K[0, 0]
        focal *= min(max(width, MIN_WIDTH), MAX_WIDTH) / width
        focal = min(focal, MAX_HEIGHT * camera.K[1, 1] / camera.height)
        width = max(STRIDE, round(camera.width * focal / camera.K[0, 0]))
        height = max(STRIDE, round(camera.height * focal / camera.K[1, 1]))
        padded_width, padded_height = padded_size(width), padded_size(height)
        return Canvas(
            camera.resized(width, height),
            padded_width,
            padded_height,
            (padded_width - width) // 2,
            (padded_height - height) // 2,
        )

    def draw(self, image: Tensor) -> Tensor:
        """Image (B, 3, H, W) of any size, float 0..1 -> canvas (B, 3, height, width), reflected at the borders."""
        inner = resize(image, self.inner.width, self.inner.height)
        right, bottom = self.width - self.left - self.inner.width, self.height - self.top - self.inner.height
        return reflect_pad(inner, self.left, right, self.top, bottom)

    def place(self, depth: Tensor) -> Tensor:
        """Measured depth (H, W) of any size, 0 where unknown -> (height, width) on the canvas, 0 in the padding.

        Where several points fall on one pixel the nearest counts, since it hides the others.
        """
        rows, columns = torch.nonzero(torch.isfinite(depth) & (depth > 0), as_tuple=True)
        points = depth[rows, columns].float()
        y = ((rows + 0.5) * (self.inner.height / depth.shape[0])).long() + self.top
        x = ((columns + 0.5) * (self.inner.width / depth.shape[1])).long() + self.left
        flat = torch.full((self.height * self.width,), torch.inf, device=depth.device)
        flat.scatter_reduce_(0, y * self.width + x, points, "amin")
        return torch.where(torch.isinf(flat), 0.0, flat).view(self.height, self.width)


def inside_mask(padded: Camera, inner: Camera, left: int, top: int, device: torch.device) -> Tensor:
    """(H, W) float of the padded image: 1 in the inner one, whose upper left pixel is at (left, top), 0 around it."""
    mask = torch.zeros(padded.height, padded.width, device=device)
    mask[top : top + inner.height, left : left + inner.width] = 1
    return mask


def padded_size(size: int) -> int:
    """About 6 % on each side, 16 pixels at least, up to a multiple of the stride."""
    return math.ceil((size + 2 * max(16, 0.06 * size)) / STRIDE) * STRIDE


def resize(image: Tensor, width: int, height: int) -> Tensor:
    """Images (B, C, H, W) resampled to width x height, antialiased."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image, (height, width), mode="bilinear", align_corners=False, antialias=True)


def reflect_pad(image: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Images (B, C, H, W) mirrored beyond their borders, however wide the border."""
    height, width = image.shape[-2:]
    rows = _reflected(height, top, bottom).to(image.device)
    columns = _reflected(width, left, right).to(image.device)
    return image[..., rows[:, None], columns]


def _reflected(size: int, before: int, after: int) -> Tensor:
    period = max(2 * (size - 1), 1)
    position = torch.arange(-before, size + after).remainder(period)
    return torch.where(position < size, position, period - position)
