# SPDX-License-Identifier: Apache-2.0
"""A scene moved to given times, and its views rendered on the device: frames, depth and confidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pixel4d_ros.camera import Camera, check_poses
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.rendering import GaussianViews, Moved, Rendering, rasterize, rasterize_futures, triton_kernels
from pixel4d_ros.rendering.streams import to_device
from pixel4d_ros.scene import MOTION_FIELDS, DynamicGaussians, Motion, moved_gaussians

SEEN = 0.5  # share of a pixel's colour from Gaussians that the source image showed, above which the pixel is known
MOVING_SHARE = 0.1  # of the Gaussians: room for moving ones that are not counted


@dataclass(frozen=True)
class RenderedViews:
    """V views on the scene's device."""

    frames: Tensor  # (V, H, W, 3) uint8 RGB
    confidence: Tensor  # (V,) 0..1: share of pixels that come mostly from what the image showed
    depth: Tensor | None  # (V, H, W) float32 metres, inf where nothing is seen; None where it was not asked for


@dataclass(frozen=True)
class MovedScene:
    """S sampled futures of one scene, moved to T times."""

    futures: tuple[DynamicGaussians, ...]  # they differ in motion only
    times: NDArray[np.float64]  # (T,) seconds
    moved: tuple[Moved, ...]  # per future, its moving Gaussians in T views; empty when nothing moves
    complete: Tensor  # () bool: there was room for all Gaussians that move

    @property
    def device(self) -> torch.device:
        """Where the scene is."""
        return self.futures[0].means.device


@torch.inference_mode()
def advance(futures: Sequence[DynamicGaussians], times: NDArray[np.float64], exact: bool = False) -> MovedScene:
    """Move futures of one scene, `scene.sample(k)`, to times (T,) in seconds.

    Counting the moving Gaussians makes the host wait for the GPU. Unless exact, a GPU therefore gets room for a fixed
    share of the Gaussians, and `complete` is True afterwards if that was enough.
    """
    futures = tuple(futures)
    moves = futures[0].object_ids > 0
    moving = None if exact or not moves.is_cuda else padded_indices(moves)
    if moving is None:
        moving = torch.nonzero(moves)[:, 0]
        if len(moving) == 0:
            return MovedScene(futures, times, (), moves.new_ones(()))
    complete = moves.sum() <= len(moving)
    t = to_device(times.astype(np.float32), moves.device)[:, None, None]
    return MovedScene(futures, times, tuple(move_to(future, moving, t) for future in futures), complete)


def padded_indices(moves: Tensor) -> Tensor | None:
    """Indices of moving Gaussians, padded to a fixed number; None where torch (before 2.7) cannot do so on CUDA.

    The padding repeats the last Gaussian, which is written unchanged however often.
    """
    try:
        return torch.nonzero_static(moves, size=max(1, int(MOVING_SHARE * len(moves))), fill_value=len(moves) - 1)[:, 0]
    except NotImplementedError:
        return None


@torch.inference_mode()
def render(
    moved_scene: MovedScene,
    T_source_camera: ArrayLike,
    instants: NDArray[np.int64],
    camera: Camera,
    with_depth: bool = True,
) -> Iterator[RenderedViews]:
    """Render V views from T_source_camera (V, 4, 4) at the scene's times with indices instants (V,).

    Yields all views of one future at once, and renders each future when it is asked for.
    """
    poses = check_poses(T_source_camera)
    if len(poses) != len(instants):
        raise ValueError(f"rendering needs one pose per time, got {len(poses)} poses and {len(instants)} times")
    still = still_views(moved_scene.futures[0], poses, camera)
    if not moved_scene.moved:
        yield from [rendered_views(rasterize(still, with_depth), with_depth)] * len(moved_scene.futures)
        return
    index = to_device(instants, moved_scene.device)
    futures = [
        replace(still, moved=Moved(moved.index, moved.means[index], moved.quaternions[index]))
        for moved in moved_scene.moved
    ]
    for rendering in rasterize_futures(futures, with_depth):
        yield rendered_views(rendering, with_depth)


def color_spread(futures: Sequence[RenderedViews]) -> Tensor:
    """Standard deviation (V, H, W) over the futures' frames, 0..1."""
    return _scaled_variances([future.frames for future in futures]).sqrt().mean(-1) / (255 * len(futures))


def _scaled_variances(frames: Sequence[Tensor]) -> Tensor:
    """S^2 times the variance (...) over S samples of bytes (...)."""
    # Sums of bytes and of their squares are whole numbers that float32 holds. torch.var takes five times as long.
    if triton_kernels.is_available(frames[0].device):
        return triton_kernels.operations.scaled_variances(torch.stack(tuple(frames)))
    count, total, squares = len(frames), *torch.zeros(2, device=frames[0].device)
    for levels in (given.float() for given in frames):
        total, squares = total + levels, squares + levels.square()
    variances: Tensor = count * squares - total.square()
    return variances.clamp(min=0)


def distinct_views(poses: FloatArray, instants: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the U distinct ones of V views (poses and instants); camera paths that start alike share views.

    Returns ascending indices (U,) of the distinct views, and for each view the index (V,) of its equal among those.
    """
    if len(np.unique(instants)) == len(instants):  # one path: no need to compare poses
        return np.arange(len(poses)), np.arange(len(poses))
    views = np.column_stack((poses.reshape(len(poses), -1), instants))
    _, first, source = np.unique(views, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[source.reshape(-1)]


def runs(source: NDArray[np.int64], start: int, count: int) -> Iterator[tuple[int, slice]]:
    """For rendered views start .. start + count, yield where consecutive ones belong: first place and slice of them."""
    places = np.nonzero((source >= start) & (source < start + count))[0]
    rows = source[places] - start
    ends = np.nonzero((np.diff(places) != 1) | (np.diff(rows) != 1))[0] + 1
    for run in np.split(np.arange(len(places)), ends):
        if len(run):
            yield int(places[run[0]]), slice(int(rows[run[0]]), int(rows[run[-1]]) + 1)


def still_views(scene: DynamicGaussians, T_source_camera: FloatArray, camera: Camera) -> GaussianViews:
    """Views from T_source_camera (V, 4, 4) without motion, as expanded tensors: nothing is copied."""
    v, device = len(T_source_camera), scene.means.device
    observed = torch.ones_like(scene.opacities) if scene.observed is None else scene.observed
    features = torch.cat((scene.colors, observed[:, None]), 1)
    return GaussianViews(
        scene.means.expand(v, -1, -1),
        scene.quaternions.expand(v, -1, -1),
        scene.scales.expand(v, -1, -1),
        scene.opacities.expand(v, -1),
        features.expand(v, -1, -1),
        to_device(rigid_inverse(T_source_camera).astype(np.float32), device),
        to_device(camera.K.astype(np.float32), device).expand(v, 3, 3),
        (camera.width, camera.height),
    )


def move_to(scene: DynamicGaussians, moving: Tensor, t: Tensor) -> Moved:
    """The Gaussians at index moving (M,), moved to t (T, 1, 1) seconds."""
    fields = [getattr(scene, name) for name in MOTION_FIELDS]
    if triton_kernels.can_use(scene.means):
        moved = triton_kernels.operations.moved_gaussians(
            scene.means, scene.quaternions, scene.centroids, scene.object_ids, fields, moving, t
        )
        return Moved(moving, *moved)
    motion = Motion(*(field[moving] for field in fields))
    centroids = scene.centroids[scene.object_ids[moving]]
    return Moved(moving, *moved_gaussians(scene.means[moving], scene.quaternions[moving], centroids, motion, t))


def rendered_views(rendering: Rendering, with_depth: bool) -> RenderedViews:
    """Frames in bytes and confidence of rendered features (V, H, W, 4): RGB, and the share that the image showed."""
    if triton_kernels.can_use(rendering.features):
        frames, known = triton_kernels.operations.pictures(rendering.features, SEEN)
    else:
        colors, seen = rendering.features[..., :3], rendering.features[..., 3]
        frames = (colors.clamp(0, 1) * 255).round().to(torch.uint8)
        known = (seen > SEEN).float().mean((1, 2)).clamp(0, 1)
    return RenderedViews(frames, known, rendering.depth if with_depth else None)
