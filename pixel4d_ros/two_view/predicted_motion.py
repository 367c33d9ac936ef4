# SPDX-License-Identifier: Apache-2.0
"""Velocities of the objects that the network predicts to move, corrected by a reference image.

One image hardly tells how fast something is, so that the prediction is a guess and a prior; the images decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.flow import Mask
from pixel4d_ros.two_view.instance_motion import inner_pixels, thinned
from pixel4d_ros.two_view.velocity_alignment import aligned
from pixel4d_ros.two_view.velocity_fit import Ids, TwoImages, fitted

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
        mask = ids == k
        velocity = corrected_velocity(pair, mask, predicted[k])
        if velocity is None:
            return None
        return k, velocity - predicted[k], pair.probability(mask, velocity, network=True)

    return pool.map(correction, np.unique(ids[ids > 0]).tolist())


def corrected_velocity(pair: TwoImages, mask: Mask, predicted: FloatArray) -> FloatArray | None:
    """The velocity (3,) in m/s of an object on a mask (h, w), from the images and a prediction (3,); None if too small.

    A prediction from one image is the prior.
    """
    inner = thinned(inner_pixels(pair, mask))
    if not inner.any():
        return None
    deviation = TRUST + TRUST_SHARE * float(np.linalg.norm(predicted))
    fit = fitted(pair, inner, predicted, deviation)
    guesses = [predicted] if fit is None else [predicted, fit.velocity]
    return aligned(pair, inner, guesses, predicted, deviation)
