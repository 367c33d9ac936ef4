# SPDX-License-Identifier: Apache-2.0
"""An image beside a reference image, and the velocity that explains the flow between them on some pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import compiled
from pixel4d_ros.two_view.flow import (
    AGREEMENT,
    CheckedFlow,
    FlowBothWays,
    Mask,
    Rows,
    fineness,
    flow_both_ways,
    pixels_of,
    thinned_rows,
)
from pixel4d_ros.two_view.motion_evidence import ImagePair, motion_evidence
from pixel4d_ros.two_view.moving_probability import CALIBRATION
from pixel4d_ros.two_view.reference_view import ReferenceView
from pixel4d_ros.two_view.rigid_flow import (
    Grey,
    Known,
    Map,
    moving_patches,
    reach_of,
    refined_pose,
    residual,
)

Ids = NDArray[np.int64]  # (h, w)

DEPTH_FACTOR = 1.7  # predicted depth may be wrong by this factor, either way
SLOWEST, FASTEST = 0.5, 40.0  # m/s of an added object
CLIMB, CLIMB_SHARE = 0.3, 0.15  # m/s, and share of its speed: vertical speed of an added object, at most
NEAREST, FARTHEST = 0.5, 250.0  # metres; the latter is the sky
EXPLAINED = 0.5  # a velocity explains flow if it leaves less than this share of a static world's residual,
LEFT = 0.7  # and less than so many pixels
LEAST_PIXELS, MOST_PIXELS = 30, 2000  # for one velocity
PIXEL, INDEPENDENT = 0.5, 20  # pixels, standard deviation of the flow, and number of an object's independent errors
ANY = np.array([50.0, 2.5, 50.0])  # m/s: standard deviation of a velocity without a prediction
ROUNDS = 8  # of reweighting
DEPTH_SPREAD = 0.15  # standard deviation of the logarithm of predicted depth


@dataclass(frozen=True)
class MeasuredFlow:
    """An image and a reference image, and the flow between them, at two_view.flow.flow_size of the image."""

    here: Grey  # (h, w)
    there: Grey  # (h, w), the reference image
    flow: CheckedFlow  # from the image to the reference image
    fine_here: Grey  # (H, W) both at full resolution
    fine_there: Grey

    @staticmethod
    def of(image: NDArray[np.uint8], reference: ReferenceView, flow: FlowBothWays | None = None) -> MeasuredFlow:
        """Compare an image (H, W, 3) RGB with a reference image: all that needs no predicted scene.

        flow: that of Predictor.flows; None: DIS flow. Raises ValueError for images of different sizes, or too small.
        """
        here, there = map(_grey, reference.beside(image))
        if flow is None:
            checked, _ = flow_both_ways(here, there, AGREEMENT * fineness(here.shape[1]))
        else:
            checked = flow.checked(here, there)
        same = image.shape == reference.image.shape
        fine = map(_grey, (image, reference.image)) if same else (here, there)
        return MeasuredFlow(here, there, checked, *fine)


@dataclass(frozen=True)
class TwoImages:
    """An image and a reference image, at the size at which flow is measured, with depth and pose."""

    measured: MeasuredFlow
    camera: Camera  # the image's
    depth: Map  # (h, w) metres, predicted
    T_reference_source: FloatArray  # (4, 4), refined on the flow
    seconds: float

    @staticmethod
    def of(measured: MeasuredFlow, reference: ReferenceView, camera: Camera, depth: Map) -> TwoImages:
        """The comparison of an image with a reference image, given depth (h, w) in metres; camera is its camera."""
        depth = np.minimum(depth, np.float32(FARTHEST))
        T = refined_pose(reference.T_reference_source, measured.flow, depth, camera.K)
        return TwoImages(measured, camera, depth, T, reference.seconds)

    @cached_property
    def moving(self) -> Mask:
        """Patches (h, w) whose flow no static world explains."""
        static = _possible(self.depth), self.T_reference_source, self.camera.K
        images = self.measured.here, self.measured.there
        return moving_patches(residual(self.measured.flow, *static, *images).photometric_evidence)

    @cached_property
    def fine_K(self) -> FloatArray:
        """(3, 3) of the camera at full resolution."""
        height, width = self.measured.fine_here.shape
        return self.camera.resized(width, height).K

    @property
    def images(self) -> ImagePair:
        """What the evidence of motion is taken from."""
        measured = self.measured
        return ImagePair(measured.here, measured.there, self.camera, self.depth, self.T_reference_source)

    def probability(self, patch: Mask, velocity: FloatArray, network: bool) -> float:
        """Calibrated probability that a patch (h, w) moves, at velocity (3,) m/s if so; network: it found it, too."""
        evidence = motion_evidence(self.images, patch, velocity * self.seconds)
        return CALIBRATION.with_reference(evidence, network)


def _grey(image: NDArray[np.uint8]) -> Grey:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _possible(depth: Map) -> Known:
    """Bounds of each pixel's inverse depth: predicted depth may be wrong by DEPTH_FACTOR, and misplaced by REACH."""
    reach = reach_of(depth.shape[1])
    window, inverse = np.ones((reach, reach), np.uint8), 1 / np.maximum(depth, np.float32(1e-3))
    return Known(cv2.dilate(inverse, window) * DEPTH_FACTOR, cv2.erode(inverse, window) / DEPTH_FACTOR)


@dataclass(frozen=True)
class FlowEquations:
    """Flow on n pixels as linear equations, in pixels of the reference image, two per pixel.

    A point at p in the reference camera's frame, seen at e in units of the focal length, leaves p_xy - e p_z. Times
    focal length over depth that is about the distance of the flow from that of a static world in pixels, and linear in
    whatever displaces p.
    """

    static: FloatArray  # (2n,) pixels that a static world of the predicted depth leaves
    velocity: FloatArray  # (2n, 3) pixels per m/s that the points move by, source camera's axes
    inverse_depth: FloatArray  # (2n,) pixels per share that all inverse depths change by: the parallax
    camera_velocity: FloatArray  # (3,) m/s of the source camera, in its axes
    pose: FloatArray  # (2n, 6) pixels per radian of rotation and metre of translation put before T_reference_source

    @staticmethod
    def of(pair: TwoImages, mask: Mask) -> FlowEquations | None:
        """The equations of the pixels of a mask (h, w) with known flow, at most MOST_PIXELS; None for too few."""
        flow = pair.measured.flow
        v, u = pixels_of(mask & flow.agrees)
        if len(u) < LEAST_PIXELS:
            return None
        v, u = thinned_rows(v, u, MOST_PIXELS)
        ends = np.stack((u, v), -1) + flow.flow[v, u]
        return FlowEquations._of(pair, v, u, np.asarray(ends, np.float64))

    @staticmethod
    def of_motion(pair: TwoImages, mask: Mask, velocity: FloatArray) -> FlowEquations:
        """The equations of the pixels of a mask (h, w) if the flow there is that of a velocity (3,) in m/s."""
        v, u = thinned_rows(*pixels_of(mask), MOST_PIXELS)
        T, K = pair.T_reference_source, pair.camera.K
        points = compiled.unprojected(v, u, pair.depth, K) - velocity * pair.seconds
        seen = (points @ T[:3, :3].T + T[:3, 3]) @ K.T
        return FlowEquations._of(pair, v, u, seen[:, :2] / np.maximum(seen[:, 2:], NEAREST))

    @staticmethod
    def _of(pair: TwoImages, v: Rows, u: Rows, ends: FloatArray) -> FlowEquations:
        """The equations of pixels at rows v and columns u (n,) whose flow ends at ends (n, 2), x and y."""
        T, K = pair.T_reference_source, pair.camera.K
        points = compiled.unprojected(v, u, pair.depth, K)
        static, velocity, inverse_depth, pose = compiled.flow_equations(points, ends, K, T, pair.seconds, NEAREST)
        return FlowEquations(static, velocity, inverse_depth, T[:3, :3].T @ T[:3, 3] / pair.seconds, pose)


@dataclass(frozen=True)
class Fit:
    """The velocity (3,) in m/s that explains the flow on some pixels best, and how well it does."""

    velocity: FloatArray
    covariance: FloatArray  # (3, 3) (m/s)^2
    before: float  # pixels, median difference of the flow from that of a static world
    after: float  # the same from that of a world of this velocity

    @property
    def explains(self) -> bool:
        """Whether one velocity explains the flow where a static world does not."""
        return self.after < LEFT and self.after < EXPLAINED * self.before


def fitted(pair: TwoImages, mask: Mask, prior: FloatArray, deviation: FloatArray) -> Fit | None:
    """Fit a velocity to the flow in a mask (h, w), with a Gaussian prior (3,) of standard deviation (3,), m/s.

    None where too little of the flow is known.
    """
    equations = FlowEquations.of(pair, mask)
    return None if equations is None else solved(equations, prior, deviation)


def solved(equations: FlowEquations, prior: FloatArray, deviation: FloatArray) -> Fit:
    """Fit a velocity to the flow on some pixels, with a Gaussian prior (3,) of standard deviation (3,), m/s.

    A point p that moves at v was at p - v t, where the flow ends. Least squares with Cauchy weights.
    """
    count = len(equations.static) // 2
    noise = PIXEL**2 * count / min(count, INDEPENDENT)
    velocity, covariance, before, after = compiled.reweighted_velocity(
        equations.static, equations.velocity, noise / deviation**2, prior, ROUNDS, LEFT
    )
    # Velocities relative to the camera are proportional to depth, which is known to DEPTH_SPREAD.
    relative = velocity - equations.camera_velocity
    covariance = noise * covariance + DEPTH_SPREAD**2 * np.outer(relative, relative)
    return Fit(velocity, covariance, before, after)


def fitted_mover(pair: TwoImages, pixels: Mask) -> Fit | None:
    """The velocity on some pixels (h, w) without a prior, if it explains the flow there and an object may have it."""
    fit = fitted(pair, pixels, np.zeros(3), ANY)
    return fit if fit is not None and fit.explains and is_plausible(fit.velocity) else None


def is_plausible(velocity: FloatArray) -> bool:
    """Whether an object may have a velocity (3,) in m/s, of a camera that is about level."""
    speed = float(np.linalg.norm(velocity))
    return SLOWEST <= speed <= FASTEST and abs(float(velocity[1])) <= CLIMB + CLIMB_SHARE * speed
