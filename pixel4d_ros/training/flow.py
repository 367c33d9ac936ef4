"""Optical flow of real clips, measured once before training: a teacher for depth and for motion."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.two_view.flow import flow_size, measured_flow

FLOW_STEP = 2  # frames from a source to view 1


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
