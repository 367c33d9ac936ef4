# SPDX-License-Identifier: Apache-2.0
"""Compiles all of two_view's functions ahead, with the types that they are called with.

The results are kept beside the files: where that is done (`make setup`, Forecaster.warm_up) no forecast waits for it.
"""

from __future__ import annotations

import numpy as np

from pixel4d_ros.two_view import compiled, compiled_images, instance_motion, motion_evidence, velocity_alignment


def compile_all() -> None:
    """Call each compiled function of two_view once."""
    v = u = np.zeros(2, np.intp)
    depth, grey = np.ones((2, 2), np.float32), np.zeros((2, 2), np.uint8)
    K, T, three = np.eye(3), np.eye(4), np.ones(3)
    points = compiled.unprojected(v, u, depth, K)
    equations = compiled.flow_equations(points, points[:, :2].copy(), K, T, 1.0, 1.0)
    static, velocity = equations[:2]
    compiled.reweighted_velocity(static, velocity, three, three, 1, 1.0)
    compiled.refined_motion(points, np.zeros((2, 2)), K, T, 1.0, np.ones(6), 1, 1.0)
    flow, single = np.zeros((2, 2, 2), np.float32), depth[0, 0] * K.astype(np.float32)
    compiled.nearest_static_flow((depth, depth), single, single[0].copy(), flow)
    compiled.median(static)
    compiled.median(depth[0])
    compiled.quantile(static, 0.5)
    compiled_images.parallax(points, K, T)
    motion_evidence.evidence_of_pixels(v, u, (grey, grey, depth), K, T, three)
    instance_motion.log_ratio_of(equations, three, 1.0)
    images, starts = (grey, grey, K), velocity_alignment.search_starts(1.0)
    prior = three, three, 1.0
    velocity_alignment.aligned_from(points[:, :2].copy(), points, images, images, K, starts[:1], starts, prior)
