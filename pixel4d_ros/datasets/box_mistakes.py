# SPDX-License-Identifier: Apache-2.0
"""Usual mistakes of labelled boxes: stamps, units and axes unlike those of the images, ids that do not last."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.boxes import Box
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.rotations import FloatArray

FEW = 10  # boxes of a clip: fewer show no mistake of all
UNMATCHED = 0.25  # share of the stamps of labels
IN_VIEW, MARGIN = 0.2, 0.5  # share of the boxes, and how far their centres may be outside, of the image's sides
SIDEWAYS, LYING = 0.7, 0.5  # of a box's z axis along the camera's x, and share of the boxes
SPEED_RATIO, SPEED_APART_MPS = 1.5, 1.0  # between the velocities and the motion of the boxes: factor, and m/s
ELSEWHERE = 0.5  # share of the speed, between the two as vectors: labels in use have up to 0.08
VEHICLE_M, DRIVES_MPS, ACROSS = 2.5, 2.0, 0.7  # longest side, speed, and cosine between a box's x axis and its velocity
LEAST_IMAGES = 5  # of a track whose motion is measured


def unmatched_doubt(stamps: FloatArray, times: FloatArray, slack: float) -> str:
    """Says how many label stamps (L,), s, within the images' times (T,), s, are no image's within slack; else empty."""
    within = stamps[(stamps >= times[0] - slack) & (stamps <= times[-1] + slack)]
    if not len(within):
        return ""
    off = np.abs(within[:, None] - times).min(1)
    unmatched: NDArray[np.bool_] = off > slack
    if unmatched.mean() <= UNMATCHED:
        return ""
    return (
        f"{unmatched.sum()} of {len(within)} labels of its time are left out, {np.median(off[unmatched]):.2f} s from"
        " the next image (median): stamp labels with the stamp of their image"
    )


def gaps_doubt(known: NDArray[np.bool_]) -> str:
    """Says how many images (T,) have no labels, not even an empty list, where some have; else empty."""
    if known.all() or not known.any():
        return ""
    return (
        f"{(~known).sum()} of {len(known)} images have no labels and count as images without objects: label each image,"
        " with an empty list of boxes where there is nothing, or cut the log to the labelled images"
    )


def in_view_doubt(clip: Clip) -> str:
    """Says how many boxes lie outside the images, where most do: they are in other axes or another camera's."""
    boxes = [box for frame in clip.boxes or () for box in frame]
    height, width = clip.images.shape[1:3]
    side = np.array([width, height])
    seen = sum(_is_in_view(box, clip.K, side) for box in boxes)
    if len(boxes) < FEW or seen >= IN_VIEW * len(boxes):
        return ""
    return (
        f"only {seen} of {len(boxes)} boxes lie in the images: centers must be in metres in the optical frame of the"
        " camera (x right, y down, z forward)"
    )


def boxes_doubt(clip: Clip) -> str:
    """What is odd about rotations, ids and velocities of a clip's boxes; else empty."""
    tracks: dict[int, list[tuple[int, Box]]] = defaultdict(list)
    for i, frame in enumerate(clip.boxes or ()):
        for box in frame:
            tracks[box.track].append((i, box))
    boxes = [box for track in tracks.values() for _, box in track]
    if len(boxes) < FEW:
        return ""
    if np.mean([abs(box.T_camera_box[0, 2]) > SIDEWAYS for box in boxes]) > LYING:
        return (
            "most boxes lie on their side: rotations must map the axes of the box (x forward, y left, z up) to those of"
            " the camera, row by row"
        )
    if all(len(track) == 1 for track in tracks.values()) and sum(map(bool, clip.boxes or ())) > 1:
        return "no id of a box is in two images: give an object the same id in all images"
    return _velocity_doubt(clip, list(tracks.values())) or _sides_doubt(boxes)


def _sides_doubt(boxes: list[Box]) -> str:
    """Says where vehicles are not longest along their x axis, or drive across it; else empty."""
    vehicles = [box.size.argmax() for box in boxes if box.size.max() > VEHICLE_M]
    if vehicles and np.mean(np.array(vehicles) > 0) > LYING:
        return (
            "most boxes of vehicles are wider or higher than long: size must be length, width, height (labels of KITTI"
            " have height, width, length, those of nuScenes width, length, height)"
        )
    driven = [(box.T_camera_box[:3, 0], box.velocity) for box in boxes if box.velocity is not None]
    along = [abs(x @ v) / speed for x, v in driven if (speed := float(np.linalg.norm(v))) > DRIVES_MPS]
    if along and np.mean(np.array(along) < ACROSS) > LYING:
        return "most moving boxes drive sideways: the x axis of a box must point forward, along its length"
    return ""


def _velocity_doubt(clip: Clip, tracks: list[list[tuple[int, Box]]]) -> str:
    """Says where the boxes move at another speed, or elsewhere, than their velocities."""
    given, moved, apart = [], [], []
    for track in tracks:
        velocities = [clip.poses[i][:3, :3] @ box.velocity for i, box in track if box.velocity is not None]
        if len(track) < LEAST_IMAGES or len(velocities) < len(track):
            continue
        (i, first), (j, last) = track[0], track[-1]
        way = (clip.poses[j] @ last.T_camera_box - clip.poses[i] @ first.T_camera_box)[:3, 3]
        way /= float(clip.times[j] - clip.times[i])
        given.append(float(np.mean(np.linalg.norm(velocities, axis=1))))
        moved.append(float(np.linalg.norm(way)))
        apart.append(float(np.linalg.norm(np.mean(velocities, axis=0) - way)))
    if not given or not clip.metric:
        return ""
    low, high = sorted((float(np.mean(given)), float(np.mean(moved))))
    if high <= SPEED_RATIO * low or high - low <= SPEED_APART_MPS:
        if np.mean(apart) <= max(ELSEWHERE * high, SPEED_APART_MPS):
            return ""
        return (
            f"boxes move elsewhere than their velocities say ({np.mean(apart):.3g} m/s apart at {high:.3g} m/s, mean):"
            " velocities must be in the axes of the camera (x right, y down, z forward), over ground"
        )
    return (
        f"boxes move at {np.mean(moved):.3g} m/s, but their velocities are {np.mean(given):.3g} m/s (mean): velocities"
        " must be over ground, in m/s, centers in metres"
    )


def _is_in_view(box: Box, K: FloatArray, side: NDArray[np.int64]) -> bool:
    """Whether a box's centre is in an image of side (width, height), or near."""
    x, y, z = K @ box.T_camera_box[:3, 3]
    if z <= 0:
        return False
    pixel = np.array([x / z, y / z])
    return bool((pixel > -MARGIN * side).all() and (pixel < (1 + MARGIN) * side).all())
