"""Earlier images of the camera and where they were taken: they tell depth, and what moves."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.ros.inputs import Inputs, Source
from pixel4d_ros.ros.transforms import EgoState
from pixel4d_ros.two_view.flow import shrunk
from pixel4d_ros.two_view.reference_view import LONGEST_AGO, ReferenceView, view_for_motion
from pixel4d_ros.two_view.triangulation import view_for_depth

VIEWS_KEPT = 10


@dataclass(frozen=True)
class View:
    """A shrunk image with its camera, whose frame was where odometry says, and the inputs of that time."""

    image: NDArray[np.uint8]  # (h, w, 3) RGB
    camera: Camera
    frame: str
    stamp_ns: int
    odometry_frame: str
    T_odometry_camera: FloatArray  # (4, 4)
    inputs: Inputs

    def helps(self, later: View) -> bool:
        """Whether it tells something about a later view: the same camera and odometry, not long ago."""
        return (
            self.inputs is later.inputs  # else time jumped back in between
            and 0 < (later.stamp_ns - self.stamp_ns) * 1e-9 <= LONGEST_AGO
            and (self.frame, self.odometry_frame) == (later.frame, later.odometry_frame)
            and self.image.shape == later.image.shape
            and np.array_equal(self.camera.K, later.camera.K)
        )


@dataclass(frozen=True)
class ReferenceCandidates:
    """An image's view, and the earlier ones that belong with it, newest first."""

    now: View
    views: list[View]

    @cached_property
    def _motions(self) -> FloatArray:
        """T_earlier_camera (N, 4, 4) of the views."""
        poses = np.array([view.T_odometry_camera for view in self.views]).reshape(-1, 4, 4)
        return rigid_inverse(poses) @ self.now.T_odometry_camera

    @cached_property
    def _ages(self) -> FloatArray:
        """(N,) seconds of the views."""
        return np.array([(self.now.stamp_ns - view.stamp_ns) * 1e-9 for view in self.views])

    def for_depth(self) -> ReferenceView | None:
        """The earlier image that tells depth; None where the camera has hardly moved."""
        return self._earlier(view_for_depth(self._motions))

    def for_motion(self) -> ReferenceView | None:
        """The earlier image that tells what moves; None where there is none of the right age."""
        return self._earlier(view_for_motion(self._ages))

    def _earlier(self, chosen: int | None) -> ReferenceView | None:
        if chosen is None:
            return None
        view, T_source_reference = self.views[chosen], rigid_inverse(self._motions[chosen])
        return ReferenceView(view.image, view.camera.K, T_source_reference, -float(self._ages[chosen]))


class EarlierViews:
    """The newest images; each is kept when its past is asked for."""

    def __init__(self) -> None:
        self._views: deque[View] = deque(maxlen=VIEWS_KEPT)

    def past(self, source: Source, near: EgoState, inputs: Inputs) -> ReferenceCandidates | None:
        """What is known from before an image; None where odometry does not tell how the camera moved."""
        now = _view(source, near, inputs)
        if now is None:
            return None
        views = [view for view in reversed(self._views) if view.helps(now)]
        if not self._views or self._views[-1].stamp_ns != now.stamp_ns:
            self._views.append(now)
        return ReferenceCandidates(now, views)


def _view(source: Source, near: EgoState, inputs: Inputs) -> View | None:
    """What to keep of an image; None where odometry does not know where it was taken."""
    frame, odometry, stamp_ns = source.header.frame_id, near.odometry.frame, source.stamp_ns
    base = near.base_in(odometry, stamp_ns) if odometry else None
    if base is None:
        return None
    image = shrunk(source.rgb)
    camera = source.camera.resized(image.shape[1], image.shape[0])
    pose = base @ near.camera_in_base(frame, stamp_ns)
    return View(image, camera, frame, stamp_ns, odometry, pose, inputs)
