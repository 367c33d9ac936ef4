# SPDX-License-Identifier: Apache-2.0
"""The differentiable path of training: batch -> maps -> Gaussians -> rendered target views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.camera import Camera
from pixel4d_ros.predictor.background import Background, background_layer
from pixel4d_ros.predictor.heads import NetworkInput, PixelMaps, ReferenceInput, encode_sensor, encode_speed
from pixel4d_ros.predictor.input_view import CANONICAL_FOCAL, SURFACE_FOCAL, InputView, view_rays
from pixel4d_ros.predictor.latent import Latent, Later
from pixel4d_ros.predictor.lifting import Layer, VisibleGrid, hidden_layer, visible_layer
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.predictor.objects import decode_motion, pixel_grid
from pixel4d_ros.predictor.pose_refinement import small_rotation
from pixel4d_ros.rendering import GaussianViews, rasterize
from pixel4d_ros.scene import Motion, moved_gaussians
from pixel4d_ros.training.augmentation import sparse_depth
from pixel4d_ros.training.batch import Batch

USUAL_LOG_DEPTH, SCALE_PULL = 2.0, 0.03  # of canonical metres, the median of a scene; strength of the pull towards it
SPEED_GIVEN = 0.5  # share of the samples whose speed is an input
POSE_NOISE, BASELINE_NOISE = 0.0007, 0.015  # radians, and share of the baseline: errors of a reference image's pose
FIELD, FIELD_NOISE, FACTOR_NOISE = (4, 8), 0.25, 0.2  # disturbance of log depth: nodes, its sizes


@dataclass(frozen=True)
class PredictedMaps:
    """The network's output for a batch's source images: all that the losses of motion need."""

    source: NetworkInput
    maps: PixelMaps
    motion: Tensor  # (B, 4, 3, h, w) at a quarter of the input view
    depth_scale: Tensor  # (B,)
    view: InputView
    fine: InputView
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
    return InputView.around(Camera(K, width, height))


def coarse_and_fine_views(batch: Batch, coarse: Batch) -> tuple[InputView, InputView]:
    """The input view of a coarse batch, and that of the surface branch, twice as fine or the same."""
    view = training_view(coarse.images.shape[-1], coarse.images.shape[-2])
    return view, view if coarse.images.shape == batch.images.shape else view.doubled()


@torch.no_grad()
def in_metres(network: Network, coarse: Batch) -> Tensor:
    """Factors (B,) by which to multiply the lengths of a batch at half the resolution, 1 where they are metric.

    Elsewhere the median of predicted by known depth, as Flash3D aligns structure from motion. Nothing in such samples
    keeps their scale from drifting; a weak pull towards USUAL_LOG_DEPTH does.
    """
    view = training_view(coarse.images.shape[-1], coarse.images.shape[-2])
    K = _view_intrinsics(coarse, view)
    depth_scale = _depth_scale(K)
    nothing = torch.full_like(coarse.speed, torch.nan)
    source = _source(coarse, view, K, torch.zeros_like(coarse.depth), depth_scale, nothing)
    with torch.autocast(source.image.device.type, torch.bfloat16, enabled=source.image.is_cuda):
        depth = network.coarse_depth(replace(source, sensor=None))
    depth = inside_view(depth.float(), view)[:, 0] * depth_scale[:, None, None]
    known = torch.where(coarse.depth > 0, coarse.depth, coarse.matched)
    ratio = torch.where((known > 0) & torch.isfinite(known), torch.log(depth) - torch.log(known), torch.nan)
    middle = torch.log(depth / depth_scale[:, None, None]).flatten(1).median(1).values
    factor = torch.nanmedian(ratio.flatten(1), 1).values.nan_to_num(0.0) + SCALE_PULL * (USUAL_LOG_DEPTH - middle)
    return torch.where(coarse.metric, torch.ones_like(factor), factor.exp())


def predict_maps(
    network: nn.Module,
    batch: Batch,
    coarse: Batch,
    use_prior: Tensor | None = None,
    reference_share: float = 0.0,
    disturb: Callable[[Tensor], Tensor] | None = None,
    surface_share: Tensor | None = None,
) -> PredictedMaps:
    """Predict from view 0 of a batch; coarse is the same at half the resolution, or the batch itself.

    use_prior (B,) bool: samples that get the prior's mode as latent; None: all do. Other latents are drawn from the
    posterior, given what moved until view 1. reference_share: of the samples that have a reference image, those whose
    depth it corrects; disturb: what is done to their log depth before. surface_share: see blend_structure.
    """
    view, fine = coarse_and_fine_views(batch, coarse)
    K, fine_K = _view_intrinsics(coarse, view), _view_intrinsics(batch, fine)
    depth_scale = _depth_scale(K)
    sensor = sparse_depth(batch.depth)
    speed = torch.where(torch.rand(len(K), device=K.device) < SPEED_GIVEN, batch.speed, torch.nan)
    speed = speed * torch.empty_like(speed).uniform_(0.95, 1.05)
    factor = batch.images.shape[-1] // coarse.images.shape[-1]
    source = _source(coarse, view, K, nearest_of_cells(sensor, factor), depth_scale, speed)
    fine_scale = depth_scale * (factor * CANONICAL_FOCAL / SURFACE_FOCAL)
    fine_source = _source(batch, fine, fine_K, sensor, fine_scale, speed, SURFACE_FOCAL)
    reference = _reference(batch, fine, fine_K, depth_scale, reference_share) if reference_share > 0 else None
    later = None if use_prior is None else _later(coarse, view, K, depth_scale)
    if use_prior is not None and later is not None:
        use_prior = use_prior | (later.time <= 0)  # a stereo pair has no later frame: nothing to infer motion from
    with torch.autocast(source.image.device.type, torch.bfloat16, enabled=source.image.is_cuda):
        maps, posterior = network(
            source, fine_source, later=later, use_prior=use_prior, reference=reference, disturb=disturb,
            surface_share=surface_share,
        )  # fmt: skip
    maps = maps.float()
    motion = decode_motion(maps.motion, depth_scale)[:, 0]
    return PredictedMaps(source, maps, motion, depth_scale, view, fine, posterior)


def predict_views(
    network: nn.Module,
    batch: Batch,
    coarse: Batch,
    widen: float,
    use_prior: Tensor | None,
    reference_share: float = 0.0,
    disturb: Callable[[Tensor], Tensor] | None = None,
    surface_share: Tensor | None = None,
) -> RenderedPrediction:
    """predict_maps, and all views rendered."""
    predicted = predict_maps(network, batch, coarse, use_prior, reference_share, disturb, surface_share)
    view, fine, maps, depth_scale = predicted.view, predicted.fine, predicted.maps, predicted.depth_scale
    K, drawn = _view_intrinsics(coarse, view), predicted.source.image
    grid = VisibleGrid.of(fine.inner, fine)
    visible = visible_layer(maps.surface, batch.images[:, 0], _view_intrinsics(batch, fine), grid, depth_scale, widen)
    hidden = hidden_layer(maps.surface, drawn, K, depth_scale, widen)
    background = background_layer(drawn, Background.of(K, view.width, view.height, depth_scale))
    means, quaternions = _moved(batch, fine, visible, maps, predicted.motion)
    views = _render(batch, (visible, hidden, background), means, quaternions)
    static_flow = _flow(visible.means, batch, fine)
    # Motion, not another depth, must explain what moves.
    flow = _flow(means[:, 1] - visible.means + visible.means.detach(), batch, fine)
    return RenderedPrediction(**vars(predicted), views=views, flow=flow, static_flow=static_flow)


def _view_intrinsics(batch: Batch, view: InputView) -> Tensor:
    """K (B, 3, 3) of the sources in pixels of the input view."""
    return _padded(batch.K[:, 0], view)


def _padded(K: Tensor, view: InputView) -> Tensor:
    """K (B, 3, 3) of crops, in pixels of the input view."""
    K = K.clone()
    K[:, 0, 2] += view.left
    K[:, 1, 2] += view.top
    return K


def _depth_scale(K: Tensor) -> Tensor:
    """Metres per canonical metre (B,) of cameras K (B, 3, 3)."""
    return torch.sqrt(K[:, 0, 0] * K[:, 1, 1]) / CANONICAL_FOCAL


def _source(
    batch: Batch,
    view: InputView,
    K: Tensor,
    sensor: Tensor,
    depth_scale: Tensor,
    speed: Tensor,
    focal: float = CANONICAL_FOCAL,
) -> NetworkInput:
    """The network's input, with measured depth (B, H, W) in metres, 0 where unknown, and speed, NaN where unknown."""
    image = view.draw(batch.images[:, 0])
    return NetworkInput(
        image,
        view.inside(image.device).expand(len(image), 1, -1, -1),
        view_rays(K, view.width, view.height, focal),
        F.pad(encode_sensor(sensor, depth_scale), _padding(batch, view)),
        encode_speed(speed),
    )


def _reference(batch: Batch, view: InputView, K: Tensor, depth_scale: Tensor, share: float) -> ReferenceInput:
    """The reference images of a random share of the samples that have one, with poses a little off."""
    T = torch.linalg.inv_ex(batch.T_source_reference.double()).inverse[:, :3]
    T[:, :, 3] *= (1 + BASELINE_NOISE * torch.randn(len(T), 1, device=T.device)) / depth_scale[:, None]
    drawn = torch.rand(len(T), device=T.device) < share
    turns = small_rotation(POSE_NOISE * torch.randn(len(T), 3, device=T.device, dtype=T.dtype))
    known = batch.has_reference & drawn
    return ReferenceInput(view.draw(batch.reference), _padded(batch.reference_K, view), K, (turns @ T).float(), known)


def disturbed(log_depth: Tensor) -> Tensor:
    """Log depth (B, 1, h, w) as wrong as on images unlike those trained on: a factor, and a smooth field of factors."""
    batch, device = len(log_depth), log_depth.device
    amount = torch.rand(batch, 1, 1, 1, device=device)
    field = F.interpolate(torch.randn(batch, 1, *FIELD, device=device), log_depth.shape[-2:], mode="bicubic")
    return log_depth + amount * (FACTOR_NOISE * torch.randn(batch, 1, 1, 1, device=device) + FIELD_NOISE * field)


def nearest_of_cells(depth: Tensor, factor: int) -> Tensor:
    """The nearest known depth of each cell of factor x factor pixels, 0 where there is none: (B, H, W)."""
    far = torch.where(depth > 0, depth, torch.inf)
    nearest = -F.max_pool2d(-far[:, None], factor)[:, 0]
    return torch.where(nearest < torch.inf, nearest, 0.0)


def _later(batch: Batch, view: InputView, K: Tensor, depth_scale: Tensor) -> Later:
    T = batch.T_camera_source[:, 1].clone()
    T[:, :3, 3] /= depth_scale[:, None]
    flow = F.pad(batch.flow, _padding(batch, view), value=torch.nan)
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
    dense = F.interpolate(motion.flatten(1, 2), size, mode="bilinear", align_corners=False)
    mobility = F.interpolate(maps.static["mobility"], size, mode="bilinear", align_corners=False)
    moving = torch.sigmoid(mobility)
    parts = (dense * moving).view(len(dense), 4, 3, -1).transpose(2, 3)
    return Motion(*(part[:, None] for part in parts.unbind(1)))


def _visible_centroids(batch: Batch, view: InputView, visible: Layer) -> Tensor:
    """Rotation centres (B, N, 3): the object's where it is known; else the Gaussian itself, which then only turns."""
    ids = F.pad(batch.object_ids, _padding(batch, view)).flatten(1)
    known = torch.gather(batch.centroids, 1, ids.clamp(min=0)[..., None].expand(-1, -1, 3))
    return torch.where((ids > 0)[..., None], known, visible.means)


def _padding(batch: Batch, view: InputView) -> list[int]:
    height, width = batch.images.shape[-2:]
    return [view.left, view.width - width - view.left, view.top, view.height - height - view.top]


def inside_view(maps: Tensor, view: InputView) -> Tensor:
    """The part of maps of the input view (..., H, W) that the camera saw."""
    rows = slice(view.top, view.top + view.inner.height)
    return maps[..., rows, view.left : view.left + view.inner.width]
