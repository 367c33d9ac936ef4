# SPDX-License-Identifier: Apache-2.0
"""Whether a clip's images and its poses belong together, by optical flow.

A camera that moves shifts each point of a still scene along its epipolar line, away from where the rotation alone puts
it. Poses in another frame or direction, angles in other units, quaternions in another order, images that are mirrored
or turned, and intrinsics of another size put the points elsewhere. The scale of positions is compared with depth: the
sensor's, else that which the network predicts from each image alone.
"""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.datasets.moving_points import MovingPoints, is_still, moving_points
from pixel4d_ros.datasets.pose_mistakes import (
    ROLLS,
    bars_doubt,
    has_fixed_orientation,
    rolled,
    usual_mistakes,
    view,
)
from pixel4d_ros.geometry.camera_info import size_doubt
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.two_view.flow import LEAST_SIDE

logger = logging.getLogger(__name__)
PAIRS, LEAST_PAIRS = 6, 3  # of images that are compared, and of those that must tell something
AGO_S = 0.4  # between the images of a pair
# Share of points that agree, median over pairs. Clips of 20 data sets have 0.46 or more, the worst where traffic moves
# around a slow vehicle; the mistakes named above have 0 to 0.3.
LEAST_AGREEMENT = 0.35
# A mistake is likely where agreement, mean over pairs, is above one of these without it, and more by the other one.
# Clips of 20 data sets gain at most 0.08 above 0.75; a slow vehicle amid traffic gains 0.24, up to 0.66.
GOOD_AGREEMENT, BETTER = 0.75, 0.12
MARGIN = 0.05  # of a roll that is chosen for each image, over mistakes that are the same for all
MOVED_M = 1.0  # of the camera between the images of a pair: more shows in pictures
# Things are between these times as far as depth says, median over pairs. Logs and sequences with depth have 0.97 to
# 1.42, as flow falls short where it is long; depth of another unit, mirrored, or inverse has 0.4 or less, 3 or more.
NEAREST_RATIO, FARTHEST_RATIO = 0.5, 2.5
# The same of predicted depth, which has 0.6 to 1.44: close-ups of cars below 0.9, a country road above 1.3.
NEAREST_PREDICTED, FARTHEST_PREDICTED = 0.45, 2.1
LOOKED_AT, REPEATED = 100, 0.1  # pairs of neighbouring images, and share of those with motion that may repeat
REPEATED_STEP, REPEATED_M = 0.2, 0.01  # of the usual step between images, and metres: less is no motion


Predict = Callable[[NDArray[np.uint8], FloatArray], Any]  # a DynamicGaussians of an image and K: Forecaster.predict


def warn_of_wrong_poses(clip: Clip, predict: Predict | None = None) -> None:
    """Warn where a clip's images do not move as its poses and depth say; reads up to 212 of its images.

    predict: tells depth where the clip has none.
    """
    doubt = pose_doubt(clip, predict)
    if doubt:
        logger.warning("%s: %s", clip.name, doubt)


def warn_of_wrong_log_poses(path: Path, camera: str | None = None, rectified: bool | None = None) -> None:
    """The same of a driving log, see read_clip; nothing where it has no poses, as the node works without."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are given where the log is used
        try:
            clip = read_clip(path, camera, rectified=rectified)
        except ValueError:
            return
    warn_of_wrong_poses(clip)


def pose_doubt(clip: Clip, predict: Predict | None = None) -> str:
    """Why images and poses of a clip may not belong together; empty where they agree, or too little moves."""
    height, width = clip.images.shape[1:3]
    K_doubt = size_doubt(Camera(clip.K, width, height), "K")
    if len(clip) < 2 or min(height, width) < LEAST_SIDE:
        return K_doubt
    ahead = max(1, min(round(AGO_S / float(np.median(np.diff(clip.times)))), (len(clip) - 1) // 2 or 1))
    firsts = np.unique(np.linspace(0, len(clip) - 1 - ahead, PAIRS).round().astype(int))
    pairs: dict[tuple[int, int], MovingPoints] = {}
    brightest, frozen = np.zeros(clip.images.shape[1:3], np.uint8), 0
    for i in firsts.tolist():
        try:
            first, later = clip.images[i], clip.images[i + ahead]
        except ValueError:  # damaged: reported when the image is used
            continue
        brightest = np.maximum(brightest, np.maximum(first, later).max(2))
        points = moving_points(first, later)
        if points is not None and (not clip.metric or points.shows_camera_motion(view(clip, i, i + ahead))):
            pairs[i, i + ahead] = points
        elif points is None and clip.metric and np.linalg.norm(view(clip, i, i + ahead)[1][:3, 3]) > MOVED_M:
            frozen += is_still(first, later)
    if frozen >= LEAST_PAIRS and frozen > len(pairs):
        return "the images do not change while the poses move: is the camera frozen, or are they of another drive?"
    if doubt := bars_doubt(clip.K, brightest) or K_doubt:
        return doubt
    return (
        repeats_doubt(clip)
        or pairs_doubt(clip, pairs)
        or _scale_doubt(clip, pairs, predict)
        or _stereo_doubt(clip, firsts.tolist())
    )


def pairs_doubt(clip: Clip, pairs: Mapping[tuple[int, int], MovingPoints]) -> str:
    """Why poses, or depth, do not agree with the points that move between pairs of a clip's images; else empty."""
    if len(pairs) < LEAST_PAIRS:
        return ""
    return _disagreement(clip, pairs) or _depth_doubt(clip, pairs)


def repeats_doubt(clip: Clip) -> str:
    """Says how many images are those before them although the camera moves: frozen, or sent twice; else empty.

    Reads up to 2 LOOKED_AT of the images.
    """
    steps = np.linalg.norm((rigid_inverse(clip.poses[:-1]) @ clip.poses[1:])[:, :3, 3], axis=1)
    least = max(REPEATED_STEP * float(np.median(steps)), REPEATED_M if clip.metric else 0.0)
    moving = np.flatnonzero(steps > least)
    looked_at = moving[np.unique(np.linspace(0, len(moving) - 1, LOOKED_AT).round().astype(int))] if len(moving) else []
    repeated = [i for i in looked_at if _checksum(clip, i) == _checksum(clip, i + 1) is not None]
    if len(repeated) < LEAST_PAIRS or len(repeated) < REPEATED * len(looked_at):
        return ""
    return (
        f"{len(repeated)} of {len(looked_at)} images show the same as the one before although the poses move, the first"
        f" {clip.times[repeated[0]] - clip.times[0]:.1f} s after the start: does the camera freeze, or the driver send"
        " images twice?"
    )


def _stereo_doubt(clip: Clip, indices: Sequence[int]) -> str:
    """Why the right images may not be of a camera beside the left one; else empty. Reads the images of the indices."""
    right = clip.stereo
    if right is None or right.images.shape != clip.images.shape or not np.allclose(right.K, clip.K, rtol=0.05):
        return ""
    agreements, same = [], 0
    for i in indices:
        try:
            points = moving_points(clip.images[i], right.images[i])
            same += points is None and is_still(clip.images[i], right.images[i])
        except ValueError:  # damaged: reported when the image is used
            continue
        if points is not None:
            agreements.append(points.agreement((clip.K, rigid_inverse(right.poses[i]) @ clip.poses[i])))
    if same >= LEAST_PAIRS:
        return "the right camera's images show the same as the left one's: are both topics of one camera?"
    if len(agreements) < LEAST_PAIRS or np.median(agreements) >= LEAST_AGREEMENT:
        return ""
    return "the right camera's images are not shifted as its place beside the left camera says: are the two swapped?"


def _checksum(clip: Clip, i: int) -> int | None:
    """Of the pixels of an image; None of a damaged one."""
    try:
        return zlib.crc32(np.asarray(clip.images[int(i)]).tobytes())
    except ValueError:
        return None


def _depth_doubt(clip: Clip, pairs: Mapping[tuple[int, int], MovingPoints]) -> str:
    """Why the clip's depth cannot be of its images and poses; empty where it can, or one is unknown."""
    if clip.depth is None or not clip.metric:
        return ""
    usual = _distance_ratio(clip, pairs, clip.depth.__getitem__)
    if NEAREST_RATIO <= usual <= FARTHEST_RATIO:
        return ""
    return (
        f"by the motion of the images, things are {usual:.2g} times as far as the depth says: are depth and poses both"
        " in metres (16 bits: millimetres), and is the depth of this camera and these images?"
    )


def _scale_doubt(clip: Clip, pairs: Mapping[tuple[int, int], MovingPoints], predict: Predict | None) -> str:
    """Why the poses of a clip without depth may be in another unit; empty where they agree with predicted depth."""
    if clip.depth is not None or not clip.metric or predict is None:
        return ""
    usual = _distance_ratio(clip, pairs, lambda i: predicted_depth(predict(clip.images[i], clip.K)))
    return scale_doubt(usual)


def scale_doubt(ratio: float) -> str:
    """Why positions may be in another unit, by how far things are in terms of predicted depth; else empty."""
    if NEAREST_PREDICTED <= ratio <= FARTHEST_PREDICTED:
        return ""
    return (
        f"by the poses and the motion of the images, things are {ratio:.2g} times as far as one image alone lets"
        " expect: are positions in metres (not feet), and the radius of wheels right?"
    )


def predicted_depth(scene: Any) -> NDArray[np.float32]:
    """Depth (H, W) in metres of a scene in its source image, 0 where it has none."""
    camera = scene.view_camera()
    return np.asarray(scene.seen_depth(camera, scene.pixels(camera), 0.0))


def _distance_ratio(
    clip: Clip, pairs: Mapping[tuple[int, int], MovingPoints], depth: Callable[[int], NDArray[np.float32]]
) -> float:
    """How many times as far things are as depth (H, W) of an image says, median over pairs; 1 where few tell it."""
    ratios = []
    for pair, points in pairs.items():
        try:
            ratio = points.distance_ratio(view(clip, *pair), depth(pair[0]))
        except ValueError:  # damaged: reported when the depth is used
            continue
        ratios += [] if ratio is None else [ratio]
    return float(np.median(ratios)) if len(ratios) >= LEAST_PAIRS else 1.0


def _disagreement(clip: Clip, pairs: Mapping[tuple[int, int], MovingPoints]) -> str:
    """Which mistake makes images and poses disagree, or that they do; else empty."""
    views = {pair: view(clip, *pair) for pair in pairs}
    given = {pair: pairs[pair].agreement(v) for pair, v in views.items()}
    mean, median = float(np.mean(list(given.values()))), float(np.median(list(given.values())))
    if mean < GOOD_AGREEMENT and has_fixed_orientation(clip):
        return (
            f"the poses keep one orientation, by which {mean:.0%} of what moves in the images moves as the poses say:"
            " fill it, if the camera turns"
        )
    best, text = GOOD_AGREEMENT, ""
    for mistake in usual_mistakes():
        undone = {pair: found for pair in pairs if (found := mistake.undo(clip, *pair)) is not None}
        if len(undone) < LEAST_PAIRS:
            continue
        without = float(np.mean([pairs[pair].agreement(found) for pair, found in undone.items()]))
        as_given = float(np.mean([given[pair] for pair in undone]))
        if without > best and without - as_given > BETTER:
            best = without
            text = (
                f"{mistake.text}: {as_given:.0%} of what moves in the images moves as the poses say, {without:.0%}"
                " would without this mistake"
            )
    steady = float(np.mean([max(pairs[pair].agreement(rolled(v, a)) for a in ROLLS) for pair, v in views.items()]))
    if steady > best + MARGIN and steady - mean > BETTER:
        return (
            f"the camera seems to roll otherwise than the poses: {mean:.0%} of what moves in the images moves as they"
            f" say, {steady:.0%} would with another roll of each image: is the camera fixed to the base, and do the"
            " poses have its roll?"
        )
    if text or median >= LEAST_AGREEMENT:
        return text
    return (
        f"only {median:.0%} of what moves in the images moves as the poses say: check which frame and axes the poses"
        " are of, the order of quaternions, clocks, the camera's mounting and K, and whether images are mirrored or"
        " turned"
    )
