# SPDX-License-Identifier: Apache-2.0
"""Labels that clips bring along: object ids and boxes of synthetic streets and of scenes made by hand; KITTI's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dataset_samples import street, world_boxes
from support.paths import shared_path

from pixel4d_ros.datasets.boxes import Box
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.stereo_pairs import read_stereo_folder
from pixel4d_ros.geometry.rotations import rigid, rigid_inverse, rotation_matrix
from pixel4d_ros.predictor.objects import MAX_OBJECTS
from pixel4d_ros.synthetic.motion import BODY_OPTICAL
from pixel4d_ros.synthetic.views import street_clip
from pixel4d_ros.training.given_labels import given_labels
from pixel4d_ros.training.motion_labels import MotionLabels
from pixel4d_ros.two_view.flow import flow_size

K = np.array([[100.0, 0, 99.5], [0, 100, 39.5], [0, 0, 1]])
WIDTH, HEIGHT = 200, 80
WALL = 40.0  # metres: depth behind all things
CAR, VAN = np.array([4.0, 2.0, 2.0]), np.array([5.0, 2.0, 2.2])  # length, width, height
LEFT, MIDDLE, RIGHT = (40, 30), (40, 100), (40, 170)  # row, column where a car at x = -7, 0, 7 and z = 10 is seen


def clip(frames: int = 1, **fields: object) -> Clip:
    """A camera that stands in front of a wall."""
    images = np.zeros((frames, HEIGHT, WIDTH, 3), np.uint8)
    depth = np.full((frames, HEIGHT, WIDTH), WALL, np.float32)
    return replace(Clip("c", images, K, np.tile(np.eye(4), (frames, 1, 1)), np.arange(frames) * 0.1, depth), **fields)


def car(track: int, centre: tuple[float, ...] | np.ndarray, moving: bool = True) -> Box:
    """A car that drives away from the camera."""
    return Box(track, "car", rigid(BODY_OPTICAL.T, centre), CAR, moving)


def labels_of(clip: Clip) -> MotionLabels:
    labels = given_labels(clip)
    assert labels is not None
    assert labels.ids.shape[1:] == flow_size(*clip.images.shape[2:0:-1])[::-1]
    return labels


def test_a_clip_without_labels_gives_none() -> None:
    assert given_labels(clip(frames=3)) is None


# Object ids


@pytest.fixture(scope="module")
def busy_street() -> Clip:
    """Several cars, at half as much again as the size of flow."""
    return street_clip(18, 3, 0.1, (624, 192))


def true_ids(clip: Clip) -> np.ndarray:
    """Object ids (T, h, w) at the size of flow."""
    assert clip.object_ids is not None
    size = flow_size(*clip.images.shape[2:0:-1])
    return np.stack([cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST) for ids in clip.object_ids])


def test_objects_of_a_street_are_numbered_by_size_and_keep_their_motion(busy_street: Clip) -> None:
    labels, true = labels_of(busy_street), true_ids(busy_street)
    assert busy_street.object_motions is not None and busy_street.object_centroids is not None
    for t, ids in enumerate(labels.ids):
        count = ids.max()
        assert count == len(np.unique(true[t])) - 1 > 1
        assert (np.diff(np.bincount(ids[ids > 0])[1:]) <= 0).all()
        for patch in range(1, count + 1):
            number = true[t][ids == patch][0]
            assert ((ids == patch) == (true[t] == number)).all()
            np.testing.assert_array_equal(labels.velocities[t, patch], busy_street.object_motions[t, number, 0])
            np.testing.assert_array_equal(labels.centroids[t, patch], busy_street.object_centroids[t, number])
        assert np.isnan(labels.velocities[t, count + 1 :]).all() and not labels.centroids[t, count + 1 :].any()


def test_where_objects_are_is_taken_from_depth_when_nobody_says(busy_street: Clip) -> None:
    said, seen = labels_of(busy_street), labels_of(replace(busy_street, object_centroids=None))
    np.testing.assert_array_equal(said.velocities, seen.velocities)
    large = [(t, patch) for t, ids in enumerate(said.ids) for patch in np.flatnonzero(np.bincount(ids[ids > 0]) > 100)]
    assert len(large) > 4
    for place in large:
        behind = said.centroids[place] - seen.centroids[place]
        assert np.abs(behind[:2]).max() < 1 and 0 < behind[2] < 5  # half a lorry, from its face to its middle


def test_nothing_is_said_of_the_motion_of_objects_that_are_nowhere(busy_street: Clip) -> None:
    labels = labels_of(replace(busy_street, object_centroids=None, depth=None))
    assert (labels.ids > 0).any() and np.isnan(labels.velocities).all() and not labels.centroids.any()


def test_without_motions_objects_move_at_an_unknown_velocity(busy_street: Clip) -> None:
    labels = labels_of(replace(busy_street, object_motions=None))
    assert (labels.ids > 0).any() and np.isnan(labels.velocities).all() and labels.centroids.any()


def test_the_rim_around_an_object_is_unknown() -> None:
    ids = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    ids[0, 30:50, 60:90] = 7
    expected = np.zeros_like(ids[0], np.int8)
    expected[29:51, 59:91] = -1
    expected[30:50, 60:90] = 1
    for depth in (clip().depth, None):
        np.testing.assert_array_equal(labels_of(clip(object_ids=ids, depth=depth)).ids[0], expected)


def test_something_upright_left_out_of_depth_is_unknown_and_the_road_between_lines_of_a_laser_is_still() -> None:
    depth = np.zeros((1, HEIGHT, WIDTH), np.float32)
    depth[0, 2::5] = WALL  # four empty rows between lines
    depth[0, 20:60, 100:108] = 0  # a cyclist
    ids = labels_of(clip(object_ids=np.zeros((1, HEIGHT, WIDTH), np.uint8), depth=depth)).ids[0]
    assert (ids[20:60, 100:108] == -1).all()
    assert (ids[:, :100] == 0).all() and (ids[:, 108:] == 0).all()


def test_points_of_any_native_pixel_make_a_larger_image_known() -> None:
    """As much as one in 36 pixels has depth, in rows and columns that resampling to the nearest would miss."""
    large = Clip("c", np.zeros((1, 320, 1260, 3), np.uint8), K * [[6], [4], [1]], np.eye(4)[None], np.zeros(1))
    ids, depth = np.zeros((1, 320, 1260), np.uint8), np.zeros((1, 320, 1260), np.float32)
    depth[0, ::6, ::6] = WALL
    assert (labels_of(replace(large, object_ids=ids, depth=depth)).ids == 0).all()


def test_more_objects_than_are_counted_leave_the_smallest_unknown() -> None:
    ids, sizes = np.zeros((1, HEIGHT, WIDTH), np.uint8), range(2, MAX_OBJECTS + 4)  # two too many
    for number, size in enumerate(sizes, 1):
        ids[0, 10 : 10 + size, 10 * number : 10 * number + 8] = number
    found = labels_of(clip(object_ids=ids)).ids[0]
    assert (found[(ids[0] == 1) | (ids[0] == 2)] == -1).all()
    assert [found[10, 10 * number] for number in range(3, len(sizes) + 1)] == list(range(MAX_OBJECTS, 0, -1))


# Boxes


def test_boxes_are_objects_that_move_or_stand_and_nearer_ones_hide_farther_ones() -> None:
    boxes = (
        car(3, (-7, 0, 10)),
        car(4, (-14, 0, 20)),  # hidden by the one before
        car(5, (0, 0, 10), moving=False),
        car(6, (0, -2.5, 20)),  # hidden by the one that stands, but for its upper half
        car(7, (7, 0, 10), moving=False),
    )
    labels = labels_of(clip(boxes=(boxes,), depth=None))
    ids = labels.ids[0]
    assert ids.max() == 4 and not (ids < 0).any()
    left, middle, right = ids[LEFT], ids[MIDDLE], ids[RIGHT]
    assert (labels.centroids[0, left] == (-7, 0, 10)).all()
    assert [labels.moving[0, i] for i in (0, left, middle, right)] == [0, 1, 0, 0]
    assert (labels.velocities[0, [middle, right]] == 0).all() and np.isnan(labels.velocities[0, left]).all()
    (last,) = {1, 2, 3, 4} - {left, middle, right}
    above = np.argwhere(ids == last)
    assert len(above) and above[:, 0].max() < 28 and abs(above[:, 1].mean() - 99.5) < 1
    assert (labels.centroids[0, last] == (0, -2.5, 20)).all() and labels.moving[0, last] == 1


def test_outside_of_boxes_that_are_not_complete_nothing_is_known() -> None:
    labels = labels_of(clip(boxes=((car(1, (-7, 0, 10)),),), boxes_complete=False, depth=None))
    assert labels.ids[0][LEFT] == 1 and set(np.unique(labels.ids)) == {-1, 1}


def test_a_box_has_the_velocity_that_its_label_says() -> None:
    box = replace(car(1, (-7, 0, 10)), velocity=np.array([0.0, 0, 8]))
    labels = labels_of(clip(boxes=((box,),), depth=None))
    assert labels.velocities[0, 1].tolist() == [0, 0, 8]


def test_points_tell_what_is_of_a_box() -> None:
    """Of a car at 10 m: its own points, those of a post in front of it, and those of the wall beside it."""
    depth = np.zeros((1, HEIGHT, WIDTH), np.float32)
    depth[0, ::2, ::2] = WALL
    depth[0, 28:52:2, 90:110:2] = 8.1
    depth[0, :, 100] = 5
    ids = labels_of(clip(boxes=((car(1, (0, 0, 10)),),), depth=depth)).ids[0]
    inside = np.zeros(ids.shape, bool)
    inside[28:52, 90:110] = True
    post = depth[0] == 5
    assert (ids[inside & ~post] == 1).all()
    assert (ids[post] == 0).all()
    assert (ids[(depth[0] == WALL)] == 0).all() and not (ids < 0).any()


@pytest.mark.parametrize(("distance", "moves"), [(7.6, False), (7.8, True), (12.2, True), (12.4, False)])
def test_points_up_to_a_few_decimetres_outside_a_box_are_of_it(distance: float, moves: bool) -> None:
    depth = np.full((1, HEIGHT, WIDTH), distance, np.float32)  # the car is from 8 to 12 m away
    ids = labels_of(clip(boxes=((car(1, (0, 0, 10)),),), depth=depth)).ids[0]
    assert ids[MIDDLE] == moves


def test_a_box_hidden_by_what_has_no_box_is_unknown_between_points() -> None:
    depth = np.zeros((1, HEIGHT, WIDTH), np.float32)
    depth[0, ::2, ::2] = 5  # a hedge
    depth[0, 36:44:2, 10:190:2] = 10  # with a gap in it
    moving, parked = car(1, (-7, 0, 10)), car(2, (7, 0, 10), moving=False)
    ids = labels_of(clip(boxes=((moving, parked),), depth=depth)).ids[0]
    assert (ids[depth[0] == 5] == 0).all()
    assert ids[LEFT] == 1 and ids[RIGHT] == 2
    assert ids[41, 31] == -1 and ids[41, 171] == -1
    nothing = labels_of(clip(boxes=((moving, parked),), depth=np.zeros_like(depth))).ids[0]
    assert nothing[LEFT] == nothing[RIGHT] == -1


def test_who_may_hide_something_that_moves_makes_it_unknown() -> None:
    """A parked car of which most points are the moving one's behind it: its windows."""
    depth = np.zeros((1, HEIGHT, WIDTH), np.float32)
    depth[0, ::2, ::2] = 20
    depth[0, 36:44:2, 96:104:2] = 9
    ids = labels_of(clip(boxes=((car(1, (0, 0, 10), moving=False), car(2, (0, 0, 20))),), depth=depth)).ids[0]
    assert (ids[36:44:2, 96:104:2] == 2).all()  # the parked one's points
    assert ids[41, 95] == -1 and ids[34, 94] == 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), hidden=st.sets(st.integers(0, 5), max_size=3), metric=st.booleans())
def test_a_constant_velocity_is_found_from_a_moving_camera(seed: int, hidden: set[int], metric: bool) -> None:
    rng = np.random.default_rng(seed)
    velocity = rng.uniform(3, 8, 3) * rng.choice([-1, 1], 3)
    times = np.cumsum(rng.uniform(0.05, 0.2, 6))
    poses = [rigid(rotation_matrix(rng.uniform(-0.1, 0.1, 3)), rng.uniform(-1, 1, 3)) for _ in times]
    world = [rigid(BODY_OPTICAL.T, (0, 0, 20) + velocity * (time - times.mean())) for time in times]
    boxes = [
        () if i in hidden else (Box(9, "car", rigid_inverse(T) @ centre, CAR, True),)
        for i, (T, centre) in enumerate(zip(poses, world))
    ]
    fields = {"boxes": tuple(boxes), "depth": None, "poses": np.stack(poses), "times": times, "metric": metric}
    labels = labels_of(clip(6, **fields))
    for t in set(range(6)) - hidden:
        seen = [s for s in range(6) if s not in hidden and abs(s - t) <= 2]
        expected = poses[t][:3, :3].T @ velocity if len(seen) > 1 else np.full(3, np.nan)
        assert (labels.ids[t] == 1).any()
        np.testing.assert_allclose(labels.velocities[t, 1], expected, atol=1e-4)
        np.testing.assert_allclose(labels.centroids[t, 1], boxes[t][0].T_camera_box[:3, 3], atol=1e-4)


def test_what_stops_stands_from_then_on() -> None:
    z = [10, 11, 12, 13, 13, 13, 13, 13, 13]
    labels = labels_of(clip(len(z), boxes=tuple((car(1, (0, 0, each)),) for each in z), depth=None))
    assert (labels.ids == 1).any((1, 2)).all()
    assert labels.moving[:, 1].tolist() == [1] * 5 + [0] * 4  # what the two frames before tell counts too
    np.testing.assert_allclose(labels.velocities[1, 1], (0, 0, 10), atol=1e-5)
    assert (labels.velocities[5:, 1] == 0).all()


def test_boxes_of_a_street_say_what_its_object_ids_do() -> None:
    by_ids = street((416, 128))
    boxes = tuple(
        tuple(Box(m, "car", rigid_inverse(pose) @ T, VAN, True) for m, T in enumerate(here, 1))
        for pose, here in zip(by_ids.poses, world_boxes())
    )
    true, found = labels_of(by_ids), labels_of(replace(by_ids, object_ids=None, boxes=boxes))
    for t in range(len(by_ids)):
        told = true.ids[t] >= 0
        both, either = (f(true.ids[t] == 1, found.ids[t] == 1) & told for f in (np.logical_and, np.logical_or))
        assert both.sum() > 100 and both.sum() > 0.8 * either.sum()
        assert np.linalg.norm(true.velocities[t, 1] - found.velocities[t, 1]) < 0.5
        assert np.linalg.norm(true.centroids[t, 1] - found.centroids[t, 1]) < 1


# KITTI stereo 2015

CYCLISTS = {"000002": (150, 240, 550, 590), "000119": (130, 160, 682, 698)}  # rows and columns amid them


@pytest.fixture(scope="module")
def kitti(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clip]:
    """A few pairs, by name."""
    real, folder = shared_path("stereo2015"), tmp_path_factory.mktemp("stereo")
    for name in (*CYCLISTS, "000010", "000020"):
        for path in real.glob(f"*/{name}.*"):
            link = folder / path.relative_to(real)
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(Path(path).resolve())
    return {pair.name.removeprefix("stereo_"): pair for pair in read_stereo_folder(folder)}


def test_kitti_cars_move_and_most_of_the_road_stands(kitti: dict[str, Clip]) -> None:
    still = []
    for pair in kitti.values():
        labels, true = labels_of(pair), true_ids(pair)
        assert ((labels.ids > 0) == (true > 0)).all()
        still.append((labels.ids[:, 75:] == 0)[true[:, 75:] == 0].mean())
        ahead = labels.centroids[0, 1 : labels.ids.max() + 1, 2]
        assert ((ahead > 3) & (ahead < 80)).all() and np.isnan(labels.velocities).all()
    assert np.mean(still) > 0.9


@pytest.mark.parametrize(("name", "place"), CYCLISTS.items())
def test_kitti_cyclists_are_unknown(kitti: dict[str, Clip], name: str, place: tuple[int, ...]) -> None:
    top, bottom, left, right = (round(n * 420 / 832) for n in place)
    assert (labels_of(kitti[name]).ids[0, top:bottom, left:right] == -1).all()


def test_kitti_cars_without_id_and_depth_would_be_unknown(kitti: dict[str, Clip]) -> None:
    for pair in kitti.values():
        assert pair.object_ids is not None and pair.depth is not None
        cars, depth = pair.object_ids > 0, np.asarray(pair.depth)
        bare = replace(pair, object_ids=np.zeros_like(pair.object_ids), depth=np.where(cars, 0, depth))
        assert (labels_of(bare).ids == -1)[true_ids(pair) > 0].mean() > 0.9
