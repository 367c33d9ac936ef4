# SPDX-License-Identifier: Apache-2.0
"""What two images say for motion and against it, and how often objects move in sampled futures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pixel4d_ros import DynamicGaussians
from pixel4d_ros.scene import Motion
from pixel4d_ros.two_view.image_pair import ImagePair, pixels_of
from pixel4d_ros.two_view.motion_evidence import MOST_GAP, Evidence, motion_evidence
from pixel4d_ros.two_view.moving_probability import CALIBRATION, LIKELY, moving_count, with_moving_probability

WIDTH, HEIGHT, DEPTH = 160, 64, 12.0
K = np.array([[150.0, 0, 80], [0, 150, 32], [0, 0, 1]])
PATCH = np.zeros((HEIGHT, WIDTH), bool)
PATCH[24:44, 60:90] = True
VEHICLE = Evidence(log_ratio=0.4, texture=3.0, gap=0.2, flatness=0.0, width=0.0)


def texture(seed: int = 0) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).uniform(0, 255, (HEIGHT, WIDTH)).astype(np.float32)
    return np.clip((cv2.GaussianBlur(noise, (0, 0), 1.5) - 127) * 3 + 127, 0, 255).astype(np.uint8)


def shifted(image: NDArray[np.uint8], pixels: tuple[float, float]) -> NDArray[np.uint8]:
    move = np.array([[1, 0, pixels[0]], [0, 1, pixels[1]]], np.float32)
    return np.asarray(cv2.warpAffine(image, move, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def pair(there: NDArray[np.uint8], baseline: float) -> ImagePair:
    """A wall that the camera passes sideways, baseline metres to the right since the reference image."""
    T = np.eye(4)
    T[0, 3] = baseline
    depth, flow = np.full((HEIGHT, WIDTH), DEPTH, np.float32), np.zeros((HEIGHT, WIDTH, 2), np.float32)
    return ImagePair(texture(), there, depth, K, T, 0.2, flow, np.zeros_like(PATCH), texture(), there, K)


def test_a_wall_at_a_wrong_depth_is_no_evidence_of_motion() -> None:
    parallax = 2.5 * 150 * 0.4 / DEPTH  # the wall is 2.5 times as near as predicted
    seen = pair(shifted(texture(), (parallax, 0)), 0.4)
    explained_by_motion = np.array([-1.5 * 0.4, 0, 0])
    assert motion_evidence(seen, *pixels_of(PATCH), explained_by_motion).log_ratio < 0.2


def test_what_leaves_the_epipolar_line_is_evidence_of_motion() -> None:
    seen = pair(shifted(texture(), (150 * 0.4 / DEPTH, 5.0)), 0.4)
    assert motion_evidence(seen, *pixels_of(PATCH), np.array([0, -5.0 * DEPTH / 150, 0])).log_ratio > 1


def test_the_more_the_images_speak_for_motion_the_more_probable_it_is() -> None:
    likely, likely_both = (
        [CALIBRATION.with_reference(VEHICLE._replace(log_ratio=ratio), network) for ratio in (-0.5, 0.0, 0.5)]
        for network in (False, True)
    )
    assert likely == sorted(likely) and likely[0] < 0.5 < likely[2]
    assert all(alone < both for alone, both in zip(likely, likely_both))


@pytest.mark.parametrize(
    "unlikely",
    [{"gap": 2.0}, {"flatness": 0.5}, {"width": 1.5}, {"texture": 1.0}],
    ids=["a treetop", "the road", "a hedge", "a wall without texture"],
)
def test_what_does_not_look_like_a_vehicle_needs_more_evidence(unlikely: dict[str, float]) -> None:
    likely = CALIBRATION.with_reference(VEHICLE, False)
    assert CALIBRATION.with_reference(VEHICLE._replace(**unlikely), False) < 0.7 * likely


def above_road(rows: slice) -> tuple[ImagePair, NDArray[np.bool_]]:
    """A patch DEPTH away at some rows, above a road on which the camera stands 1.6 m high."""
    heights = (np.arange(HEIGHT, dtype=np.float32) - K[1, 2])[:, None]
    ground = 1.6 * 150 / np.maximum(heights, 1e-3)
    depth = np.broadcast_to(np.where(heights > 8, ground, DEPTH), (HEIGHT, WIDTH)).astype(np.float32).copy()
    patch = np.zeros_like(PATCH)
    patch[rows, 60:70] = True
    depth[patch] = np.broadcast_to(np.where(heights > 22, ground, DEPTH), depth.shape)[patch]
    return pair(texture(), 0.4)._replace(depth=depth), patch


@pytest.mark.parametrize(
    ("rows", "gap", "flat"),
    [(slice(36, 52), 0.0, False), (slice(2, 20), MOST_GAP, False), (slice(50, 60), 0.0, True)],
    ids=["a vehicle", "a treetop", "the road"],
)
def test_a_patch_is_compared_with_the_ground_below_it(rows: slice, gap: float, flat: bool) -> None:
    images, patch = above_road(rows)
    evidence = motion_evidence(images, *pixels_of(patch), np.zeros(3))
    assert evidence.gap == pytest.approx(gap, abs=0.1) and (evidence.flatness > 0.3) == flat


def test_only_what_varies_in_both_directions_has_texture() -> None:
    stripes = np.broadcast_to((np.arange(WIDTH) % 8 * 30).astype(np.uint8), (HEIGHT, WIDTH)).copy()
    plain, textured = (
        motion_evidence(pair(texture(), 0.4)._replace(here=image), *pixels_of(PATCH), np.zeros(3))
        for image in (stripes, texture())
    )
    assert plain.texture == pytest.approx(0, abs=1e-3) and textured.texture > 1


def scene(samples: int) -> DynamicGaussians:
    """Two objects of one Gaussian each that move in all futures, and one of the background."""
    zeros, velocities = torch.zeros(3, 3), torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 0, 5]])
    motion = Motion(velocities, zeros, zeros, zeros)
    shape = (torch.ones(3, 3), torch.tensor([[1.0, 0, 0, 0]]).repeat(3, 1), torch.ones(3, 3), torch.ones(3), zeros)
    ids = torch.tensor([0, 1, 2])
    return DynamicGaussians(*shape, velocities, zeros, zeros, zeros, ids, torch.zeros(3, 3), (motion,) * samples)


def test_objects_move_in_as_many_futures_as_their_probability_says() -> None:
    found = with_moving_probability(scene(400), np.array([0.9, 0.7, 0.2]), seed=1)
    assert found.moving_probability is not None
    assert found.moving_probability.tolist() == pytest.approx([0, 0.7, 0.2])
    moves = torch.stack([future.velocities.norm(dim=1) > 0 for future in found.futures]).float().mean(0)
    assert moves.tolist() == pytest.approx([0, 0.7, 0.2], abs=0.06)


def test_in_the_first_future_moves_what_is_likely_to() -> None:
    found = with_moving_probability(scene(3), np.array([0, LIKELY, LIKELY - 0.1]), seed=0)
    for first in (found, found.sample(0)):
        assert first.velocities.norm(dim=1).tolist() == [0, 3, 0] and moving_count(first) == 1
