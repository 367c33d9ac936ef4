# SPDX-License-Identifier: Apache-2.0
"""An image beside a reference image, and the flow between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.flow import (
    AGREEMENT,
    CheckedFlow,
    FlowBothWays,
    Mask,
    fineness,
    flow_both_ways,
)
from pixel4d_ros.two_view.image_pair import ImagePair
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
FARTHEST = 250.0  # metres: the sky


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
    def images(self) -> ImagePair:
        """The same for compiled functions."""
        measured, (height, width) = self.measured, self.measured.fine_here.shape
        return ImagePair(
            measured.here,
            measured.there,
            self.depth,
            np.ascontiguousarray(self.camera.K),
            np.ascontiguousarray(self.T_reference_source),
            float(self.seconds),
            measured.flow.flow,
            measured.flow.agrees,
            measured.fine_here,
            measured.fine_there,
            np.ascontiguousarray(self.camera.resized(width, height).K),
        )


def _grey(image: NDArray[np.uint8]) -> Grey:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _possible(depth: Map) -> Known:
    """Bounds of each pixel's inverse depth: predicted depth may be wrong by DEPTH_FACTOR, and misplaced by REACH."""
    reach = reach_of(depth.shape[1])
    window, inverse = np.ones((reach, reach), np.uint8), 1 / np.maximum(depth, np.float32(1e-3))
    return Known(cv2.dilate(inverse, window) * DEPTH_FACTOR, cv2.erode(inverse, window) / DEPTH_FACTOR)
