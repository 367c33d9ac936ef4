# SPDX-License-Identifier: Apache-2.0
"""The steps of Forecaster.forecast one by one, so that each can be timed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pixel4d_ros.benchmark.source_image import SourceImage, forecast_times, straight_path
from pixel4d_ros.benchmark.stopwatch import Stopwatch
from pixel4d_ros.camera import CameraPath
from pixel4d_ros.forecaster import Forecast, Forecaster
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.rendering.host_rendering import VIEWS_PER_CALL
from pixel4d_ros.rendering.moved_scene import advance, render
from pixel4d_ros.rendering.streams import to_device, to_host
from pixel4d_ros.two_view.object_motion import with_motion_from_flow

UPLOAD, PREDICT, RENDER, COPY_BACK = STAGES = ("upload", "predict", "render", "copy back")
MOTION = "motion from flow"  # after PREDICT, of a source that has an earlier view


@dataclass(frozen=True)
class Task:
    """One forecast to time."""

    source: SourceImage
    frames: int
    samples: int

    @cached_property
    def times(self) -> FloatArray:
        """(T,) seconds after the image."""
        return forecast_times(self.frames)

    @cached_property
    def path(self) -> CameraPath:
        """The camera's path."""
        return straight_path(self.times)


def whole_forecast(forecaster: Forecaster, task: Task) -> Forecast:
    """A whole forecast, from an image to frames in host memory."""
    source = task.source
    return forecaster.forecast(
        source.pixels, source.camera.K, task.path, task.times, task.samples, reference=source.reference
    )


@torch.inference_mode()
def staged_forecast(forecaster: Forecaster, task: Task, watch: Stopwatch) -> NDArray[np.uint8]:
    """The same frames (S, T, H, W, 3) step by step, with a lap for each of STAGES.

    Checks and the uncertainty over the samples are part of the whole forecast only.
    """
    path, times, camera = task.path, task.times, task.source.camera
    poses, speed = path.at(times), path.speed()
    watch.restart()
    image = to_device(task.source.pixels, forecaster.device)
    watch.lap(UPLOAD)
    scene = forecaster.predictor.predict(image, camera, task.samples, 0, None, speed, task.source.reference)
    watch.lap(PREDICT)
    if task.source.reference is not None:
        pixels, reference = task.source.pixels, task.source.reference
        flows = forecaster.measured_flow(pixels, reference.views)
        scene = with_motion_from_flow(scene, pixels, reference, flows=flows)
        watch.lap(MOTION)
    moved_scene = advance([scene.sample(k) for k in range(task.samples)], times)
    parts = np.split(np.arange(len(times)), range(VIEWS_PER_CALL, len(times), VIEWS_PER_CALL))
    views = [v for part in parts for v in render(moved_scene, poses[part], part, camera)]
    watch.lap(RENDER)
    tensors = [tensor for view in views for tensor in (view.frames, view.confidence, view.depth) if tensor is not None]
    found = to_host(*tensors)
    watch.lap(COPY_BACK)
    frames = found[::3]  # of all futures of the first part, then of the next part
    return np.stack([np.concatenate(frames[k :: task.samples]) for k in range(task.samples)])
