# SPDX-License-Identifier: Apache-2.0
"""Depth from motion: from two images and the camera's way between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.paths import shared_path

from pixel4d_ros import Forecaster
from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.open import open_clips
from pixel4d_ros.evaluation.protocol import Protocol
from pixel4d_ros.evaluation.runner import Options, evaluate_clip, evaluate_worlds
from pixel4d_ros.evaluation.synthetic_worlds import WorldSet
from pixel4d_ros.evaluation.windows import cut, motion_depth
from pixel4d_ros.geometry.rotations import FloatArray, rigid, rigid_inverse, rotation_matrix
from pixel4d_ros.synthetic import street_clip
from pixel4d_ros.two_view.flow import flow_size
from pixel4d_ros.two_view.object_motion import SeenMaps
from pixel4d_ros.two_view.reference_view import ReferenceView
from pixel4d_ros.two_view.rigid_flow import static_flow
from pixel4d_ros.two_view.triangulation import (
    BASELINE,
    FARTHEST,
    LEAST_BASELINE,
    NEAREST,
    depth_from_flow,
    depth_from_motion,
    triangulated_depth,
    view_for_depth,
)

K = np.array([[240.0, 0, 100], [0, 250, 40], [0, 0, 1]])
small = st.floats(-0.03, 0.03)


@pytest.fixture(scope="module")
def street() -> Clip:
    """A synthetic street of exact depth and poses, two near cars driving in it."""
    return street_clip(900_002, 6, size=(416, 128))


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster.load(device="cpu")


def triangulated(
    image: NDArray[np.uint8], earlier: NDArray[np.uint8], T: FloatArray, K: FloatArray, by: Forecaster | None = None
) -> Any:
    """Depth of an image that K belongs to, by DIS flow or a forecaster's."""
    height, width = image.shape[:2]
    camera = Camera(K, width, height).resized(*flow_size(width, height))
    reference = ReferenceView(earlier, K, rigid_inverse(T), -0.2)
    flow = None if by is None else by.measured_flow(image, [reference])[0].flow
    return triangulated_depth(image, reference, camera, flow)


@settings(max_examples=30, deadline=None)
@given(angles=st.tuples(small, small, small), way=st.tuples(small, small, st.floats(0.6, 2.0)), seed=st.integers(0, 99))
def test_exact_flow_gives_exact_depth(angles: tuple[float, ...], way: tuple[float, ...], seed: int) -> None:
    depth = np.random.default_rng(seed).uniform(NEAREST + 1, FARTHEST - 1, (80, 200))
    found = depth_from_flow(static_flow(1 / depth, T := rigid(rotation_matrix(np.array(angles)), way), K), T, K)
    known = found > 0
    assert known.mean() > 0.02
    np.testing.assert_allclose(found[known], depth[known], rtol=1e-4)


def test_what_moves_off_the_line_of_still_points_is_unknown() -> None:
    T = rigid(np.eye(3), (0, 0, 1.0))
    flow = static_flow(np.full((80, 200), 1 / 8), T, K)
    assert (depth_from_flow(flow, T, K)[:, 170:] > 0).all()
    flow[:, 170:, 1] += 3.0  # to the side, the line is level
    assert (depth_from_flow(flow, T, K)[30:50, 170:] == 0).all()


def test_a_camera_that_only_turned_tells_no_depth() -> None:
    T = rigid(rotation_matrix(np.array([0.0, 0.02, 0.0])), (0, 0, 0))
    assert (depth_from_flow(static_flow(np.full((80, 200), 1 / 8), T, K), T, K) == 0).all()


def test_two_images_of_a_street_tell_its_depth(street: Clip) -> None:
    T = rigid_inverse(street.poses[3]) @ street.poses[5]
    found = triangulated(street.images[5], street.images[3], T, street.K)
    assert street.depth is not None and street.object_ids is not None
    known = (found > 0) & (street.object_ids[5] == 0) & (street.depth[5] > 0)
    assert known.mean() > 0.1
    assert np.median(np.abs(found[known] / street.depth[5][known] - 1)) < 0.1


def test_large_images_are_measured_smaller(street: Clip) -> None:
    T, twice = rigid_inverse(street.poses[3]) @ street.poses[5], np.diag([2.0, 2.0, 1.0])
    large = [np.repeat(np.repeat(street.images[i], 2, 0), 2, 1) for i in (5, 3)]
    found = triangulated(*large, T, twice @ street.K)
    assert found.shape == (129, 420)
    assert (found > 0).mean() > 0.1


def test_images_of_two_sizes_are_refused(street: Clip) -> None:
    with pytest.raises(ValueError, match="must be of one size"):
        triangulated(street.images[1], street.images[0][:64], np.eye(4), street.K)


def test_a_panoramas_strip_is_measured_and_what_is_too_small_refused() -> None:
    strip = np.random.default_rng(0).integers(0, 256, (64, 4000, 3), np.uint8)
    assert triangulated(strip, strip, np.eye(4), K).shape == (32, 2000)
    with pytest.raises(ValueError, match="needs images of 12 pixels or more on each side"):
        triangulated(strip[:8], strip[:8], np.eye(4), K)


def test_the_newest_view_from_far_enough_is_taken() -> None:
    def chosen(*metres: float) -> int | None:
        return view_for_depth(np.array([rigid(np.eye(3), (0, 0, z)) for z in metres]).reshape(-1, 4, 4))

    assert chosen(0.2, BASELINE, 2.0) == 1
    assert chosen(LEAST_BASELINE, 0.3, 0.2) == 1  # none is far enough: the furthest
    assert chosen(LEAST_BASELINE / 2) is None
    assert chosen() is None


def test_what_lies_much_farther_than_the_image_says_is_not_believed(street: Clip, forecaster: Forecaster) -> None:
    T = rigid_inverse(street.poses[3]) @ street.poses[5]
    raw = triangulated(street.images[5], street.images[3], T, street.K, forecaster)
    found = depth_from_motion(
        forecaster, street.images[5], street.K, ReferenceView(street.images[3], street.K, rigid_inverse(T), -0.2)
    )
    assert 0.8 < ((found > 0) & (raw > 0)).sum() / (raw > 0).sum() <= 1
    np.testing.assert_array_equal(found[found > 0], raw[found > 0])
    # Told that it drove four times as far, everything would lie four times as far.
    T[:3, 3] *= 4
    raw = triangulated(street.images[5], street.images[3], T, street.K, forecaster)
    found = depth_from_motion(
        forecaster, street.images[5], street.K, ReferenceView(street.images[3], street.K, rigid_inverse(T), -0.2)
    )
    assert (raw > 0).mean() > 0.1 and (found > 0).sum() < 0.1 * (raw > 0).sum()


def test_vehicles_get_no_depth_as_they_may_move(street: Clip, forecaster: Forecaster) -> None:
    image = np.asarray(street.images[3])
    scene = forecaster.predict(image, street.K)
    assert scene.camera is not None
    camera = scene.camera.resized(*flow_size(image.shape[1], image.shape[0]))
    vehicles = SeenMaps.of(scene, scene.pixels(camera), camera).instance_ids > 0
    T = rigid_inverse(street.poses[3]) @ street.poses[1]
    found = depth_from_motion(
        forecaster, image, street.K, ReferenceView(np.asarray(street.images[1]), street.K, T, -0.2)
    )
    assert vehicles.mean() > 0.01 and not found[vehicles].any()
    assert (found > 0).mean() > 0.1


def test_an_evaluation_looks_back_from_its_source_only(street: Clip, forecaster: Forecaster) -> None:
    window = cut(street, np.array([4, 5]))
    found = motion_depth(forecaster, street, window)
    assert found is not None and (found > 0).any()
    changed = street.images.copy()
    changed[4:] = 0
    again = motion_depth(forecaster, Clip(**{**vars(street), "images": changed}), window)
    np.testing.assert_array_equal(again, found)
    assert motion_depth(forecaster, street, cut(street, np.array([0, 1]))) is None


def test_real_streets_are_forecast_better_with_an_earlier_image(forecaster: Forecaster) -> None:
    (clip,) = open_clips(shared_path("logs/val/kitti_0002.mcap"))
    protocol = Protocol(stride=20, frames=8)
    alone, helped = (
        evaluate_clip(forecaster, clip, protocol, "kitti_0002", Options(motion_depth=given)) for given in (False, True)
    )
    assert helped.gain.mean > alone.gain.mean + 0.3
    assert alone.depth is not None and helped.depth is not None
    assert helped.depth.abs_rel.mean < alone.depth.abs_rel.mean


def test_depth_from_motion_needs_metres_and_earlier_images(street: Clip, forecaster: Forecaster) -> None:
    wanted = Options(motion_depth=True)
    unscaled = Clip(**{**vars(street), "metric": False})
    with pytest.raises(ValueError, match="--depth-from-motion needs metres"):
        evaluate_clip(forecaster, unscaled, Protocol(frames=2), "street", wanted)
    with pytest.raises(ValueError, match="--depth-from-motion needs earlier ones"):
        evaluate_worlds(forecaster, WorldSet("street", 1), Protocol(frames=2), wanted)
