"""Optical flow of real clips, measured once before training: a teacher for depth and for motion."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.two_view.flow import flow_size, measured_flow

FLOW_STEP = 2  # frames from a source to view 1
DEPTH_STEP = 5  # frames between which far things show a parallax
STILLS = 0.5  # seconds between frames, from which on a clip is a series of stills, whose times are nominal


def is_stills(clip: Clip) -> bool:
    """Whether the frames are single photographs far apart."""
    return len(clip) > 1 and float(np.median(np.diff(clip.times))) >= STILLS


def frame_gaps(clip: Clip) -> tuple[int, int]:
    """Frames between which flow is measured: first those from a source to view 1, then more for depth."""
    return (1, 2) if is_stills(clip) else (FLOW_STEP, DEPTH_STEP)


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
