# SPDX-License-Identifier: Apache-2.0
"""Motion measured between two images: exact flow tells velocities exactly, and scenes come nearer the truth."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import shared_path

from pixel4d_ros import Camera, CameraPath, DynamicGaussians, Forecaster, ReferenceView
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.open import open_clips
from pixel4d_ros.evaluation import runner
from pixel4d_ros.evaluation.protocol import Protocol
from pixel4d_ros.evaluation.runner import Options, evaluate_clip, evaluate_worlds
from pixel4d_ros.evaluation.synthetic_worlds import WorldSet
from pixel4d_ros.evaluation.windows import cut, reference_view
from pixel4d_ros.geometry.rotations import FloatArray, rigid, rigid_inverse, rotation_matrix
from pixel4d_ros.synthetic import street_clip
from pixel4d_ros.two_view.flow import CheckedFlow, Mask
from pixel4d_ros.two_view.image_pair import pixels_of
from pixel4d_ros.two_view.moving_patches import candidates
from pixel4d_ros.two_view.object_motion import MOST, with_motion_from_flow
from pixel4d_ros.two_view.reference_view import AGO, LONGEST_AGO, view_for_depth, view_for_motion, view_for_velocity
from pixel4d_ros.two_view.rigid_flow import static_flow
from pixel4d_ros.two_view.two_images import MeasuredFlow, TwoImages
from pixel4d_ros.two_view.velocity_fit import ANY, Fit, explains, fitted

WIDTH, HEIGHT = 160, 64
K = np.array([[150.0, 0, 80], [0, 150, 32], [0, 0, 1]])
EVERYWHERE = np.ones((HEIGHT, WIDTH), bool)
small = st.floats(-0.02, 0.02)
speeds = st.tuples(st.floats(-8, 8), st.floats(-0.3, 0.3), st.floats(-15, 15))


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster.load(device="cpu")


@pytest.fixture(scope="module")
def street() -> Clip:
    """A synthetic street of exact depth and poses, two near cars driving in it."""
    return street_clip(900_002, 6, size=(416, 128))


def two_images(velocity: FloatArray, T: FloatArray, depth: FloatArray, seconds: float) -> TwoImages:
    """A world of that depth, all of which moves at a velocity, and the exact flow to what was before."""
    moved = T.copy()
    moved[:3, 3] -= T[:3, :3] @ velocity * seconds
    flow = static_flow((1 / depth).astype(np.float32), moved, K)
    grey = np.zeros((HEIGHT, WIDTH), np.uint8)
    measured = MeasuredFlow(grey, grey, CheckedFlow(flow, EVERYWHERE), grey, grey)
    return TwoImages(measured, Camera(K, WIDTH, HEIGHT), depth.astype(np.float32), T, seconds)


def fit_on(pair: TwoImages, mask: Mask, prior: FloatArray, deviation: FloatArray) -> Fit:
    return fitted(pair.images, *pixels_of(mask), prior, deviation)


@settings(max_examples=25, deadline=None)
@given(speeds, st.tuples(small, small, small), st.floats(-0.5, 3), st.floats(0.1, 0.4), st.integers(0, 99))
def test_exact_flow_tells_the_velocity(
    velocity: tuple[float, ...], angles: tuple[float, ...], forward: float, seconds: float, seed: int
) -> None:
    depth = np.random.default_rng(seed).uniform(14, 30, (HEIGHT, WIDTH))
    T = rigid(rotation_matrix(np.array(angles)), [0.05, 0, forward])
    fit = fit_on(two_images(np.array(velocity), T, depth, seconds), EVERYWHERE, np.array(velocity), ANY)
    assert fit.after < 0.01
    np.testing.assert_allclose(fit.velocity, velocity, atol=0.05)
    blind = fit_on(two_images(np.array(velocity), T, depth, seconds), EVERYWHERE, np.zeros(3), ANY)
    np.testing.assert_allclose(blind.velocity, velocity, atol=0.6, rtol=0.15)  # it pulls a little towards rest


def test_what_the_flow_hardly_tells_stays_as_predicted() -> None:
    """How fast something far away nears shows in fractions of a pixel; that it drifts aside shows well."""
    pair = two_images(np.array([2.0, 0, -9.0]), np.eye(4), np.full((HEIGHT, WIDTH), 60.0), 0.2)
    mask = np.zeros_like(EVERYWHERE)
    mask[28:36, 76:84] = True
    fit = fit_on(pair, mask, np.array([0.0, 0, -6.0]), np.full(3, 0.6))
    assert fit.velocity[2] == pytest.approx(-6.0, abs=0.3) and fit.velocity[0] > 0.5


def test_a_few_wrong_pixels_do_not_count() -> None:
    pair = two_images(np.array([3.0, 0, 0]), np.eye(4), np.full((HEIGHT, WIDTH), 12.0), 0.2)
    pair.measured.flow.flow[:, :40] += 9.0
    fit = fit_on(pair, EVERYWHERE, np.zeros(3), ANY)
    assert explains(fit)
    np.testing.assert_allclose(fit.velocity, (3, 0, 0), atol=0.2)


def test_without_flow_nothing_is_measured() -> None:
    pair = two_images(np.ones(3), np.eye(4), np.full((HEIGHT, WIDTH), 12.0), 0.2)
    flow = CheckedFlow(pair.measured.flow.flow, ~EVERYWHERE)
    unknown = replace(pair, measured=replace(pair.measured, flow=flow))
    assert np.isinf(fit_on(unknown, EVERYWHERE, np.zeros(3), ANY).before)


def seen_before(clip: Clip, t: int, frames: int = 2) -> ReferenceView:
    T = rigid_inverse(clip.poses[t]) @ clip.poses[t - frames]
    seconds = float(clip.times[t] - clip.times[t - frames])
    return ReferenceView(np.asarray(clip.images[t - frames]), clip.K, T, -seconds)


def predicted(forecaster: Forecaster, clip: Clip, t: int, samples: int = 1) -> DynamicGaussians:
    return forecaster.predict(clip.images[t], clip.K, num_samples=samples, speed=8.0)


def test_a_scene_keeps_all_that_stands_and_futures_differ_as_before(forecaster: Forecaster, street: Clip) -> None:
    scene = predicted(forecaster, street, 3, samples=3)
    found = with_motion_from_flow(scene, np.asarray(street.images[3]), seen_before(street, 3))
    for name in ("means", "quaternions", "scales", "opacities", "colors"):
        assert getattr(found, name) is getattr(scene, name)
    assert len(found.centroids) == len(scene.centroids) + MOST
    assert found.moving_probability is not None and found.moving_probability[0] == 0
    was = scene.object_ids > 0
    for before, after in zip(scene.futures, found.futures):
        moves = was & (after.velocities.norm(dim=1) > 0) & (found.velocities.norm(dim=1) > 0)
        differences = (after.velocities - before.velocities)[moves]
        torch.testing.assert_close(differences, (found.velocities - scene.velocities)[moves])
        assert torch.equal(after.accelerations[moves], before.accelerations[moves])
    assert torch.equal(found.object_ids[was], scene.object_ids[was])
    still = found.object_ids == 0
    assert not found.velocities[still].any()
    changed = (found.velocities - scene.velocities).abs().amax(1) > 0.01
    assert changed.any()


def test_what_moves_is_found_with_the_newer_image_and_its_velocity_with_the_older_one(
    forecaster: Forecaster, street: Clip
) -> None:
    scene, image = predicted(forecaster, street, 5), np.asarray(street.images[5])
    still = replace(
        scene, object_ids=torch.zeros_like(scene.object_ids), velocities=torch.zeros_like(scene.velocities), futures=()
    )
    newer, older = seen_before(street, 5, 2), seen_before(street, 5, 4)
    one, both = (with_motion_from_flow(still, image, view) for view in (newer, replace(newer, older=older)))
    assert one.object_ids.any() and torch.equal(one.object_ids, both.object_ids)
    assert not torch.equal(one.velocities, both.velocities)


def test_one_image_over_and_over_from_a_camera_that_stands_moves_nothing(forecaster: Forecaster, street: Clip) -> None:
    image = np.asarray(street.images[0])
    scene = predicted(forecaster, street, 0)
    found = with_motion_from_flow(scene, image, ReferenceView(image, street.K, np.eye(4), -0.2))
    was = scene.object_ids > 0
    assert torch.equal(found.object_ids[was], scene.object_ids[was])
    assert int(found.object_ids.max()) < len(scene.centroids)  # instances complete predicted objects, but add none


def test_an_earlier_image_may_be_kept_small(forecaster: Forecaster) -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (128, 420, 3), np.uint8)
    large = np.repeat(np.repeat(small, 2, 0), 2, 1)
    camera = np.array([[480.0, 0, 419.5], [0, 480, 127.5], [0, 0, 1]])
    views = [ReferenceView(image, camera, np.eye(4), -0.2) for image in (small, large)]
    one, other = (forecaster.predict(large, camera, reference=view) for view in views)
    assert torch.equal(one.object_ids, other.object_ids)


@pytest.mark.parametrize(("distance", "count"), [(40.0, 1), (160.0, 0)])
def test_what_is_remote_and_no_vehicle_does_not_move(
    distance: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = np.zeros((HEIGHT, WIDTH), bool)
    patch[20:40, 30:60] = True
    monkeypatch.setattr(TwoImages, "moving", patch)
    pair = two_images(np.array([15.0, 0, 0]), np.eye(4), np.full((HEIGHT, WIDTH), distance), 0.2)
    assert len(list(candidates(pair, np.zeros((HEIGHT, WIDTH), np.int64)))) == count


@pytest.mark.slow
def test_synthetic_movers_are_forecast_better(forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds = WorldSet("street", 3, 900_006)  # ordinary traffic
    monkeypatch.setattr(runner, "make_clip", cache(runner.make_clip))  # both evaluations are of the same worlds
    alone, told = (
        evaluate_worlds(forecaster, worlds, Protocol(frames=8), Options(reference_view=given))
        for given in (False, True)
    )
    assert alone.inside_gain is not None and told.inside_gain is not None
    assert told.inside_gain.mean > alone.inside_gain.mean + 0.2
    assert told.motion is not None and alone.motion is not None and told.motion.found > alone.motion.found


def test_real_traffic_is_forecast_better(forecaster: Forecaster) -> None:
    """kitti_0052: the lorry rolls and the lane beside it stands, which one image does not tell."""
    (clip,) = open_clips(shared_path("logs/train/kitti_0052.mcap"))
    part = clip.part(14, 32)
    path = CameraPath(part.times[2:] - part.times[2], rigid_inverse(part.poses[2]) @ part.poses[2:])
    window = cut(part, np.arange(2, 16))
    scene = forecaster.predict(window.images[0], window.K, speed=path.speed(), reference=reference_view(part, window))
    lorry, pickup = (40, 110, 680, 790), (120, 190, 150, 290)  # rows, then columns
    assert moving_share(scene, lorry) > 0.7 and moving_share(scene, pickup) < 0.1
    speeds = scene.velocities[scene.object_ids > 0][:, 2]
    assert 2.0 < float(speeds.median()) < 4.5  # the laser says 3.2 m/s


def moving_share(scene: DynamicGaussians, window: tuple[int, int, int, int]) -> float:
    """Of the observed Gaussians in a window of the image."""
    assert scene.camera is not None and scene.observed is not None
    lens, (top, bottom, left, right) = scene.camera.K, window
    u = lens[0, 0] * scene.means[:, 0] / scene.means[:, 2] + lens[0, 2]
    v = lens[1, 1] * scene.means[:, 1] / scene.means[:, 2] + lens[1, 2]
    there = (u > left) & (u < right) & (v > top) & (v < bottom) & (scene.observed > 0)
    return float((scene.object_ids[there] > 0).float().mean())


def test_an_evaluation_looks_back_from_its_source_only(street: Clip) -> None:
    window = cut(street, np.array([4, 5]))
    found = reference_view(street, window)
    assert found is not None and found.seconds == pytest.approx(0.1)  # more than a metre
    assert found.older is not None and found.older.seconds == pytest.approx(0.2)
    np.testing.assert_array_equal(found.image, street.images[3])
    np.testing.assert_array_equal(found.older.image, street.images[2])
    assert found.wider is not None and np.linalg.norm(found.wider.T_source_reference[:3, 3]) == pytest.approx(3, abs=1)
    assert reference_view(street, cut(street, np.array([0, 1]))) is None


def test_motion_from_flow_needs_metres(forecaster: Forecaster, street: Clip) -> None:
    unscaled = replace(street, metric=False)
    with pytest.raises(ValueError, match="--reference-image needs metres"):
        evaluate_clip(forecaster, unscaled, Protocol(frames=2), "street", Options(reference_view=True))


def test_the_view_that_is_nearest_to_a_fifth_of_a_second_old_is_taken() -> None:
    ages = np.array([0.033, 0.066, 0.21, 0.4])
    assert view_for_motion(ages, np.zeros(4)) == 2
    assert view_for_motion(np.array([AGO / 5]), np.zeros(1)) is None
    assert view_for_motion(np.array([LONGEST_AGO + 0.1]), np.zeros(1)) is None
    assert view_for_motion(np.zeros(0), np.zeros(0)) is None


def test_of_a_fast_camera_a_nearer_view_is_taken() -> None:
    ages = np.array([0.033, 0.066, 0.1, 0.2])
    assert view_for_motion(ages, 15 * ages) == 1
    assert view_for_motion(ages, 40 * ages) == 1  # none is near enough: the newest of those that are old enough


def test_velocities_are_measured_over_a_fifth_of_a_second_at_any_speed() -> None:
    ages = np.array([0.033, 0.066, 0.1, 0.2])
    assert view_for_velocity(ages, 15 * ages) == 3
    assert view_for_velocity(ages, 2 * ages) is None  # it is the view that shows what moves
    longer = np.array([0.1, 0.2, 0.4, 0.6, 0.8])
    assert view_for_velocity(longer, 1.5 * longer) == 3  # near a slow camera traffic is slow, too
    assert view_for_velocity(longer, 4 * longer) is None
    assert view_for_velocity(np.zeros(0), np.zeros(0)) is None


def test_depth_is_corrected_over_the_widest_of_baselines_up_to_three_metres() -> None:
    ages = np.array([0.1, 0.2, 0.3, 0.4, 1.0, 1.1])
    assert view_for_depth(ages, 10 * ages) == 2
    assert view_for_depth(ages, 30 * ages) == 0
    assert view_for_depth(ages, 0.5 * ages) == 4  # of a slow camera the oldest that counts
    assert view_for_depth(ages[-1:], ages[-1:]) is None


PICTURE = np.zeros((64, 96, 3), np.uint8)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((PICTURE[..., 0], K, np.eye(4), -0.2), r"must be \(h, w, 3\) uint8 RGB"),
        ((PICTURE / 255, K, np.eye(4), -0.2), r"must be \(h, w, 3\) uint8 RGB"),
        ((PICTURE, np.zeros((3, 3)), np.eye(4), -0.2), "focal lengths above 0"),
        ((PICTURE, K, np.eye(3), -0.2), "4, 4"),
        ((PICTURE, K, np.full((4, 4), np.nan), -0.2), "NaN or Inf"),
        ((PICTURE, K, np.eye(4), 0.0), "before the image"),
        ((PICTURE, K, np.eye(4), np.nan), "before the image"),
    ],
)
def test_an_earlier_view_that_cannot_be_is_refused(
    given: tuple[np.ndarray, np.ndarray, np.ndarray, float], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        ReferenceView(*given)


def test_images_of_two_shapes_are_refused(forecaster: Forecaster) -> None:
    other = ReferenceView(np.zeros((32, 96, 3), np.uint8), K, np.eye(4), -0.2)
    with pytest.raises(ValueError, match="must be of one size"):
        forecaster.predict(PICTURE, K, reference=other)
