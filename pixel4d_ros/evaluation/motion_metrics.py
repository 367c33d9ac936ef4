# SPDX-License-Identifier: Apache-2.0
"""Motion metrics of a predicted scene at its source image: moving pixels, moving objects and their velocity."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.box_labels import MOVES
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.calibration import Event
from pixel4d_ros.evaluation.labelled_objects import LEAST_SHARE, labelled_objects
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.outputs.moving_objects import MIN_GAUSSIANS, moving_objects
from pixel4d_ros.rendering import rasterize
from pixel4d_ros.rendering.moved_scene import still_views
from pixel4d_ros.scene import DynamicGaussians

SPEED_FLOOR = 0.5  # m/s: errors of slower objects are relative to this
CANDIDATE_SHARE = 0.25  # of a labelled object's pixels: a predicted object that covers less is not about it
LONGEST_VEHICLE = 25.0  # metres
FLOATS = (1.0, 0.05)  # metres, and per metre of distance: a box whose bottom is higher above the ground floats
UP = np.array([0.0, -1.0, 0.0])  # in the optical frame of a level camera


@dataclass(frozen=True)
class MotionScore:
    """One scene against the truth at its source image."""

    mask_iou: float | None  # of predicted moving pixels against true ones; None where less than LEAST_SHARE moves
    false_moving: float  # share of the truly static pixels that are predicted to move
    objects: int  # moving objects large enough to be scored; 0 where true motion is unknown
    found: int  # of these, how many have most of their pixels on a predicted moving object
    velocity_errors: tuple[float, ...]  # per object |v - v_true| / max(|v_true|, SPEED_FLOOR)
    found_errors: tuple[float, ...]  # of the objects that were found alone
    false_objects: int = 0  # predicted moving objects, most of whose pixels move in no label
    impossible_boxes: int = 0  # predicted moving objects longer than LONGEST_VEHICLE, or floating
    events: tuple[Event, ...] = ()  # predicted probability of moving, and whether it moves, per object


def score_motion(
    scene: DynamicGaussians,
    window: Clip,
    moving: NDArray[np.bool_],
    camera_height: float | None = None,
) -> MotionScore:
    """Score the scene's selected future against frame 0 of window.

    moving (H, W): the truly moving pixels; camera_height: metres above flat ground, without which no box counts as
    floating.
    """
    predicted = predicted_moving(scene, window)
    enough = LEAST_SHARE * moving.size
    iou = float((predicted & moving).sum() / (predicted | moving).sum()) if moving.sum() >= enough else None
    still = ~moving
    false_moving = float((predicted & still).sum() / max(1, still.sum()))
    pixel_ids = visible_objects(scene, window)
    fast = moving_ids(scene)
    false_ids = [k for k in fast if _is_false(pixel_ids, k, moving)]
    errors, found, events = [], [], []
    for thing in labelled_objects(window) or ():
        inside = pixel_ids[thing.shown & (pixel_ids >= 0)]
        if inside.size == 0 or thing.velocity is None:
            continue
        counts = np.bincount(inside)
        events.append(Event(_probability_at(scene, counts), bool(thing.moving)))
        if not thing.moving:
            continue
        chosen = int(counts.argmax())
        velocity = _velocity(scene, chosen, thing.center)
        errors.append(float(np.linalg.norm(velocity - thing.velocity) / _floored(thing.velocity)))
        if chosen in fast:
            found.append(errors[-1])
    probabilities = moving_probabilities(scene)
    events += [Event(float(probabilities[k]), False) for k in false_ids]
    return MotionScore(
        iou,
        false_moving,
        len(errors),
        len(found),
        tuple(errors),
        tuple(found),
        len(false_ids),
        _impossible(scene, fast, camera_height),
        tuple(events),
    )


def _floored(velocity: FloatArray) -> float:
    return max(float(np.linalg.norm(velocity)), SPEED_FLOOR)


def _is_false(pixel_ids: NDArray[np.int64], number: int, moving: NDArray[np.bool_]) -> bool:
    """Whether a predicted object is visible enough, and most of its pixels move in no label."""
    shown = pixel_ids == number
    return bool(shown.sum() >= MIN_GAUSSIANS and (shown & moving).sum() < 0.5 * shown.sum())


def moving_ids(scene: DynamicGaussians) -> set[int]:
    """The objects that move over ground, faster than MOVES, in the scene's selected future."""
    fast = (scene.object_ids > 0) & (scene.velocities.norm(dim=1) >= MOVES)
    return {int(k) for k in torch.unique(scene.object_ids[fast])}


def moving_probabilities(scene: DynamicGaussians) -> FloatArray:
    """Probability (M + 1,) that each object moves; 0 for the background.

    The scene's own, or else the share of its sampled futures in which the object moves faster than MOVES.
    """
    given = getattr(scene, "moving_probability", None)
    if given is not None:
        return np.asarray(torch.as_tensor(given).cpu().numpy(), np.float64)
    share = np.zeros(len(scene.centroids))
    for k in range(scene.num_samples):
        share[list(moving_ids(scene.sample(k)))] += 1 / scene.num_samples
    return share


def _probability_at(scene: DynamicGaussians, counts: NDArray[np.int64]) -> float:
    """Probability of motion in some pixels, from the number of them that show each object id, counts (M + 1,)."""
    if len(counts) < 2:
        return 0.0
    chosen = int(counts[1:].argmax()) + 1
    return float(moving_probabilities(scene)[chosen]) if counts[chosen] >= CANDIDATE_SHARE * counts.sum() else 0.0


def _impossible(scene: DynamicGaussians, fast: set[int], camera_height: float | None) -> int:
    """How many boxes of moving objects are longer than any vehicle, or float above flat ground under a level camera."""
    count = 0
    for thing in moving_objects(scene, UP, []):
        if thing.object_id not in fast:
            continue
        center, reach = thing.T_source_box[:3, 3], float(np.linalg.norm(thing.T_source_box[:3, 3]))
        floats = camera_height is not None and (
            camera_height - (center[1] + thing.size[2] / 2) > FLOATS[0] + FLOATS[1] * reach
        )
        count += bool(thing.size[:2].max() > LONGEST_VEHICLE or floats)
    return count


@torch.inference_mode()
def predicted_moving(scene: DynamicGaussians, window: Clip) -> NDArray[np.bool_]:
    """Pixels (H, W) of the source image that show mostly Gaussians of objects that move faster than MOVES."""
    height, width = window.images.shape[1:3]
    views = still_views(scene, np.eye(4)[None], Camera(window.K, width, height))
    moving = ((scene.object_ids > 0) & (scene.velocities.norm(dim=1) >= MOVES)).to(scene.means.dtype)
    # As many channels as colours and confidence, so that no kernel is compiled anew.
    seen = rasterize(replace(views, features=moving[None, :, None].expand_as(views.features)))
    mask: NDArray[np.bool_] = (seen.features[0, ..., 0] > 0.5 * seen.alpha[0]).cpu().numpy()
    return mask


def visible_objects(scene: DynamicGaussians, window: Clip) -> NDArray[np.int64]:
    """Per pixel (H, W) of the source image the object id of a Gaussian that it showed; -1 where none was placed."""
    height, width = window.images.shape[1:3]
    pixels = scene.pixels(Camera(window.K, width, height))
    ids = torch.full((height * width,), -1, device=pixels.device)
    ids[pixels[pixels >= 0]] = scene.object_ids[pixels >= 0]
    return np.asarray(ids.view(height, width).cpu())


def _velocity(scene: DynamicGaussians, number: int, at: FloatArray) -> FloatArray:
    """Velocity (3,) m/s of predicted object `number` (0: the static world) at the point `at` (3,), metres."""
    if number == 0:
        return np.zeros(3)
    first = int(torch.nonzero(scene.object_ids == number)[0, 0])
    linear, angular = (v[first].cpu().double().numpy() for v in (scene.velocities, scene.angular_velocities))
    arm = at - scene.centroids[number].cpu().double().numpy()
    return np.asarray(linear + np.cross(angular, arm), np.float64)
