# SPDX-License-Identifier: Apache-2.0
"""Optical flow of real clips, measured once before training: a teacher for depth and for motion."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.two_view.flow import flow_size, measured_flow

FLOW_SECONDS = 0.2  # from a source to view 1
DEPTH_SECONDS = 0.5  # between frames in which far things show a parallax
STILLS = 0.75  # seconds between frames, from which on a clip is a series of photographs, whose times are nominal


def frame_period(clip: Clip) -> float:
    """The usual time between frames, s; of a single frame 0.1."""
    return float(np.median(np.diff(clip.times))) if len(clip) > 1 else 0.1


def is_stills(clip: Clip) -> bool:
    """Whether the frames are single photographs far apart."""
    return len(clip) > 1 and frame_period(clip) >= STILLS


def frame_gaps(clip: Clip) -> tuple[int, int]:
    """Frames between which flow is measured: first those from a source to view 1, then more for depth."""
    if is_stills(clip):
        return 1, 2
    period = frame_period(clip)
    soon = max(1, round(FLOW_SECONDS / period))
    return soon, max(soon + 1, round(DEPTH_SECONDS / period))


def no_flow(clip: Clip) -> NDArray[np.float16]:
    """Flow (T, h, w, 2) of which nothing is known."""
    width, height = flow_size(clip.images.shape[2], clip.images.shape[1])
    return np.full((len(clip), height, width, 2), np.nan, np.float16)


def clip_flow(clip: Clip) -> NDArray[np.float16]:
    """Flow of every frame to that of the first of frame_gaps later (T, h, w, 2), see measured_flow; else NaN."""
    images, flows, gap = np.asarray(clip.images), no_flow(clip), frame_gaps(clip)[0]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for i, flow in enumerate(pool.map(measured_flow, images[:-gap], images[gap:])):
            flows[i] = flow
    return flows
