# SPDX-License-Identifier: Apache-2.0
"""Lower bounds of a forecast's time on this machine: its encoders alone, and the rasterizer alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixel4d_ros.benchmark.stages import Task
from pixel4d_ros.benchmark.statistics import Spread
from pixel4d_ros.benchmark.stopwatch import Effort, Stopwatch, measure_laps
from pixel4d_ros.predictor.checkpoint import load_weights, shipped_weights
from pixel4d_ros.predictor.cuda_graphs import record
from pixel4d_ros.predictor.input_view import InputView
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.predictor.predictor import FAST
from pixel4d_ros.rendering import GaussianViews, rasterize
from pixel4d_ros.rendering.moved_scene import still_views
from pixel4d_ros.rendering.streams import to_device
from pixel4d_ros.scene import DynamicGaussians


@torch.inference_mode()
def encoder_bound(weights: Path | None, task: Task, device: torch.device, effort: Effort) -> Spread:
    """The network's two encoders, one after the other as in a prediction, replayed as a CUDA graph. Needs CUDA."""
    network = Network()
    load_weights(network, weights or shipped_weights())
    network = network.to(device).for_inference(FAST)
    image = to_device(task.source.pixels, device).permute(2, 0, 1)[None] / 255
    view = InputView.of(task.source.camera)
    drawn = tuple(seen.draw(image) for seen in (view, view.finer(task.source.camera)))

    def encode(coarse: Tensor, fine: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return network.encoder(coarse), network.surface.encoder(fine)

    with torch.cuda.device(device):
        recorded = record(encode, drawn)

    def run(watch: Stopwatch) -> None:
        recorded.graph.replay()
        watch.lap("encoders")

    return measure_laps(run, device, effort, "lower bound: encoders")["encoders"]


@torch.inference_mode()
def rasterizer_bound(task: Task, scene: DynamicGaussians, effort: Effort) -> Spread:
    """The rasterizer on all views of the task, of the scene without motion; preparing its inputs is not timed."""
    views = task_views(task, scene)

    def run(watch: Stopwatch) -> None:
        rasterize(views)
        watch.lap("rasterizer")

    return measure_laps(run, scene.means.device, effort, "lower bound: rasterizer")["rasterizer"]


def task_views(task: Task, scene: DynamicGaussians) -> GaussianViews:
    """Views of all frames of all futures, of the scene without motion."""
    poses = np.tile(task.path.at(task.times), (task.samples, 1, 1))
    return still_views(scene, poses, task.source.camera)
