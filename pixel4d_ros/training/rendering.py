"""The differentiable path of training: batch -> maps -> Gaussians -> rendered target views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pixel4d_ros.camera import Camera
from pixel4d_ros.predictor.canvas import CANONICAL_FOCAL, Canvas, padded_size
from pixel4d_ros.predictor.lifting import Grid, Layer, hidden_layer, shell_layer, visible_layer
from pixel4d_ros.predictor.network import Latent, PixelMaps, canvas_rays
from pixel4d_ros.predictor.objects import decode_motion
from pixel4d_ros.rendering import GaussianViews, rasterize
from pixel4d_ros.scene import Motion, moved_gaussians
from pixel4d_ros.training.batch import Batch


@dataclass(frozen=True)
class Prediction:
    """What the losses look at."""

    views: Tensor  # (B, V, 3, H, W) rendered colours
    maps: PixelMaps
    motion: Tensor  # (B, 4, 3, h, w) at a quarter of the canvas
    depth_scale: Tensor  # (B,)
    canvas: Canvas
    posterior: Latent | None


def training_canvas(width: int, height: int) -> Canvas:
    """The canvas of a crop of width x height pixels, taken as it is."""
    K = np.array([[CANONICAL_FOCAL, 0, width / 2], [0, CANONICAL_FOCAL, height / 2], [0, 0, 1]])
    padded_width, padded_height = padded_size(width), padded_size(height)
    return Canvas(
        Camera(K, width, height),
        padded_width,
        padded_height,
        (padded_width - width) // 2,
        (padded_height - height) // 2,
    )


def predict_views(network: nn.Module, batch: Batch, widen: float, use_prior: Tensor) -> Prediction:
    """Predict from view 0 and render all views. use_prior (B,) bool: samples that get the prior's mode as latent."""
    height, width = batch.images.shape[-2:]
    canvas = training_canvas(width, height)
    grid = Grid.of(canvas.inner, canvas)
    source = batch.images[:, 0]
    K = batch.K[:, 0].clone()
    K[:, 0, 2] += canvas.left
    K[:, 1, 2] += canvas.top
    depth_scale = torch.sqrt(K[:, 0, 0] * K[:, 1, 1]) / CANONICAL_FOCAL
    drawn = canvas.draw(source)
    inside = grid.inside(source.device).expand(len(source), 1, -1, -1)
    with torch.autocast(source.device.type, torch.bfloat16, enabled=source.is_cuda):
        maps, posterior = network(
            drawn,
            inside,
            canvas_rays(K, canvas.width, canvas.height),
            later=canvas.draw(batch.later),
            use_prior=use_prior,
        )
    maps = PixelMaps(
        {k: v.float() for k, v in maps.static.items()},
        {k: v.float() for k, v in maps.objects.items()},
        maps.motion.float(),
    )
    visible = visible_layer(maps, source, K, grid, canvas, depth_scale, widen)
    hidden = hidden_layer(maps, drawn, K, depth_scale, widen)
    shell = shell_layer(drawn, K, depth_scale)
    motion = decode_motion(maps.motion, depth_scale)[:, 0]
    views = _render(batch, canvas, (visible, hidden, shell), maps, motion)
    return Prediction(views, maps, motion, depth_scale, canvas, posterior)


def _render(batch: Batch, canvas: Canvas, layers: tuple[Layer, ...], maps: PixelMaps, motion: Tensor) -> Tensor:
    (b, v), (height, width) = batch.times.shape, batch.images.shape[-2:]
    visible = layers[0]
    per_pixel = _visible_motion(canvas, maps, motion)
    centroids = _visible_centroids(batch, canvas, visible)
    t = batch.times[:, :, None, None]
    means, quaternions = moved_gaussians(
        visible.means[:, None], visible.quaternions[:, None], centroids[:, None], per_pixel, t
    )

    def views_of(name: str) -> Tensor:
        joined = torch.cat([getattr(layer, name) for layer in layers], 1)
        return joined[:, None].expand(-1, v, *joined.shape[1:]).flatten(0, 1)

    still = layers[1:]
    all_means = torch.cat([means] + [layer.means[:, None].expand(-1, v, -1, -1) for layer in still], 2)
    all_quaternions = torch.cat(
        [quaternions] + [layer.quaternions[:, None].expand(-1, v, -1, -1) for layer in still], 2
    )
    rendered = rasterize(
        GaussianViews(
            all_means.flatten(0, 1),
            all_quaternions.flatten(0, 1),
            views_of("scales"),
            views_of("opacities"),
            views_of("colors"),
            torch.linalg.inv(batch.T_source_camera).flatten(0, 1),
            batch.K.flatten(0, 1),
            (width, height),
        )
    )
    return rendered.features.view(b, v, height, width, 3).permute(0, 1, 4, 2, 3)


def _visible_motion(canvas: Canvas, maps: PixelMaps, motion: Tensor) -> Motion:
    """Each visible Gaussian's own motion (B, 1, N, 3): what its pixel says, as far as it says that it moves."""
    size = (canvas.height, canvas.width)
    dense = torch.nn.functional.interpolate(motion.flatten(1, 2), size, mode="bilinear", align_corners=False)
    moving = torch.sigmoid(maps.static["mobility"])
    parts = (dense * moving).view(len(dense), 4, 3, -1).transpose(2, 3)
    return Motion(*(part[:, None] for part in parts.unbind(1)))


def _visible_centroids(batch: Batch, canvas: Canvas, visible: Layer) -> Tensor:
    """Rotation centres (B, N, 3): the object's where it is known; else the Gaussian itself, which then only turns."""
    ids = torch.nn.functional.pad(batch.object_ids, _padding(batch, canvas)).flatten(1)
    known = torch.gather(batch.centroids, 1, ids.clamp(min=0)[..., None].expand(-1, -1, 3))
    return torch.where((ids > 0)[..., None], known, visible.means)


def _padding(batch: Batch, canvas: Canvas) -> list[int]:
    height, width = batch.images.shape[-2:]
    return [canvas.left, canvas.width - width - canvas.left, canvas.top, canvas.height - height - canvas.top]


def inside_view(maps: Tensor, canvas: Canvas) -> Tensor:
    """The part of canvas maps (..., H, W) that the camera saw."""
    rows = slice(canvas.top, canvas.top + canvas.inner.height)
    return maps[..., rows, canvas.left : canvas.left + canvas.inner.width]
