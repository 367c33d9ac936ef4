"""Forecast source frames of a clip along the true camera path and compare with what really happened."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.metrics import DepthErrors, depth_errors, depth_ratio, psnr, ssim
from pixel4d_ros.evaluation.protocol import Protocol
from pixel4d_ros.rotations import FloatArray, rigid_inverse

if TYPE_CHECKING:
    from pixel4d_ros.forecaster import Forecaster
    from pixel4d_ros.scene import DynamicGaussians


@dataclass(frozen=True)
class SourceScore:
    """The scores of one source: K sampled futures, T frames of which frame 0 is the source image itself."""

    stamp: float  # s, of the source image
    times: FloatArray  # (T,) s after the source image
    psnr: FloatArray  # (K, T) dB
    ssim: FloatArray  # (K, T)
    repeat_psnr: FloatArray  # (T,) dB, of repeating the source image
    repeat_ssim: FloatArray  # (T,)
    depth: DepthErrors | None  # frame 0 against the sensor, in metres; None without sensor depth
    scaled_depth: DepthErrors | None  # the same after the usual median scaling
    scale: float  # what the camera path's translation was multiplied with
    milliseconds: float  # wall time of the forecast


def score_source(forecaster: Forecaster, window: Clip, protocol: Protocol) -> SourceScore | None:
    """Forecast frame 0 of window along window's poses and score every frame.

    None when the protocol asks for a scale from depth and the source image has no sensor depth.
    """
    times = window.times - window.times[0]
    poses = rigid_inverse(window.poses[0]) @ window.poses
    started = time.perf_counter()
    scale = 1.0
    if protocol.static or protocol.align_scale:
        scene, depth = _predict(forecaster, window, protocol)
        if protocol.align_scale:
            scale = float("nan") if window.depth is None else depth_ratio(depth, window.depth[0])
            if not np.isfinite(scale):
                return None
            poses = scaled_translation(poses, scale)
        size = window.images.shape[2], window.images.shape[1]
        futures = [scene.sample(k) for k in range(scene.num_samples)]
        frames = np.stack([forecaster.render(future, poses, times, window.K, size) for future in futures])
    else:
        forecast = forecaster.forecast(
            window.images[0],
            window.K,
            CameraPath(times, poses),
            times,
            num_samples=protocol.samples,
            seed=protocol.seed,
        )
        frames, depth = forecast.frames, forecast.depth[0, 0]
    milliseconds = 1000 * (time.perf_counter() - started)
    truth = None if window.depth is None else window.depth[0]
    repeat = np.broadcast_to(window.images[0], window.images.shape)
    return SourceScore(
        stamp=float(window.times[0]),
        times=times,
        psnr=np.array([_per_frame(psnr, f, window.images) for f in frames]),
        ssim=np.array([_per_frame(ssim, f, window.images) for f in frames]),
        repeat_psnr=_per_frame(psnr, repeat, window.images),
        repeat_ssim=_per_frame(ssim, repeat, window.images),
        depth=None if truth is None else depth_errors(depth, truth),
        scaled_depth=None if truth is None else depth_errors(depth, truth, median_scaled=True),
        scale=scale,
        milliseconds=milliseconds,
    )


def evaluate(forecaster: Forecaster, windows: Iterable[Clip], protocol: Protocol) -> Iterator[SourceScore]:
    """Score window after window, holding one forecast at a time. Windows without a score are left out."""
    for window in windows:
        score = score_source(forecaster, window, protocol)
        if score is not None:
            yield score


def without_motion(scene: DynamicGaussians) -> DynamicGaussians:
    """The scene with everything standing still; one future is left."""
    still = scene.velocities.new_zeros(scene.velocities.shape)
    return replace(
        scene, velocities=still, accelerations=still, angular_velocities=still, angular_accelerations=still, futures=()
    )


def scaled_translation(poses: FloatArray, scale: float) -> FloatArray:
    """Poses (T, 4, 4) whose translations are multiplied by scale."""
    scaled = poses.copy()
    scaled[:, :3, 3] *= scale
    return scaled


def _predict(forecaster: Forecaster, window: Clip, protocol: Protocol) -> tuple[DynamicGaussians, NDArray[np.float32]]:
    """The scene of the source image and its depth (H, W), from one pass of the network."""
    samples = 1 if protocol.static else protocol.samples
    forecast = forecaster.forecast(
        window.images[0], window.K, CameraPath.still(), np.zeros(1), num_samples=samples, seed=protocol.seed
    )
    scene = without_motion(forecast.scene) if protocol.static else forecast.scene
    return scene, forecast.depth[0, 0]


def _per_frame(metric: Any, frames: NDArray[np.uint8], truth: NDArray[np.uint8]) -> FloatArray:
    return np.array([metric(a, b) for a, b in zip(frames, truth, strict=True)])
