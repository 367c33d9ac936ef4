# SPDX-License-Identifier: Apache-2.0
"""Views of a moving scene, rendered on its device: colours as bytes, depth, and how much of it was seen before."""

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
MOVING_SHARE = 0.1  # of the Gaussians, for which there is room as long as nobody has counted those that move


@dataclass(frozen=True)
class RenderedViews:
    """V views on the scene's device."""

    frames: Tensor  # (V, H, W, 3) uint8 RGB
    confidence: Tensor  # (V,) 0..1: share of pixels that come mostly from what the image showed
    depth: Tensor | None  # (V, H, W) float32 metres, inf where nothing is seen; None where it was not asked for


@dataclass(frozen=True)
class MovedScene:
    """Futures of one scene, its moving Gaussians at U instants."""

    scene: DynamicGaussians
    futures: tuple[Moved, ...]  # of U views each; none when nothing moves
    count: int
    complete: Tensor  # () bool: there was room for all that moves


@torch.inference_mode()
def advance(futures: Sequence[DynamicGaussians], times: NDArray[np.float64], exact: bool = False) -> MovedScene:
    """Move futures of one scene, `scene.sample(k)`, to the times (U,) in seconds.

    Which Gaussians move is not counted unless exact, since counting waits for the device; then there is room for a
    share of them, and `complete` tells whether that did.
    """
    scene = futures[0]
    moves = scene.object_ids > 0
    moving = None if exact or not moves.is_cuda else _uncounted(moves)
    if moving is None:
        moving = torch.nonzero(moves)[:, 0]
        if len(moving) == 0:
            return MovedScene(scene, (), len(futures), moves.new_ones(()))
    complete = moves.sum() <= len(moving)
    t = to_device(times.astype(np.float32), moves.device)[:, None, None]
    return MovedScene(scene, tuple(_moved(future, moving, t) for future in futures), len(futures), complete)


def _uncounted(moves: Tensor) -> Tensor | None:
    """Indices of as many that move as there is room for; None where torch (before 2.7) has no such operation on CUDA.

    Where fewer move, the last Gaussian fills the room: it stays what it is, however often it is written.
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
    """Views from poses T_source_camera (V, 4, 4), at the moved_scene's instants (V,): all those of one future at once.

    The next future is rendered when it is asked for.
    """
    poses = check_poses(T_source_camera)
    if len(poses) != len(instants):
        raise ValueError(f"rendering needs one pose per time, got {len(poses)} poses and {len(instants)} times")
    still = _still_views(moved_scene.scene, poses, camera)
    if not moved_scene.futures:
        yield from [_as_pictures(rasterize(still, with_depth), with_depth)] * moved_scene.count
        return
    index = to_device(instants, moved_scene.scene.means.device)
    futures = [
        replace(still, moved=Moved(moved.index, moved.means[index], moved.quaternions[index]))
        for moved in moved_scene.futures
    ]
    for rendering in rasterize_futures(futures, with_depth):
        yield _as_pictures(rendering, with_depth)


def color_spread(futures: Sequence[RenderedViews]) -> Tensor:
    """Standard deviation (V, H, W) over the futures' frames, 0..1."""
    return _scaled_variances([future.frames for future in futures]).sqrt().mean(-1) / (255 * len(futures))


def _scaled_variances(frames: Sequence[Tensor]) -> Tensor:
    """S^2 times the variance (...) over S samples of bytes (...)."""
    # By whole numbers, sums of bytes and of their squares, which float32 holds: torch's own takes five times as long.
    if triton_kernels.is_available(frames[0].device):
        return triton_kernels.operations.scaled_variances(torch.stack(tuple(frames)))
    count, total, squares = len(frames), *torch.zeros(2, device=frames[0].device)
    for levels in (given.float() for given in frames):
        total, squares = total + levels, squares + levels.square()
    return (count * squares - total.square()).clamp(min=0)


def distinct_views(poses: FloatArray, instants: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of V views (poses and instants) to render, since paths that start alike share some; and what each shows.

    Indices into the views (U,), ascending, and indices into those (V,).
    """
    if len(np.unique(instants)) == len(instants):  # one path: no need to compare poses
        return np.arange(len(poses)), np.arange(len(poses))
    views = np.column_stack((poses.reshape(len(poses), -1), instants))
    _, first, source = np.unique(views, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[source.reshape(-1)]


def runs(source: NDArray[np.int64], start: int, count: int) -> Iterator[tuple[int, slice]]:
    """Where rendered views start .. start + count belong: the place of the first of several in a row, and which."""
    places = np.nonzero((source >= start) & (source < start + count))[0]
    rows = source[places] - start
    ends = np.nonzero((np.diff(places) != 1) | (np.diff(rows) != 1))[0] + 1
    for run in np.split(np.arange(len(places)), ends):
        if len(run):
            yield int(places[run[0]]), slice(int(rows[run[0]]), int(rows[run[-1]]) + 1)


def _still_views(scene: DynamicGaussians, T_source_camera: FloatArray, camera: Camera) -> GaussianViews:
    """What to draw if nothing moved; nothing is copied for it."""
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


def _moved(scene: DynamicGaussians, moving: Tensor, t: Tensor) -> Moved:
    """The Gaussians at index moving (M,) where they are at t (U, 1, 1) seconds."""
    fields = [getattr(scene, name) for name in MOTION_FIELDS]
    if triton_kernels.can_use(scene.means):
        moved = triton_kernels.operations.moved_gaussians(
            scene.means, scene.quaternions, scene.centroids, scene.object_ids, fields, moving, t
        )
        return Moved(moving, *moved)
    motion = Motion(*(field[moving] for field in fields))
    centroids = scene.centroids[scene.object_ids[moving]]
    return Moved(moving, *moved_gaussians(scene.means[moving], scene.quaternions[moving], centroids, motion, t))


def _as_pictures(rendering: Rendering, with_depth: bool) -> RenderedViews:
    if triton_kernels.can_use(rendering.features):
        frames, known = triton_kernels.operations.pictures(rendering.features, SEEN)
    else:
        colors, seen = rendering.features[..., :3], rendering.features[..., 3]
        frames = (colors.clamp(0, 1) * 255).round().to(torch.uint8)
        known = (seen > SEEN).float().mean((1, 2)).clamp(0, 1)
    return RenderedViews(frames, known, rendering.depth if with_depth else None)
