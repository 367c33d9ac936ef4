"""Optical flow of real clips, measured once before training: a teacher for depth and for what moves."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip

FLOW_STEP = 2  # frames from a source to view 1
LARGEST_WIDTH = 420  # pixels at which flow is measured
CONSISTENT = 1.0  # pixels between going there and back, beyond which flow is not trusted; more for long ways
CONSISTENT_SHARE = 0.05


def flow_size(width: int, height: int) -> tuple[int, int]:
    """Width and height at which flow of images of width x height is measured."""
    shrink = min(1.0, LARGEST_WIDTH / width)
    return round(width * shrink), round(height * shrink)


def measured_flow(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Flow (h, w, 2) between images (H, W, 3), as shares of width and height; NaN where back does not lead home.

    DIS flow (Kroeger et al. 2016) at LARGEST_WIDTH or less.
    """
    size = flow_size(first.shape[1], first.shape[0])
    grey = [
        cv2.cvtColor(cv2.resize(i, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY) for i in (first, second)
    ]
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    there, back = method.calc(grey[0], grey[1], None), method.calc(grey[1], grey[0], None)
    x, y = np.meshgrid(np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32))
    home = cv2.remap(back, x + there[..., 0], y + there[..., 1], cv2.INTER_LINEAR, borderValue=(1e3, 1e3))
    astray = np.linalg.norm(there + home, axis=-1) > CONSISTENT + CONSISTENT_SHARE * np.linalg.norm(there, axis=-1)
    flow = there / np.array(size, np.float32)
    flow[astray] = np.nan
    return np.asarray(flow, np.float32)


def clip_flow(clip: Clip) -> NDArray[np.float16]:
    """Flow of every frame to that FLOW_STEP later (T, h, w, 2), see measured_flow; NaN where there is none."""
    images = np.asarray(clip.images)
    width, height = flow_size(images.shape[2], images.shape[1])
    flows = np.full((len(images), height, width, 2), np.nan, np.float16)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for i, flow in enumerate(pool.map(measured_flow, images[:-FLOW_STEP], images[FLOW_STEP:])):
            flows[i] = flow
    return flows
