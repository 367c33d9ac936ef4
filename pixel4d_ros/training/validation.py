# SPDX-License-Identifier: Apache-2.0
"""Quick metrics of the averaged weights during training, through Forecaster."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.evaluation.metrics import psnr
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.geometry.rotations import rigid_inverse
from pixel4d_ros.predictor import Predictor
from pixel4d_ros.predictor.network import Network

FRAMES = 14
SOURCES = 8


@lru_cache(maxsize=1)
def _clip(path: Path) -> Clip:
    return read_clip(path)


def validate(network: Network, path: Path, device: torch.device) -> str:
    """First-frame PSNR, mean gain over repeating the image, and depth error on a log, as one line."""
    clip = _clip(path)
    # Not recorded as a CUDA graph: the other processes' NCCL calls, which wait meanwhile, would break the recording.
    forecaster = Forecaster(Predictor(deepcopy(network).float(), device, fast=False))
    firsts, gains, depths = [], [], []
    for i in np.linspace(0, len(clip) - FRAMES, SOURCES).astype(int):
        part = clip.part(i, i + FRAMES)
        path_ahead = CameraPath(part.times - part.times[0], rigid_inverse(part.poses[0]) @ part.poses)
        forecast = forecaster.forecast(part.images[0], part.K, path_ahead, path_ahead.times)
        scores = [psnr(f, truth) for f, truth in zip(forecast.frames[0], part.images)]
        repeat = [psnr(part.images[0], truth) for truth in part.images[1:]]
        firsts.append(scores[0])
        gains.append(np.mean(scores[1:]) - np.mean(repeat))
        if part.depth is not None:
            known = part.depth[0] > 0
            depths.append(np.mean(np.abs(forecast.depth[0, 0][known] / part.depth[0][known] - 1)))
    depth = f" AbsRel {np.mean(depths):.3f}" if depths else ""
    return f"first {np.mean(firsts):.2f} dB gain {np.mean(gains):.2f} dB{depth}"
