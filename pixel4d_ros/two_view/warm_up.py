# SPDX-License-Identifier: Apache-2.0
"""Compiles all of two_view's functions ahead, with the types that they are called with.

The results are kept beside the files: where that is done (`make setup`, Forecaster.warm_up) no forecast waits for it.
"""

from __future__ import annotations

import numpy as np

from pixel4d_ros.camera import Camera
from pixel4d_ros.two_view.flow import CheckedFlow
from pixel4d_ros.two_view.instance_motion import fit_of_mover, judged_instances
from pixel4d_ros.two_view.moving_parts import MovingPart, is_large, joined_parts
from pixel4d_ros.two_view.moving_patches import grown, is_outline, judged_patch, sizes_of, with_outline
from pixel4d_ros.two_view.object_motion import whole_objects
from pixel4d_ros.two_view.predicted_motion import corrected_velocity
from pixel4d_ros.two_view.rigid_flow import refined_pose
from pixel4d_ros.two_view.two_images import MeasuredFlow, TwoImages


def compile_all() -> None:
    """Call each compiled function of two_view that others call from Python."""
    depth, grey, mask = np.ones((16, 32), np.float32), np.zeros((16, 32), np.uint8), np.ones((16, 32), bool)
    flow, ids, three = CheckedFlow(np.zeros((16, 32, 2), np.float32), mask), mask.astype(np.int64), np.ones(3)
    camera = Camera(np.array([[32.0, 0, 16], [0, 32, 8], [0, 0, 1]]), 32, 16)
    pair = TwoImages(MeasuredFlow(grey, grey, flow, grey, grey), camera, depth, np.eye(4), 0.2)
    refined_pose(np.eye(4), flow, depth, camera.K)
    with_outline(mask, pair.moving, mask, mask.copy())
    whole_objects(ids, ids)
    list(judged_instances(pair, ids))
    fit_of_mover(pair.images, mask, three, True)
    corrected_velocity(pair.images, mask, three)
    judged_patch(pair.images, mask, ids)
    is_outline(grown(pair, mask, three), sizes_of([mask], mask.shape))
    halves = np.split(np.arange(32), 2)
    parts = [MovingPart(np.isin(np.arange(32), half) & mask, three, np.eye(3), 1.0) for half in halves]
    is_large(joined_parts(pair, parts)[0].pixels)
