# SPDX-License-Identifier: Apache-2.0
"""Velocities of the objects that the network predicts to move, corrected by a reference image.

One image hardly tells how fast something is, so that the prediction is a guess and a prior; the images decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np
from numba import njit

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.flow import Mask
from pixel4d_ros.two_view.image_pair import ImagePair, inner_pixels, pixels_of
from pixel4d_ros.two_view.motion_evidence import Evidence, motion_evidence
from pixel4d_ros.two_view.moving_probability import CALIBRATION
from pixel4d_ros.two_view.two_images import Ids, TwoImages
from pixel4d_ros.two_view.velocity_alignment import aligned
from pixel4d_ros.two_view.velocity_fit import fitted

# Standard deviation of a velocity predicted from one image: m/s right, down and ahead, and share of the speed ahead. On
# streets from seed 800001 half of the errors are below 0.6, 0.2 and 1.6 m/s, but some are far larger.
TRUST, TRUST_SHARE = np.array([1.5, 0.3, 1.0]), np.array([0.0, 0.0, 0.15])


def corrections(
    predicted: FloatArray, pair: TwoImages, ids: Ids, pool: Executor
) -> Iterator[tuple[int, FloatArray, float] | None]:
    """Of each predicted object id, change (3,) of its velocity in m/s, probability of moving; None if it is too small.

    predicted (M + 1, 3) are the objects' velocities, ids (h, w) theirs in the image. The pool begins at once.
    """

    def correction(k: int) -> tuple[int, FloatArray, float] | None:
        is_seen, velocity, evidence = corrected_velocity(pair.images, ids == k, predicted[k])
        if not is_seen:
            return None
        return k, velocity - predicted[k], CALIBRATION.with_reference(Evidence(*evidence), network=True)

    return pool.map(correction, np.flatnonzero(np.bincount(ids.ravel())[1:]) + 1)


@njit(cache=True, nogil=True)
def corrected_velocity(pair: ImagePair, mask: Mask, predicted: FloatArray) -> tuple[bool, FloatArray, Evidence]:
    """Whether an object on a mask (h, w) is large enough, its velocity (3,) in m/s, and the evidence that it moves.

    From the images and a prediction (3,) from one image, which is the prior.
    """
    v, u = inner_pixels(pair.depth, mask)
    if len(v) == 0:
        return False, predicted, Evidence(0.0, 0.0, 0.0, 0.0, 0.0)
    deviation = TRUST + TRUST_SHARE * np.sqrt((predicted**2).sum())
    fit = fitted(pair, v, u, predicted, deviation)
    guesses = np.empty((1 + (fit.before < np.inf), 3))
    guesses[0], guesses[1:] = predicted, fit.velocity
    velocity, _ = aligned(pair, v, u, guesses, predicted, deviation)
    return True, velocity, motion_evidence(pair, *pixels_of(mask), velocity * pair.seconds)
