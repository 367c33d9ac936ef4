# SPDX-License-Identifier: Apache-2.0
"""InputView: how a camera image maps onto what the network sees, and back.

The network sees square pixels at one canonical focal length, so that one apparent size means one distance; its surface
branch sees up to twice as many. The image is padded on all sides, so that the scene reaches beyond what the camera saw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.camera import Camera

CANONICAL_FOCAL = 244.0  # pixels
SURFACE_FOCAL = 2 * CANONICAL_FOCAL  # pixels: that of the surface branch
FINER_FROM = 1.4  # image pixels per pixel of the input view: with fewer, a finer view would show nothing more
STRIDE = 32  # the encoder's coarsest stride: the sides of the input view are multiples of it
# Of the resized image, for cameras of unusual field of view: no fewer pixels than training's crops have, about.
MIN_PIXELS, MAX_WIDTH, MAX_HEIGHT = 52_000, 640, 1280
MAX_VISIBLE_PIXELS = 1_600_000  # the visible layer of larger images is built from a smaller copy


Method = TypeVar("Method", bound=Callable[..., Tensor])


def cached_tensor(method: Method) -> Method:
    """Cache a method's tensor per arguments for as long as its object lives."""

    @wraps(method)
    def once(self: Any, *arguments: Hashable) -> Tensor:
        made: dict[Any, Tensor] = self.__dict__.setdefault("_cached", {})
        key = (method.__name__, *arguments)
        if key not in made:
            with torch.inference_mode(False):
                made[key] = method(self, *arguments)
        return made[key]

    return cast(Method, once)


@dataclass(frozen=True)
class InputView:
    """The image, resized to (inner_width, inner_height), sits at (left, top) of a padded image (width, height)."""

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
        """The padded input view as a camera."""
        return self.inner.shifted(-self.left, -self.top, self.width, self.height)

    @cached_tensor
    def inside(self, device: torch.device) -> Tensor:
        """(height, width) float: 1 where the camera saw, 0 in the padding."""
        return inside_mask(self.camera, self.inner, self.left, self.top, device)

    @staticmethod
    def of(camera: Camera) -> InputView:
        """The input view of a camera: canonical focal length, within the limits of the network's image size."""
        focal = CANONICAL_FOCAL
        width, height = camera.width * focal / camera.K[0, 0], camera.height * focal / camera.K[1, 1]
        focal *= min(max(1.0, math.sqrt(MIN_PIXELS / (width * height))), MAX_WIDTH / width)
        focal = min(focal, MAX_HEIGHT * camera.K[1, 1] / camera.height)
        width = max(STRIDE, round(camera.width * focal / camera.K[0, 0]))
        height = max(STRIDE, round(camera.height * focal / camera.K[1, 1]))
        return InputView.around(camera.resized(width, height))

    @staticmethod
    def around(inner: Camera) -> InputView:
        """The view of an image as it is, in the middle of its padding."""
        width, height = padded_size(inner.width), padded_size(inner.height)
        return InputView(inner, width, height, (width - inner.width) // 2, (height - inner.height) // 2)

    def finer(self, camera: Camera) -> InputView:
        """What the surface branch sees: twice the resolution where the camera's image has it, else the same."""
        return self if camera.width < FINER_FROM * self.inner.width else self.doubled()

    def doubled(self) -> InputView:
        """The same view at twice the resolution."""
        inner = self.inner.resized(2 * self.inner.width, 2 * self.inner.height)
        return InputView(inner, 2 * self.width, 2 * self.height, 2 * self.left, 2 * self.top)

    def draw(self, image: Tensor) -> Tensor:
        """Image (B, 3, H, W) of any size, float 0..1 -> input view (B, 3, height, width), reflected at the borders."""
        return reflected(resize(image, self.inner.width, self.inner.height), self._mirror(image.device))

    @cached_tensor
    def _mirror(self, device: torch.device) -> Tensor:
        right, bottom = self.width - self.left - self.inner.width, self.height - self.top - self.inner.height
        return mirror(self.inner.width, self.inner.height, (self.left, right, self.top, bottom), device)

    @cached_tensor
    def _places(self, height: int, width: int, device: torch.device) -> Tensor:
        """Indices (height * width,) of the pixels on which those of an image of this size fall."""
        y = ((torch.arange(height, device=device) + 0.5) * (self.inner.height / height)).long() + self.top
        x = ((torch.arange(width, device=device) + 0.5) * (self.inner.width / width)).long() + self.left
        return (y[:, None] * self.width + x).flatten()

    def place(self, depth: Tensor) -> Tensor:
        """Measured depth (H, W) of any size, 0 where unknown -> (height, width) in the input view, 0 in the padding.

        Where several points fall on one pixel the nearest counts, since it hides the others.
        """
        points = torch.where(depth > 0, depth.float(), torch.inf)  # NaN is not greater
        flat = torch.full((self.height * self.width,), torch.inf, device=depth.device)
        flat.scatter_reduce_(0, self._places(depth.shape[0], depth.shape[1], depth.device), points.flatten(), "amin")
        return torch.where(flat < torch.inf, flat, 0.0).view(self.height, self.width)


def inside_mask(padded: Camera, inner: Camera, left: int, top: int, device: torch.device) -> Tensor:
    """(H, W) float of the padded image: 1 in the inner one, whose upper left pixel is at (left, top), 0 around it."""
    mask = torch.zeros(padded.height, padded.width, device=device)
    mask[top : top + inner.height, left : left + inner.width] = 1
    return mask


def view_rays(K: Tensor, width: int, height: int, focal: float = CANONICAL_FOCAL) -> Tensor:
    """Rays (B, 2, H, W) of cameras K (B, 3, 3), in units of a focal length: a zoomed image looks like any other."""
    x = (torch.arange(width, device=K.device) - K[:, 0, 2, None]) / focal
    y = (torch.arange(height, device=K.device) - K[:, 1, 2, None]) / focal
    return torch.stack((x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)), 1)


def padded_size(size: int) -> int:
    """About 6 % on each side, 16 pixels at least, up to a multiple of the stride."""
    return math.ceil((size + 2 * max(16, 0.06 * size)) / STRIDE) * STRIDE


def resize(image: Tensor, width: int, height: int) -> Tensor:
    """Images (B, C, H, W) resampled to width x height, antialiased."""
    if image.shape[-2:] == (height, width):
        return image
    if torch.onnx.is_in_onnx_export():  # TensorRT has no antialiased Resize
        before = [int(size) for size in image.shape[-2:]]  # tensors while tracing
        rows, columns = resampling_matrix(before[0], height), resampling_matrix(before[1], width)
        return rows @ image @ columns.T
    return F.interpolate(image, (height, width), mode="bilinear", align_corners=False, antialias=True)


def resampling_matrix(before: int, after: int) -> Tensor:
    """(after, before): the weights with which `resize` averages a row of pixels; a triangle filter."""
    scale = before / after
    centers = (np.arange(after) + 0.5) * scale
    distances = abs(np.arange(before) + 0.5 - centers[:, None])
    weights = np.maximum(1 - distances / max(scale, 1), 0)
    return torch.from_numpy((weights / weights.sum(1, keepdims=True)).astype(np.float32))


def mirror(width: int, height: int, margins: tuple[int, int, int, int], device: torch.device) -> Tensor:
    """Which of an image's height * width pixels each pixel of a padded image shows, mirrored, however wide the margins.

    Margins to the left, right, top and bottom; (H, W) for `reflected`.
    """
    left, right, top, bottom = margins
    rows, columns = _reflected(height, top, bottom, device), _reflected(width, left, right, device)
    return rows[:, None] * width + columns


def reflected(image: Tensor, indices: Tensor) -> Tensor:
    """Images (B, C, h, w), mirrored beyond their borders (B, C, H, W) by the indices of `mirror`."""
    return image.flatten(2)[..., indices]


def _reflected(size: int, before: int, after: int, device: torch.device) -> Tensor:
    period = max(2 * (size - 1), 1)
    position = torch.arange(-before, size + after, device=device).remainder(period)
    return torch.where(position < size, position, period - position)
