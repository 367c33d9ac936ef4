# SPDX-License-Identifier: Apache-2.0
"""Dense optical flow, and where it can be trusted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Flow = NDArray[np.float32]  # (H, W, 2) pixels
Mask = NDArray[np.bool_]  # (H, W)
Rows = NDArray[np.intp]  # (n,) or columns

LEAST_SIDE = 12  # pixels, which DIS flow asks for
LARGEST_WIDTH = 420  # pixels at which flow is measured
LEAST_HEIGHT = 32  # pixels: of a panorama's strip the width matters less
CONSISTENT = 1.0  # pixels by which forward and backward flow may differ
CONSISTENT_SHARE = 0.05  # of the flow's length, added to the slack
REFINEMENTS = 5  # of a network's flow: with 10 the flow is hardly better
AGREEMENT = 1.0  # pixels at 832 columns by which forward and backward flow may differ


@dataclass(frozen=True)
class FlowBothWays:
    """Optical flow between two images as a network gives it."""

    there: Flow  # (H, W, 2) pixels
    back: Flow

    def checked(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> CheckedFlow:
        """The flow from grey image first (H, W) to second, refined on both, where the way back confirms it."""
        with ThreadPoolExecutor(1) as beside:
            backward = beside.submit(_refined, self.back, second, first)
            there = _refined(self.there, first, second)
        slack = AGREEMENT * fineness(first.shape[1])
        return CheckedFlow(there, is_consistent(there, backward.result(), slack))


@dataclass(frozen=True)
class CheckedFlow:
    """Optical flow with its forward-backward check."""

    flow: Flow  # (H, W, 2) pixels
    agrees: Mask  # (H, W): forward and backward flow are consistent


def flow_size(width: int, height: int) -> tuple[int, int]:
    """Width and height at which flow of images of width x height is measured."""
    shrink = min(1.0, max(LARGEST_WIDTH / width, LEAST_HEIGHT / height))
    return round(width * shrink), round(height * shrink)


def fineness(width: int) -> float:
    """Scale of pixels in an image of this width, relative to 832 columns, for which limits in pixels hold."""
    return width / 832


def shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (H, W, 3) at the size at which flow is measured."""
    size = flow_size(image.shape[1], image.shape[0])
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def check_pair(shape: tuple[int, ...], other: tuple[int, ...]) -> None:
    """Raise ValueError for shapes (H, W, 3) of images between which no flow can be measured.

    One of the images may have been shrunk already.
    """
    size, other_size = (flow_size(s[1], s[0]) for s in (shape, other))
    if size != other_size:
        raise ValueError(f"the images must be of one size, got {shape} and {other}")
    if min(size) < LEAST_SIDE:
        raise ValueError(f"flow needs images of {LEAST_SIDE} pixels or more on each side, got {shape[:2]}")


def measured_flow(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Flow (h, w, 2) between images (H, W, 3), as shares of width and height; NaN where inconsistent.

    (w, h) is flow_size of the images.
    """
    size = flow_size(first.shape[1], first.shape[0])
    grey = [np.asarray(cv2.cvtColor(shrunk(image), cv2.COLOR_RGB2GRAY), np.uint8) for image in (first, second)]
    checked, _ = flow_both_ways(grey[0], grey[1], CONSISTENT)
    return np.where(checked.agrees[..., None], checked.flow / np.array(size, np.float32), np.float32(np.nan))


def flow_both_ways(
    first: NDArray[np.uint8], second: NDArray[np.uint8], slack: float
) -> tuple[CheckedFlow, CheckedFlow]:
    """Flow from grey image first (H, W) to second, and from second to first.

    DIS flow (T. Kroeger et al., ECCV 2016). Forward and backward flow may differ by slack pixels, and more where
    the flow is long. What leaves the image is inconsistent.
    """
    with ThreadPoolExecutor(1) as beside:
        backward = beside.submit(_dis_flow, second, first)
        there, back = _dis_flow(first, second), backward.result()
    return CheckedFlow(there, is_consistent(there, back, slack)), CheckedFlow(back, is_consistent(back, there, slack))


def _refined(flow: Flow, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Flow:
    """Flow (H, W, 2) by which the images agree better: a network's is off by about a pixel, which is a wrong speed.

    Variational refinement (T. Brox et al., High accuracy optical flow estimation, ECCV 2004).
    """
    method = cv2.VariationalRefinement.create()
    method.setFixedPointIterations(REFINEMENTS)
    return np.asarray(method.calc(first, second, np.array(flow, np.float32, order="C")), np.float32)


def _dis_flow(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Flow:
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(method.calc(first, second, None), np.float32)


def sample(values: NDArray[np.float32], flow: Flow, outside: float = 0.0) -> NDArray[np.float32]:
    """values (H, W, ...) of another frame where the flow (H, W, 2) leads; `outside` beyond the border."""
    height, width = flow.shape[:2]
    u, v = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    border = (outside,) * 4
    return np.asarray(
        cv2.remap(values, u + flow[..., 0], v + flow[..., 1], cv2.INTER_LINEAR, borderValue=border), np.float32
    )


def length(flow: Flow) -> NDArray[np.float32]:
    """Length (H, W) of a flow in pixels."""
    return np.asarray(np.sqrt(flow[..., 0] ** 2 + flow[..., 1] ** 2), np.float32)


def is_consistent(there: Flow, back: Flow, slack: float) -> Mask:
    """Pixels (H, W) whose forward flow and the backward flow at its end add up to less than slack pixels or so."""
    consistent: Mask = length(there + sample(back, there, outside=1e3)) < slack + CONSISTENT_SHARE * length(there)
    return consistent
