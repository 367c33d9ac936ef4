# SPDX-License-Identifier: Apache-2.0
"""Which earlier images the node takes depth and motion from."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from nav_msgs.msg import Odometry
from support.harness import image, stamp

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.rotations import rigid_from_xyzw
from pixel4d_ros.ros.inputs import Inputs, Source
from pixel4d_ros.ros.odometry import OdometryTrack
from pixel4d_ros.ros.reference_candidates import ImageHistory
from pixel4d_ros.ros.transforms import EgoState, NullTransforms
from pixel4d_ros.synthetic import street_clip
from pixel4d_ros.two_view.reference_view import BASELINE, ReferenceView

pytestmark = pytest.mark.ros
SPEED = 8.0  # m/s, about the street's


@pytest.fixture(scope="module")
def street() -> Clip:
    return street_clip(900_002, 4, size=(208, 64))


def source(street: Clip, t: int, seconds: float | None = None) -> Source:
    """Image t of the street, 0.1 s after the one before."""
    header = image(0.1 * t if seconds is None else seconds, street.images[t]).header
    return Source(street.images[t], Camera(street.K, 208, 64), header)


def driving(*seconds: float, frame: str = "odom", speed: float = SPEED) -> EgoState:
    """Odometry that knows where the camera, looking ahead, is at these times."""
    track = OdometryTrack()
    for s in seconds:
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id, message.header.stamp = frame, stamp(s)
        message.pose.pose.position.x = speed * s
        track.add(message)
    return EgoState(track, NullTransforms(), rigid_from_xyzw((-0.5, 0.5, -0.5, 0.5), (0.0, 0.0, 0.0)))


TIMES = (0.0, 0.1, 0.2, 0.3)


def reference(views: ImageHistory, image: Source, near: EgoState, inputs: Inputs) -> ReferenceView | None:
    """The earlier image that is chosen for an image."""
    past = views.candidates(image, near, inputs)
    return None if past is None else past.reference()


def test_an_image_is_compared_with_the_one_before(street: Clip) -> None:
    views, inputs, near = ImageHistory(), Inputs(), driving(*TIMES)
    assert reference(views, source(street, 0), near, inputs) is None
    first = reference(views, source(street, 1), near, inputs)
    assert first is not None and first.seconds == pytest.approx(0.1)
    np.testing.assert_array_equal(first.image, street.images[0])
    again = reference(views, source(street, 1), near, inputs)  # asked about once more, by a service perhaps
    assert again is not None and again.time == first.time


@pytest.mark.parametrize("what", ["time jumped back", "too long ago", "another lens", "other odometry", "no odometry"])
def test_what_does_not_belong_together_is_not_compared(street: Clip, what: str) -> None:
    views, inputs, later = ImageHistory(), Inputs(), source(street, 1)
    near = driving(*TIMES)
    assert reference(views, source(street, 0), near, inputs) is None
    if what == "time jumped back":
        inputs = Inputs()
    elif what == "too long ago":
        later, near = source(street, 1, 2.0), driving(*TIMES, 2.0)
    elif what == "another lens":
        later = replace(later, camera=Camera(street.K * [[1.1], [1.1], [1]], 208, 64))
    elif what == "other odometry":
        near = driving(*TIMES, frame="map")
    else:
        near = driving()
    assert reference(views, later, near, inputs) is None


def test_large_images_are_kept_small(street: Clip) -> None:
    views, inputs, near = ImageHistory(), Inputs(), driving(*np.arange(0, 2, 0.1))
    large = np.repeat(np.repeat(street.images[0], 8, 0), 8, 1)
    tracemalloc.start()
    for t in range(20):
        wide = Source(large.copy(), Camera(street.K * [[8], [8], [1]], 1664, 512), image(0.1 * t, large).header)
        reference(views, wide, near, inputs)
    del wide
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 1e7 < held < 1.7e7  # ten of them, 1280 pixels wide


def test_what_moves_is_seen_over_a_metre_and_its_velocity_measured_over_a_fifth_of_a_second(street: Clip) -> None:
    views, inputs, near = ImageHistory(), Inputs(), driving(*TIMES)
    pasts = [views.candidates(source(street, t), near, inputs) for t in range(4)]
    first, *seen = [past.reference() for past in pasts if past is not None]
    assert first is None
    assert [round(view.seconds, 3) for view in seen if view is not None] == [0.1, 0.1, 0.1]
    assert seen[2] is not None
    older = seen[2].older
    assert older is not None and older.seconds == pytest.approx(0.2)
    np.testing.assert_allclose(older.T_source_reference[:3, 3], (0, 0, -SPEED * 0.2), atol=1e-6)
    np.testing.assert_array_equal(older.image, street.images[1])


def test_a_slow_vehicle_compares_with_the_image_a_fifth_of_a_second_before(street: Clip) -> None:
    views, inputs, near = ImageHistory(), Inputs(), driving(*TIMES, speed=2.0)
    pasts = [views.candidates(source(street, t), near, inputs) for t in range(4)]
    seen = [past.reference() for past in pasts if past is not None]
    assert [round(view.seconds, 3) for view in seen if view is not None] == [0.1, 0.2, 0.2]


def test_depth_is_corrected_by_an_image_from_three_metres_away(street: Clip) -> None:
    times = np.arange(0, 1.45, 0.1)
    views, inputs, near = ImageHistory(), Inputs(), driving(*times, speed=5.0)
    views_of = [reference(views, source(street, k % 4, t), near, inputs) for k, t in enumerate(times)]
    found = views_of[-1]
    assert found is not None and found.seconds == pytest.approx(0.2)
    assert found.wider is not None and found.wider.seconds == pytest.approx(BASELINE / 5.0)


def test_images_of_a_fast_camera_reach_back_as_far(street: Clip) -> None:
    times = np.arange(45) / 30
    views, inputs, near = ImageHistory(), Inputs(), driving(*times, speed=5.0)
    views_of = [reference(views, source(street, k % 4, t), near, inputs) for k, t in enumerate(times)]
    found = views_of[-1]
    assert found is not None and found.seconds == pytest.approx(0.2, abs=0.05)
    assert found.wider is not None and found.wider.seconds == pytest.approx(BASELINE / 5.0, abs=0.05)


def test_an_image_that_repeats_has_no_reference(street: Clip) -> None:
    """Two equal images and a baseline would put everything at infinity."""
    views, inputs, near = ImageHistory(), Inputs(), driving(*TIMES)
    views.candidates(source(street, 0), near, inputs)
    again = views.candidates(source(street, 0, 0.1), near, inputs)
    assert again is not None and again.reference() is None
    assert reference(views, source(street, 2), near, inputs) is not None
