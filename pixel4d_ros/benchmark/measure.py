# SPDX-License-Identifier: Apache-2.0
"""The measurements at each image size."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from pixel4d_ros.benchmark.lower_bounds import encoder_bound, rasterizer_bound
from pixel4d_ros.benchmark.node_times import Feed, NodeTimes
from pixel4d_ros.benchmark.results import (
    Agreement,
    Benchmark,
    CandidateTimes,
    ForecastTimes,
    LowerBounds,
    Machine,
    SizeTimes,
)
from pixel4d_ros.benchmark.source_image import SourceImage, candidate_poses, forecast_times, source_image
from pixel4d_ros.benchmark.stages import Task, staged_forecast, whole_forecast
from pixel4d_ros.benchmark.statistics import Spread
from pixel4d_ros.benchmark.stopwatch import Effort, Memory, measure_laps, measure_wall, peak_memory
from pixel4d_ros.evaluation.environment import device_name, environment
from pixel4d_ros.evaluation.metrics import psnr
from pixel4d_ros.evaluation.tables import counted
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.scene import DynamicGaussians

NO_LOWER_BOUNDS = "lower bounds are measured on CUDA only: the encoders as a CUDA graph, and gsplat"

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class BenchmarkPlan:
    """What is measured."""

    sizes: tuple[tuple[int, int], ...]
    frames: tuple[int, ...]  # the first with all samples and candidates, the others with the first number of samples
    samples: tuple[int, ...]
    candidates: tuple[int, ...]
    effort: Effort
    weights: Path | None = None
    device: str = "auto"
    image: Path | None = None
    motion_from_flow: bool = False
    node_seconds: float | None = None  # measure the node for so long, then its service, and nothing else
    node_rate: float = 30.0  # images per second

    def cases(self) -> list[tuple[int, int]]:
        """(frames, samples) of the forecasts."""
        first = [(self.frames[0], samples) for samples in self.samples]
        return first + [(frames, self.samples[0]) for frames in self.frames[1:]]


@dataclass(frozen=True)
class _FastPath:
    """Measurements of the fast path for one case."""

    total: Spread
    stages: dict[str, Spread]
    memory: Memory | None
    frames: Frames


def run_benchmark(plan: BenchmarkPlan, measure_node: Callable[[Feed], NodeTimes] | None = None) -> Benchmark:
    """Measure everything in the plan. Raises ValueError, WeightsError, DeviceError.

    measure_node measures the node where the plan asks for it: ros/benchmark/node.py's, as nothing here imports ROS.
    """
    forecaster = Forecaster.load(plan.weights, plan.device)
    device, weights = forecaster.device, forecaster.weights_hash
    path = forecaster.path
    sources = [source_image(plan.image, size, device, plan.motion_from_flow) for size in plan.sizes]
    del forecaster
    if plan.node_seconds is not None:
        if measure_node is None:
            raise ValueError("measuring the node needs ROS: pass measure_node")
        nodes = tuple(measure_node(_feed(plan, plan.node_seconds, source)) for source in sources)
        return Benchmark(machine(device), path, weights, (), nodes)
    found = []
    for source in tqdm(sources, "benchmark", unit="size", leave=False):
        times, path = measure_size(plan, source)
        found.append(times)
    notes = () if device.type == "cuda" else (NO_LOWER_BOUNDS,)
    return Benchmark(machine(device), path, weights, tuple(found), notes=notes)


def _feed(plan: BenchmarkPlan, seconds: float, source: SourceImage) -> Feed:
    """The node's input for one image size."""
    frames, samples = plan.cases()[0]
    return Feed(
        source=source,
        frames=frames,
        samples=samples,
        seconds=seconds,
        rate=plan.node_rate,
        device=plan.device,
        weights=plan.weights,
        candidates=plan.candidates,
        effort=plan.effort,
    )


def measure_size(plan: BenchmarkPlan, source: SourceImage) -> tuple[SizeTimes, str]:
    """Measure everything at one image size; also returns the forecaster's path.

    Forecasters are made anew, one after another, so that the memory of one size or path does not count for another.
    """
    _tidy()
    forecaster = Forecaster.load(plan.weights, plan.device)
    device = forecaster.device
    tasks = [Task(source, frames, samples) for frames, samples in plan.cases()]
    fast = [_measure(forecaster, task, plan.effort) for task in tasks]
    scene = forecaster.predict(source.pixels, source.camera.K, speed=tasks[0].path.speed())
    candidates = tuple(_measure_candidates(forecaster, scene, n, plan) for n in plan.candidates)
    path, lower_bounds = forecaster.path, _lower_bounds(forecaster, tasks, plan)
    gaussians = len(scene)
    del forecaster, scene
    _tidy()
    eager = Forecaster.load(plan.weights, str(device), fast=False)
    forecasts = tuple(
        ForecastTimes(
            task.samples, task.frames, f.total, f.stages, f.memory, bound, _agreement(f.frames, _frames(eager, task))
        )
        for task, f, bound in zip(tasks, fast, lower_bounds, strict=True)
    )
    size = (source.camera.width, source.camera.height)
    return SizeTimes(size, source.origin, gaussians, forecasts, candidates), path


def _measure(forecaster: Forecaster, task: Task, effort: Effort) -> _FastPath:
    device, name = forecaster.device, _name(task)
    with peak_memory(device) as peak:
        total = measure_wall(lambda: whole_forecast(forecaster, task), device, effort, f"{name}: whole")
        memory = peak()
    stages = measure_laps(lambda watch: staged_forecast(forecaster, task, watch), device, effort, f"{name}: stages")
    return _FastPath(total, stages, memory, _frames(forecaster, task))


def _measure_candidates(
    forecaster: Forecaster, scene: DynamicGaussians, count: int, plan: BenchmarkPlan
) -> CandidateTimes:
    times = forecast_times(plan.frames[0])
    poses = candidate_poses(count, times)
    with peak_memory(forecaster.device) as peak:
        total = measure_wall(
            lambda: forecaster.render(scene, poses, times), forecaster.device, plan.effort, f"{count} trajectories"
        )
        return CandidateTimes(count, len(times), total, peak())


def _lower_bounds(forecaster: Forecaster, tasks: list[Task], plan: BenchmarkPlan) -> list[LowerBounds | None]:
    """One per task; None without CUDA."""
    if forecaster.device.type != "cuda":
        return [None] * len(tasks)
    source = tasks[0].source
    encoder = encoder_bound(plan.weights, tasks[0], forecaster.device, plan.effort)
    scene = forecaster.predict(source.pixels, source.camera.K)
    return [LowerBounds(encoder, rasterizer_bound(task, scene, plan.effort)) for task in tasks]


def _frames(forecaster: Forecaster, task: Task) -> Frames:
    """The frames (S, T, H, W, 3) of the task, with the network's own motion.

    A comparison of two images decides what moves, which the last bit of a depth may change: no measure of precision.
    """
    source, speed = task.source, task.path.speed()
    scene = forecaster.predict(
        source.pixels,
        source.camera.K,
        task.samples,
        speed=speed,
        reference=source.reference,
        measure_motion=False,
    )
    return forecaster.forecast_scene(scene, task.path, task.times, task.samples).frames


def _agreement(frames: Frames, reference: Frames) -> Agreement:
    values = [psnr(one, other) for one, other in zip(_flat(frames), _flat(reference))]
    return Agreement(min(values), float(np.mean(values)))


def _flat(frames: Frames) -> Frames:
    return frames.reshape(-1, *frames.shape[2:])


def _name(task: Task) -> str:
    camera = task.source.camera
    return f"{camera.width}x{camera.height}, {counted(task.frames, 'frame')}, {counted(task.samples, 'sample')}"


def _tidy() -> None:
    """Free unreferenced memory, that of CUDA graphs too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def machine(device: torch.device) -> Machine:
    """This machine and what is installed on it."""
    here = environment()
    return Machine(
        device=device_name(device),
        torch=here.torch,
        cuda=torch.version.cuda if device.type == "cuda" else None,
        gsplat=_version("gsplat"),
        python=here.python,
        system=here.system,
        cores=here.cores,
        package=here.package,
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
