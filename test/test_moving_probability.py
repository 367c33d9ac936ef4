# SPDX-License-Identifier: Apache-2.0
"""What two images say for motion and against it, and how often objects move in sampled futures."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pixel4d_ros import Camera, DynamicGaussians
from pixel4d_ros.scene import Motion
from pixel4d_ros.two_view.motion_evidence import Evidence, ImagePair, floats, photometric_evidence
from pixel4d_ros.two_view.moving_probability import CALIBRATION, moving_count, with_moving_probability

WIDTH, HEIGHT, DEPTH = 160, 64, 12.0
K = np.array([[150.0, 0, 80], [0, 150, 32], [0, 0, 1]])
PATCH = np.zeros((HEIGHT, WIDTH), bool)
PATCH[24:44, 60:90] = True


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
    return ImagePair(texture(), there, Camera(K, WIDTH, HEIGHT), np.full((HEIGHT, WIDTH), DEPTH, np.float32), T)


def test_a_wall_at_a_wrong_depth_is_no_evidence_of_motion() -> None:
    parallax = 2.5 * 150 * 0.4 / DEPTH  # the wall is 2.5 times as near as predicted
    seen = pair(shifted(texture(), (parallax, 0)), 0.4)
    explained_by_motion = np.array([-1.5 * 0.4, 0, 0])
    assert photometric_evidence(seen, PATCH, explained_by_motion).log_ratio < 0.2


def test_what_leaves_the_epipolar_line_is_evidence_of_motion() -> None:
    seen = pair(shifted(texture(), (150 * 0.4 / DEPTH, 5.0)), 0.4)
    evidence = photometric_evidence(seen, PATCH, np.array([0, -5.0 * DEPTH / 150, 0]))
    assert evidence.log_ratio > 1 and evidence.moving < 3


def test_the_more_the_images_speak_for_motion_the_more_probable_it_is() -> None:
    ratios = [
        CALIBRATION.with_reference(Evidence(static, static, 6.0), network)
        for network in (False, True)
        for static in (3.0, 6.0, 12.0)
    ]
    assert ratios[:3] == sorted(ratios[:3]) and ratios[3:] == sorted(ratios[3:])
    assert all(alone < both for alone, both in zip(ratios[:3], ratios[3:]))


def test_what_ends_above_the_ground_floats() -> None:
    rows = (np.arange(HEIGHT, dtype=np.float32) - K[1, 2])[:, None]
    ground = 1.6 * 150 / np.maximum(rows, 1e-3)  # of a camera 1.6 m above it
    depth = np.broadcast_to(np.where(rows > 8, ground, DEPTH), (HEIGHT, WIDTH)).astype(np.float32).copy()
    standing, treetop = np.zeros_like(PATCH), np.zeros_like(PATCH)
    standing[36:52, 60:70], treetop[2:20, 60:70] = True, True
    depth[standing | treetop] = DEPTH
    seen = replace(pair(texture(), 0.4), depth=depth)
    assert floats(seen, treetop) and not floats(seen, standing)


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


def test_the_first_future_is_the_most_likely_one() -> None:
    found = with_moving_probability(scene(3), np.array([0, 0.7, 0.2]), seed=0)
    for first in (found, found.sample(0)):
        assert first.velocities.norm(dim=1).tolist() == [0, 3, 0] and moving_count(first) == 1
