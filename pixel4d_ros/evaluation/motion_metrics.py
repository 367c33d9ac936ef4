"""How well a predicted scene knows what moves, and how fast, in the source image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.rendering import GaussianViews, rasterize
from pixel4d_ros.scene import DynamicGaussians

LEAST_SHARE = 0.001  # of the image's pixels: objects and masks smaller than this are not judged
SPEED_FLOOR = 0.5  # m/s: errors of slower objects are relative to this


@dataclass(frozen=True)
class MotionScore:
    """One scene against the truth at its source image."""

    mask_iou: float | None  # of predicted moving pixels against true ones; None where hardly anything moves
    false_moving: float  # share of the truly static pixels that are predicted to move
    objects: int  # moving objects large enough to be judged; 0 where true motion is unknown
    found: int  # of these, how many have most of their pixels on a predicted object
    velocity_errors: tuple[float, ...]  # per object |v - v_true| / max(|v_true|, SPEED_FLOOR)
    found_errors: tuple[float, ...]  # of the objects that were found alone


def score_motion(scene: DynamicGaussians, window: Clip, moving: NDArray[np.bool_]) -> MotionScore:
    """Judge the scene's selected future against frame 0 of window, whose moving pixels (H, W) are given."""
    predicted = predicted_moving(scene, window)
    enough = LEAST_SHARE * moving.size
    iou = float((predicted & moving).sum() / (predicted | moving).sum()) if moving.sum() >= enough else None
    still = ~moving
    false_moving = float((predicted & still).sum() / max(1, still.sum()))
    if window.object_ids is None or window.object_motions is None or window.object_centroids is None:
        return MotionScore(iou, false_moving, 0, 0, (), ())
    ids = window.object_ids[0]
    pixel_ids = _visible_objects(scene, window)
    errors, found = [], []
    for i in np.unique(ids[ids > 0]):
        inside = pixel_ids[(ids == i) & (pixel_ids >= 0)]
        if (ids == i).sum() < enough or inside.size == 0:
            continue
        chosen = int(np.bincount(inside).argmax())
        true = window.object_motions[0, i, 0].astype(np.float64)
        velocity = _velocity(scene, chosen, window.object_centroids[0, i])
        errors.append(float(np.linalg.norm(velocity - true) / max(np.linalg.norm(true), SPEED_FLOOR)))
        if chosen:
            found.append(errors[-1])
    return MotionScore(iou, false_moving, len(errors), len(found), tuple(errors), tuple(found))


@torch.inference_mode()
def predicted_moving(scene: DynamicGaussians, window: Clip) -> NDArray[np.bool_]:
    """Pixels (H, W) of the source image that show mostly Gaussians of moving objects."""
    height, width = window.images.shape[1:3]
    device = scene.means.device
    moving = (scene.object_ids > 0).to(scene.means.dtype)[:, None]
    seen = rasterize(
        GaussianViews(
            scene.means[None],
            scene.quaternions[None],
            scene.scales[None],
            scene.opacities[None],
            moving.expand(-1, 4)[
                None
            ],  # as many channels as colours and confidence, so that no kernel is compiled anew
            torch.eye(4, device=device)[None],
            torch.tensor(window.K, dtype=torch.float32, device=device)[None],
            (width, height),
        )
    )
    mask: NDArray[np.bool_] = (seen.features[0, ..., 0] > 0.5 * seen.alpha[0]).cpu().numpy()
    return mask


def _visible_objects(scene: DynamicGaussians, window: Clip) -> NDArray[np.int64]:
    """Per pixel (H, W) of the source image the object id of a Gaussian that it showed; -1 where none was placed."""
    height, width = window.images.shape[1:3]
    pixels = scene.pixels(Camera(window.K, width, height))
    ids = torch.full((height * width,), -1, device=pixels.device)
    ids[pixels[pixels >= 0]] = scene.object_ids[pixels >= 0]
    return np.asarray(ids.view(height, width).cpu())


def _velocity(scene: DynamicGaussians, number: int, at: NDArray[np.float32]) -> FloatArray:
    """Velocity (3,) m/s of predicted object `number` (0: the static world) at the point `at` (3,), metres."""
    if number == 0:
        return np.zeros(3)
    first = int(torch.nonzero(scene.object_ids == number)[0, 0])
    linear, angular = (v[first].cpu().double().numpy() for v in (scene.velocities, scene.angular_velocities))
    arm = at - scene.centroids[number].cpu().double().numpy()
    return np.asarray(linear + np.cross(angular, arm), np.float64)
