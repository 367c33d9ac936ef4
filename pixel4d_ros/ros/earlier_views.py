"""Earlier images of the camera and where they were taken, for depth from motion."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from pixel4d_ros.parallax import LONGEST_AGO, depth_from_motion, earlier_view
from pixel4d_ros.ros.inputs import Depth, Inputs, Source
from pixel4d_ros.ros.transforms import Surroundings
from pixel4d_ros.rotations import FloatArray, rigid_inverse

VIEWS_KEPT = 10


@dataclass(frozen=True)
class EarlierView:
    """An image, where the camera was in the odometry's frame, and the inputs of that time."""

    source: Source
    T_odometry_camera: FloatArray  # (4, 4)
    odometry_frame: str
    inputs: Inputs

    def helps(self, later: EarlierView) -> bool:
        """Whether it tells something about a later view: the same camera and odometry, not long ago."""
        ago = (later.source.stamp_ns - self.source.stamp_ns) * 1e-9
        return (
            self.inputs is later.inputs  # else time jumped back in between
            and 0 < ago <= LONGEST_AGO
            and self.odometry_frame == later.odometry_frame
            and self.source.header.frame_id == later.source.header.frame_id
            and self.source.size == later.source.size
            and np.array_equal(self.source.camera.K, later.source.camera.K)
        )


class EarlierViews:
    """The newest images, for as long as they help; each is kept when its depth is asked for."""

    def __init__(self) -> None:
        self._views: deque[EarlierView] = deque(maxlen=VIEWS_KEPT)

    def depth(self, source: Source, near: Surroundings, inputs: Inputs) -> Depth | None:
        """Depth (h, w) in metres of an image, 0 where unknown.

        None where odometry does not tell how the camera moved, or tells that it hardly did.
        """
        frame, camera = near.odometry.frame, source.header.frame_id
        base = near.base_in(frame, source.stamp_ns) if frame else None
        if base is None:
            return None
        now = EarlierView(source, base @ near.camera_in_base(camera, source.stamp_ns), frame, inputs)
        views = [view for view in reversed(self._views) if view.helps(now)]
        if not self._views or self._views[-1].source.stamp_ns != source.stamp_ns:
            self._views.append(now)
        motions = [rigid_inverse(view.T_odometry_camera) @ now.T_odometry_camera for view in views]
        chosen = earlier_view([float(np.linalg.norm(T[:3, 3])) for T in motions])
        if chosen is None:
            return None
        return depth_from_motion(source.rgb, views[chosen].source.rgb, motions[chosen], source.camera.K)
