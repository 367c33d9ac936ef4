"""Which earlier images the node takes depth from motion from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from harness import image, stamp
from nav_msgs.msg import Odometry

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.ros.conversions import rigid_from_xyzw
from pixel4d_ros.ros.earlier_views import EarlierViews
from pixel4d_ros.ros.inputs import Inputs, Source
from pixel4d_ros.ros.transforms import NoFrames, OdometryTrack, Surroundings
from pixel4d_ros.synthetic import street_clip

pytestmark = pytest.mark.ros
SPEED = 8.0  # m/s, about the street's


@pytest.fixture(scope="module")
def street() -> Clip:
    return street_clip(900_002, 4, size=(208, 64))


def source(street: Clip, t: int, seconds: float | None = None) -> Source:
    """Image t of the street, 0.1 s after the one before."""
    header = image(0.1 * t if seconds is None else seconds, street.images[t]).header
    return Source(street.images[t], Camera(street.K, 208, 64), header)


def driving(*seconds: float, frame: str = "odom") -> Surroundings:
    """Odometry that knows where the camera, looking ahead, is at these times."""
    track = OdometryTrack()
    for s in seconds:
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id, message.header.stamp = frame, stamp(s)
        message.pose.pose.position.x = SPEED * s
        track.add(message)
    return Surroundings(track, NoFrames(), rigid_from_xyzw((-0.5, 0.5, -0.5, 0.5), (0.0, 0.0, 0.0)))


TIMES = (0.0, 0.1, 0.2, 0.3)


def test_depth_comes_from_the_image_before(street: Clip) -> None:
    views, inputs, near = EarlierViews(), Inputs(), driving(*TIMES)
    assert views.depth(source(street, 0), near, inputs) is None
    first = views.depth(source(street, 1), near, inputs)
    assert first is not None and (first > 0).mean() > 0.02
    again = views.depth(source(street, 1), near, inputs)  # asked about once more, by a service perhaps
    np.testing.assert_array_equal(first, again)


def test_a_vehicle_that_stands_has_none(street: Clip) -> None:
    views, inputs, near = EarlierViews(), Inputs(), driving(0.0, 0.001, 0.002)
    assert views.depth(source(street, 0, 0.0), near, inputs) is None
    assert views.depth(source(street, 1, 0.002), near, inputs) is None


@pytest.mark.parametrize("what", ["time jumped back", "too long ago", "another lens", "other odometry", "no odometry"])
def test_what_does_not_belong_together_is_not_compared(street: Clip, what: str) -> None:
    views, inputs, later = EarlierViews(), Inputs(), source(street, 1)
    near = driving(*TIMES)
    assert views.depth(source(street, 0), near, inputs) is None
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
    assert views.depth(later, near, inputs) is None


def test_large_images_are_kept_small(street: Clip) -> None:
    views, inputs, near = EarlierViews(), Inputs(), driving(*np.arange(0, 2, 0.1))
    large = np.repeat(np.repeat(street.images[0], 8, 0), 8, 1)
    for t in range(20):
        wide = Source(large, Camera(street.K * [[8], [8], [1]], 1664, 512), image(0.1 * t, large).header)
        views.depth(wide, near, inputs)
    assert sum(view.image.nbytes for view in views._views) < 2e6
