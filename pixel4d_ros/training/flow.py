"""Optical flow of real clips, measured once before training: a teacher for depth and for motion."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.optical_flow import flow_both_ways
from pixel4d_ros.evaluation.windows import resize_image

FLOW_STEP = 2  # frames from a source to view 1
LARGEST_WIDTH = 420  # pixels at which flow is measured
CONSISTENT = 1.0  # pixels between going there and back, beyond which flow is not trusted


def flow_size(width: int, height: int) -> tuple[int, int]:
    """Width and height at which flow of images of width x height is measured."""
    shrink = min(1.0, LARGEST_WIDTH / width)
    return round(width * shrink), round(height * shrink)


def measured_flow(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Flow (h, w, 2) between images (H, W, 3), as shares of width and height; NaN where back does not lead home.

    Measured at LARGEST_WIDTH or less.
    """
    size = flow_size(first.shape[1], first.shape[0])
    grey = [np.asarray(cv2.cvtColor(resize_image(i, size), cv2.COLOR_RGB2GRAY), np.uint8) for i in (first, second)]
    checked, _ = flow_both_ways(grey[0], grey[1], CONSISTENT)
    return np.where(checked.agrees[..., None], checked.flow / np.array(size, np.float32), np.float32(np.nan))


def no_flow(clip: Clip) -> NDArray[np.float16]:
    """Flow (T, h, w, 2) of which nothing is known."""
    width, height = flow_size(clip.images.shape[2], clip.images.shape[1])
    return np.full((len(clip), height, width, 2), np.nan, np.float16)


def clip_flow(clip: Clip) -> NDArray[np.float16]:
    """Flow of every frame to that FLOW_STEP later (T, h, w, 2), see measured_flow; NaN where there is none."""
    images, flows = np.asarray(clip.images), no_flow(clip)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for i, flow in enumerate(pool.map(measured_flow, images[:-FLOW_STEP], images[FLOW_STEP:])):
            flows[i] = flow
    return flows
