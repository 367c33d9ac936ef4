# SPDX-License-Identifier: Apache-2.0
"""The differentiable path of training: batch -> maps -> Gaussians -> rendered target views."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from pixel4d_ros.camera import Camera
from pixel4d_ros.predictor.background import Background, background_layer
from pixel4d_ros.predictor.heads import NetworkInput, PixelMaps, encode_sensor, encode_speed
from pixel4d_ros.predictor.input_view import CANONICAL_FOCAL, InputView, padded_size, view_rays
from pixel4d_ros.predictor.latent import Latent, Later
from pixel4d_ros.predictor.lifting import Layer, VisibleGrid, hidden_layer, visible_layer
from pixel4d_ros.predictor.objects import decode_motion, pixel_grid
from pixel4d_ros.rendering import GaussianViews, rasterize
from pixel4d_ros.scene import Motion, moved_gaussians
from pixel4d_ros.training.augmentation import sparse_depth
from pixel4d_ros.training.batch import Batch

SPEED_GIVEN = 0.5  # share of the samples whose speed is an input


@dataclass(frozen=True)
class PredictedMaps:
    """The network's output for a batch's source images: all that the losses of motion need."""

    source: NetworkInput
    maps: PixelMaps
    motion: Tensor  # (B, 4, 3, h, w) at a quarter of the input view
    depth_scale: Tensor  # (B,)
    view: InputView
    posterior: Latent | None


@dataclass(frozen=True)
class RenderedPrediction(PredictedMaps):
    """The same with rendered views and flow."""

    views: Tensor  # (B, V, 3, H, W) rendered colours
    flow: Tensor  # (B, 2, H, W) pixels from view 0 to view 1, by the predicted motion; no gradient to depth
    static_flow: Tensor  # the same if nothing moved on its own, by the predicted depth


@lru_cache(maxsize=4)
def training_view(width: int, height: int) -> InputView:
    """The input view of a crop of width x height pixels, taken as it is."""
    K = np.array([[CANONICAL_FOCAL, 0, width / 2], [0, CANONICAL_FOCAL, height / 2], [0, 0, 1]])
    padded_width, padded_height = padded_size(width), padded_size(height)
    return InputView(
        Camera(K, width, height),
        padded_width,
        padded_height,
        (padded_width - width) // 2,
        (padded_height - height) // 2,
    )


def predict_maps(network: nn.Module, batch: Batch, use_prior: Tensor | None = None) -> PredictedMaps:
    """Predict from view 0. use_prior (B,) bool: samples that get the prior's mode as latent; None: all do.

    Other latents are drawn from the posterior, given what moved until view 1.
    """
    height, width = batch.images.shape[-2:]
    view = training_view(width, height)
    K = _view_intrinsics(batch, view)
    depth_scale = torch.sqrt(K[:, 0, 0] * K[:, 1, 1]) / CANONICAL_FOCAL
    source = _source(batch, view, K, depth_scale)
    later = None if use_prior is None else _later(batch, view, K, depth_scale)
    if use_prior is not None and later is not None:
        use_prior = use_prior | (later.time <= 0)  # a stereo pair has no later frame: nothing to infer motion from
    with torch.autocast(source.image.device.type, torch.bfloat16, enabled=source.image.is_cuda):
        maps, posterior = network(source, later=later, use_prior=use_prior)
    maps = maps.float()
    return PredictedMaps(source, maps, decode_motion(maps.motion, depth_scale)[:, 0], depth_scale, view, posterior)


def predict_views(network: nn.Module, batch: Batch, widen: float, use_prior: Tensor) -> RenderedPrediction:
    """predict_maps, and all views rendered."""
    predicted = predict_maps(network, batch, use_prior)
    view, maps, depth_scale = predicted.view, predicted.maps, predicted.depth_scale
    K, drawn = _view_intrinsics(batch, view), predicted.source.image
    visible = visible_layer(maps, batch.images[:, 0], K, VisibleGrid.of(view.inner, view), depth_scale, widen)
    hidden = hidden_layer(maps, drawn, K, depth_scale, widen)
    background = background_layer(drawn, Background.of(K, view.width, view.height, depth_scale))
    means, quaternions = _moved(batch, view, visible, maps, predicted.motion)
    views = _render(batch, (visible, hidden, background), means, quaternions)
    static_flow = _flow(visible.means, batch, view)
    # Motion, not another depth, must explain what moves.
    flow = _flow(means[:, 1] - visible.means + visible.means.detach(), batch, view)
    return RenderedPrediction(**vars(predicted), views=views, flow=flow, static_flow=static_flow)


def _view_intrinsics(batch: Batch, view: InputView) -> Tensor:
    """K (B, 3, 3) of the sources in pixels of the input view."""
    K = batch.K[:, 0].clone()
    K[:, 0, 2] += view.left
    K[:, 1, 2] += view.top
    return K


def _source(batch: Batch, view: InputView, K: Tensor, depth_scale: Tensor) -> NetworkInput:
    """The network's input; a share of the samples have measured depth and speed."""
    image = view.draw(batch.images[:, 0])
    b, device = len(image), image.device
    sensor = encode_sensor(sparse_depth(batch.depth), depth_scale)
    speed = torch.where(torch.rand(b, device=device) < SPEED_GIVEN, batch.speed, torch.nan)
    return NetworkInput(
        image,
        view.inside(device).expand(b, 1, -1, -1),
        view_rays(K, view.width, view.height),
        torch.nn.functional.pad(sensor, _padding(batch, view)),
        encode_speed(speed * torch.empty_like(speed).uniform_(0.95, 1.05)),
    )


def _later(batch: Batch, view: InputView, K: Tensor, depth_scale: Tensor) -> Later:
    T = batch.T_camera_source[:, 1].clone()
    T[:, :3, 3] /= depth_scale[:, None]
    flow = torch.nn.functional.pad(batch.flow, _padding(batch, view), value=torch.nan)
    return Later(flow, batch.times[:, 1], T, K)


def _flow(places: Tensor, batch: Batch, view: InputView) -> Tensor:
    """Pixels (B, 2, H, W) from where view 0 sees the visible Gaussians to `places` (B, N, 3) in view 1."""
    T = batch.T_camera_source[:, 1]
    points = places @ T[:, :3, :3].transpose(1, 2) + T[:, None, :3, 3]
    seen = points @ batch.K[:, 1].transpose(1, 2)
    pixels = (seen[..., :2] / seen[..., 2:].clamp(min=0.1)).view(len(places), view.height, view.width, 2)
    seen_at = inside_view(pixels.permute(0, 3, 1, 2), view)
    return seen_at - pixel_grid(view.inner.height, view.inner.width, places.device).permute(2, 0, 1)


def _moved(batch: Batch, view: InputView, visible: Layer, maps: PixelMaps, motion: Tensor) -> tuple[Tensor, Tensor]:
    """Means (B, V, N, 3) and quaternions (B, V, N, 4) of the visible Gaussians at the times of the views."""
    return moved_gaussians(
        visible.means[:, None],
        visible.quaternions[:, None],
        _visible_centroids(batch, view, visible)[:, None],
        _visible_motion(view, maps, motion),
        batch.times[:, :, None, None],
    )


def _render(batch: Batch, layers: tuple[Layer, ...], means: Tensor, quaternions: Tensor) -> Tensor:
    (b, v), (height, width) = batch.times.shape, batch.images.shape[-2:]

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
            batch.T_camera_source.flatten(0, 1),
            batch.K.flatten(0, 1),
            (width, height),
        ),
        with_depth=False,
    )
    return rendered.features.view(b, v, height, width, 3).permute(0, 1, 4, 2, 3)


def _visible_motion(view: InputView, maps: PixelMaps, motion: Tensor) -> Motion:
    """Each visible Gaussian's own motion (B, 1, N, 3): that of its pixel, weighted by mobility."""
    size = (view.height, view.width)
    dense = torch.nn.functional.interpolate(motion.flatten(1, 2), size, mode="bilinear", align_corners=False)
    moving = torch.sigmoid(maps.static["mobility"])
    parts = (dense * moving).view(len(dense), 4, 3, -1).transpose(2, 3)
    return Motion(*(part[:, None] for part in parts.unbind(1)))


def _visible_centroids(batch: Batch, view: InputView, visible: Layer) -> Tensor:
    """Rotation centres (B, N, 3): the object's where it is known; else the Gaussian itself, which then only turns."""
    ids = torch.nn.functional.pad(batch.object_ids, _padding(batch, view)).flatten(1)
    known = torch.gather(batch.centroids, 1, ids.clamp(min=0)[..., None].expand(-1, -1, 3))
    return torch.where((ids > 0)[..., None], known, visible.means)


def _padding(batch: Batch, view: InputView) -> list[int]:
    height, width = batch.images.shape[-2:]
    return [view.left, view.width - width - view.left, view.top, view.height - height - view.top]


def inside_view(maps: Tensor, view: InputView) -> Tensor:
    """The part of maps of the input view (..., H, W) that the camera saw."""
    rows = slice(view.top, view.top + view.inner.height)
    return maps[..., rows, view.left : view.left + view.inner.width]
