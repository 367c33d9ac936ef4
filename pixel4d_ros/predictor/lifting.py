# SPDX-License-Identifier: Apache-2.0
"""Lifting: per-pixel maps -> layers of Gaussians, batched and differentiable.

Three layers: the visible one at the image's own resolution and colours, on the surface that the depth map describes;
a hidden one behind it, seen once something moves away; and a background around everything, so that no view has holes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.camera import Camera
from pixel4d_ros.predictor import fused_operations
from pixel4d_ros.predictor.heads import SurfaceMaps
from pixel4d_ros.predictor.input_view import (
    MAX_VISIBLE_PIXELS,
    InputView,
    cached_tensor,
    inside_mask,
    mirror,
    reflected,
    resize,
)
from pixel4d_ros.rendering import triton_kernels

BACKGROUND_DEPTH = 400.0  # canonical metres
MAX_SLANT = 25.0  # longest axis over pixel footprint: road seen at a grazing angle, but not depth edges
DEPTH_EDGE = 0.04  # relative difference of inverse depth to the nearest pixel, above which there is an edge
SHARPEN = 0.5  # undoes the blur of overlapping Gaussians in the source view


@dataclass(frozen=True)
class Layer:
    """Gaussians of B images, N each, without their motion; units as in DynamicGaussians."""

    means: Tensor  # (B, N, 3)
    quaternions: Tensor  # (B, N, 4)
    scales: Tensor  # (B, N, 3)
    opacities: Tensor  # (B, N)
    colors: Tensor  # (B, N, 3)


@dataclass(frozen=True)
class VisibleGrid:
    """The visible layer's pixel grid: the image (or a smaller copy) with its padding, as a camera."""

    view: InputView
    camera: Camera  # of the padded grid
    inner: Camera  # of the image within it
    left: int
    top: int

    @staticmethod
    def of(source: Camera, view: InputView) -> VisibleGrid:
        """VisibleGrid of a source camera; its padding covers the same view as the input view's."""
        shrink = min(1.0, (MAX_VISIBLE_PIXELS / (source.width * source.height)) ** 0.5)
        inner = source.resized(round(source.width * shrink), round(source.height * shrink))
        sx, sy = inner.width / view.inner.width, inner.height / view.inner.height
        left, top = int(view.left * sx), int(view.top * sy)
        right = int((view.width - view.left - view.inner.width) * sx)
        bottom = int((view.height - view.top - view.inner.height) * sy)
        padded = inner.shifted(-left, -top, inner.width + left + right, inner.height + top + bottom)
        return VisibleGrid(view, padded, inner, left, top)

    def sample(self, maps: Tensor) -> Tensor:
        """InputView maps (B, C, h, w) of any resolution -> values at this grid's pixels (B, C, H, W), bilinear."""
        if maps.shape[-2:] == (self.camera.height, self.camera.width):
            return maps
        places = self._places(maps.device).expand(len(maps), -1, -1, -1)
        return F.grid_sample(maps.float(), places, mode="bilinear", padding_mode="border", align_corners=False)

    def sample_depth(self, depth: Tensor) -> Tensor:
        """Depth of the input view (B, 1, h, w) -> inverse depth at this grid's pixels (B, 1, H, W).

        Linear in inverse depth on surfaces. At a depth edge the nearest pixel's, so that nothing lies between.
        """
        inverse = 1 / depth
        if inverse.shape[-2:] == (self.camera.height, self.camera.width):
            return inverse
        smooth = self.sample(inverse)
        places = self._places(depth.device).expand(len(depth), -1, -1, -1)
        nearest = F.grid_sample(inverse.float(), places, mode="nearest", padding_mode="border", align_corners=False)
        return torch.where((smooth / nearest - 1).abs() > DEPTH_EDGE, nearest, smooth)

    def sample_nearest(self, labels: Tensor) -> Tensor:
        """InputView labels (h, w) -> labels at this grid's pixels (H, W)."""
        sampled = F.grid_sample(
            labels[None, None].float(),
            self._places(labels.device),
            mode="nearest",
            padding_mode="border",
            align_corners=False,
        )
        return sampled[0, 0].to(labels.dtype)

    @cached_tensor
    def _places(self, device: torch.device) -> Tensor:
        """Where this grid's pixels lie in the input view (1, H, W, 2), from -1 to 1 as grid_sample takes them."""
        view = self.view
        x = torch.arange(self.camera.width, device=device, dtype=torch.float32)
        y = torch.arange(self.camera.height, device=device, dtype=torch.float32)
        gx = ((x + 0.5 - self.left) * (view.inner.width / self.inner.width) + view.left) / view.width * 2 - 1
        gy = ((y + 0.5 - self.top) * (view.inner.height / self.inner.height) + view.top) / view.height * 2 - 1
        return torch.stack(torch.meshgrid(gx, gy, indexing="xy"), -1)[None]

    def draw(self, image: Tensor) -> Tensor:
        """Image (B, 3, H, W) -> the grid's colours, reflected beyond the borders."""
        return reflected(resize(image, self.inner.width, self.inner.height), self._mirror(image.device))

    @cached_tensor
    def _mirror(self, device: torch.device) -> Tensor:
        inner, camera = self.inner, self.camera
        right, bottom = camera.width - self.left - inner.width, camera.height - self.top - inner.height
        return mirror(inner.width, inner.height, (self.left, right, self.top, bottom), device)

    @cached_tensor
    def inside(self, device: torch.device) -> Tensor:
        """(H, W) float: 1 where the camera saw, 0 in the padding."""
        return inside_mask(self.camera, self.inner, self.left, self.top, device)


def visible_layer(
    surface: SurfaceMaps, image: Tensor, K: Tensor, grid: VisibleGrid, depth_scale: Tensor, widen: float = 1.0
) -> Layer:
    """One Gaussian per pixel of the grid.

    image (B, 3, H, W) float; K (B, 3, 3) of the grid's cameras; depth_scale (B,) metres per canonical metre; widen
    multiplies the sizes (training starts wide, so that a wrong depth still finds its gradient).
    """
    sampled = grid.sample(torch.cat((surface.size, surface.opacity, surface.border_color), 1))
    size, opacity, border = torch.split(sampled, [1, 1, 3], 1)
    inverse = grid.sample_depth(surface.depth) / depth_scale[:, None, None, None]
    inside = grid.inside(image.device)
    colors = sharpened(grid.draw(image)) + 0.5 * torch.tanh(border) * (1 - inside)
    pixels = (0.4 + 0.4 * torch.sigmoid(size[:, 0])) * widen
    return _layer(inverse[:, 0], K, pixels, opacity, colors)


def hidden_layer(surface: SurfaceMaps, drawn: Tensor, K: Tensor, depth_scale: Tensor, widen: float = 1.0) -> Layer:
    """One Gaussian per pixel of the input view, on the surface behind the visible one.

    drawn (B, 3, H, W): the image in the input view; K (B, 3, 3) of its cameras.
    """
    depth = surface.hidden_depth.clamp(max=BACKGROUND_DEPTH * 0.9)
    inverse = (1 / (depth * depth_scale[:, None, None, None]))[:, 0]
    colors = drawn + 0.5 * torch.tanh(surface.hidden_color)
    pixels = torch.full_like(inverse, 0.8 * widen)
    return _layer(inverse, K, pixels, surface.hidden_opacity, colors)


def _layer(inverse: Tensor, K: Tensor, pixels: Tensor, opacity: Tensor, colors: Tensor) -> Layer:
    """The layer of surface_gaussians with logits of opacity (B, 1, H, W) and colours (B, 3, H, W)."""
    opacities = torch.sigmoid(opacity).flatten(1)
    return Layer(*surface_gaussians(inverse, K, pixels), opacities, colors.clamp(0, 1).flatten(2).transpose(1, 2))


def surface_gaussians(inverse: Tensor, K: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussians that tile the surface of an inverse depth map: means, quaternions, scales (B, H * W, ...).

    inverse (B, H, W) 1/m; K (B, 3, 3); pixels (B, H, W): standard deviation in pixels of the source view. Their two
    long axes are the principal axes of the surface patch that one pixel sees (the tangents d position / d pixel), so
    that a road seen at a grazing angle stays closed when the camera drives over it.
    """
    if triton_kernels.can_use(inverse):
        return fused_operations.surface_gaussians(inverse, K, pixels, MAX_SLANT)
    height, width = inverse.shape[-2:]
    fx, fy = K[:, 0, 0, None, None], K[:, 1, 1, None, None]
    x = ((torch.arange(width, device=K.device) - K[:, 0, 2, None]) / K[:, 0, 0, None])[:, None, :].expand_as(inverse)
    y = ((torch.arange(height, device=K.device) - K[:, 1, 2, None]) / K[:, 1, 1, None])[:, :, None].expand_as(inverse)
    rays = torch.stack((x, y, torch.ones_like(x)), -1)
    depth = 1 / inverse
    means = rays * depth[..., None]
    with torch.no_grad():
        # Tangents in units of the depth: d(ray / inverse) * inverse. Only sizes carry gradient here, not slopes.
        limit = MAX_SLANT / torch.sqrt(fx * fy)
        slope_u = (_inner_difference(inverse, 2) / inverse).clamp(-limit, limit)
        slope_v = (_inner_difference(inverse, 1) / inverse).clamp(-limit, limit)
        tangent_u = -rays * slope_u[..., None]
        tangent_v = -rays * slope_v[..., None]
        tangent_u[..., 0] += 1 / fx
        tangent_v[..., 1] += 1 / fy
        quaternions, lengths = _ellipses(tangent_u, tangent_v)
    scales = lengths * (depth * pixels)[..., None]
    return means.flatten(1, 2), quaternions.flatten(1, 2), scales.flatten(1, 2)


def _inner_difference(values: Tensor, dim: int) -> Tensor:
    """Per-pixel slope along dim.

    The smaller of the two one-sided differences, so that depth edges do not stretch (minmod).
    """
    step = values.diff(dim=dim)
    ends = (1, 1, 0, 0) if dim == 2 else (0, 0, 1, 1)
    step = F.pad(step[:, None], ends, mode="replicate")[:, 0]
    size = values.shape[dim]
    before, after = step.narrow(dim, 0, size), step.narrow(dim, 1, size)
    return torch.minimum(before, after).clamp(min=0) + torch.maximum(before, after).clamp(max=0)


def _ellipses(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Quaternions (..., 4) and lengths (..., 3) of the axes of the ellipses spanned by u and v (..., 3).

    The third axis is the normal, and thin. It must not point straight back along z, which that of a pixel's tangents
    never does.
    """
    a, b, c = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    angle = 0.5 * torch.atan2(2 * b, a - c)[..., None]
    cos, sin = torch.cos(angle), torch.sin(angle)
    long, short = cos * u + sin * v, cos * v - sin * u
    long_length, short_length = long.norm(dim=-1), short.norm(dim=-1)
    normal_length = 0.1 * torch.minimum(long_length, short_length)
    # First the shortest turn of the z axis to the normal, w + x i + y j, then a turn about it by less than 90 degrees,
    # c + s k, until the x axis lies along the long axis, whichever way that points.
    normal = F.normalize(torch.linalg.cross(u, v, dim=-1), dim=-1)
    e1 = long / long_length[..., None]
    w = 1 + normal[..., 2]
    x, y = -normal[..., 1], normal[..., 0]
    along = e1[..., :2] - normal[..., :2] * (e1[..., 2] / w)[..., None]
    along = torch.where(along[..., :1] < 0, -along, along)
    c, s = 1 + along[..., 0], along[..., 1]
    quaternions = torch.stack((w * c, x * c + y * s, y * c - x * s, w * s), -1)
    return F.normalize(quaternions, dim=-1), torch.stack((long_length, short_length, normal_length), -1)


def sharpened(image: Tensor) -> Tensor:
    """Colours that, blurred by the overlap of neighbouring Gaussians, look like the image.

    One unsharp step. (B, 3, H, W)
    """
    # A mean of two neighbours, twice, is their mean with weights 1, 2, 1.
    blurred = F.avg_pool2d(F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 2, 1), 2, 1)
    return torch.lerp(blurred, image, 1 + SHARPEN)
