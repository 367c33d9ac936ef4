# SPDX-License-Identifier: Apache-2.0
"""Forecaster: the only door to the algorithm. An image, its intrinsics and a camera path in, a forecast out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pixel4d_ros.camera import Camera, CameraPath, check_poses
from pixel4d_ros.errors import DeviceError, WeightsError
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.predictor import Predictor
from pixel4d_ros.rendering.moved_scene import advance, color_spread, distinct_views, render, runs
from pixel4d_ros.rendering.streams import HostBuffer, StreamPool, pin_memory, to_host
from pixel4d_ros.scene import DynamicGaussians
from pixel4d_ros.two_view.object_motion import with_measured_motion
from pixel4d_ros.two_view.reference_view import ReferenceView

__all__ = ["DeviceError", "Forecast", "Forecaster", "RenderedPaths", "WeightsError"]

VIEWS_PER_CALL = 28  # rendered at once: bounds memory
MIN_SIDE = 32  # pixels


@dataclass(frozen=True)
class Forecast:
    """What the camera will see: S sampled futures of T frames."""

    times: FloatArray  # (T,) s after the source image
    T_source_camera: FloatArray  # (T, 4, 4)
    frames: NDArray[np.uint8]  # (S, T, H, W, 3) RGB; sample 0 is the most likely future
    depth: NDArray[np.float32]  # (S, T, H, W) metres
    uncertainty: NDArray[np.float32]  # (T, H, W) 0..1, read-only: standard deviation of the colours over the samples
    confidence: NDArray[np.float32]  # (S, T) 0..1: share of pixels that come mostly from what the image showed
    scene: DynamicGaussians  # on the forecaster's device


@dataclass(frozen=True)
class RenderedPaths:
    """Rendered views of a scene: one future, T times, or P paths of T times each."""

    frames: NDArray[np.uint8]  # (T, H, W, 3) or (P, T, H, W, 3) RGB
    depth: NDArray[np.float32]  # (..., H, W) metres, inf where nothing is seen; of length 0 where not asked for
    confidence: NDArray[np.float32]  # (...) 0..1: share of pixels that come mostly from what the image showed


class Forecaster:
    """The method in three steps: predict a moving scene, move it, render it along the path."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.device = predictor.device
        self.weights_hash = predictor.weights_hash

    @property
    def path(self) -> str:
        """How predictions are computed: by a CUDA graph in half precision, or operation by operation."""
        return self.predictor.path

    @staticmethod
    def load(weights: str | Path | None = None, device: str = "auto", fast: bool = True) -> Forecaster:
        """Load weights (None: the shipped ones) onto a device ("auto": CUDA if there is one).

        fast=False computes operation by operation in float32, which is what the fast path of a GPU must agree with.
        Raises WeightsError, DeviceError.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        chosen = _checked_device(device)
        with _memory_errors(chosen):
            return Forecaster(Predictor.load(weights, chosen, fast))

    def warm_up(self) -> None:
        """Forecast two futures of nothing: first use compiles kernels and allocates, which a robot wants behind it."""
        path = CameraPath.constant_twist((0, 0, 1), (0, 0, 0), 1.0)
        K = np.array([[128.0, 0, 64], [0, 128, 32], [0, 0, 1]])
        self.forecast(np.zeros((64, 128, 3), np.uint8), K, path, np.ones(1), num_samples=2)

    def predict(
        self,
        image: ArrayLike,
        K: ArrayLike,
        num_samples: int = 1,
        seed: int = 0,
        depth: ArrayLike | None = None,
        speed: float | None = None,
        reference: ReferenceView | None = None,
    ) -> DynamicGaussians:
        """Image (H, W, 3) uint8 RGB and K (3, 3) -> scene in the camera's optical frame, with num_samples futures.

        Three measurements help where there are any: depth (h, w) along the optical axis in metres, registered to the
        image, of any size, 0 or not finite where unknown; the camera's own forward speed in m/s, which says much
        about the traffic around it; and a reference image, which shows what moves and how. Raises ValueError for bad
        input, DeviceError when the device's memory does not suffice.
        """
        pixels = check_image(image)
        camera = Camera(np.asarray(K, np.float64), pixels.shape[1], pixels.shape[0])
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        if speed is not None and not np.isfinite(speed):
            raise ValueError(f"the speed must be a number of metres per second, got {speed}")
        measured = None if depth is None else check_depth(depth)
        with _memory_errors(self.device):
            sensor = None if measured is None else pin_memory(measured, self.device)
            scene = self.predictor.predict(pin_memory(pixels, self.device), camera, num_samples, seed, sensor, speed)
            if reference is not None:
                with torch.inference_mode():
                    scene = with_measured_motion(scene, pixels, reference)
        return scene

    def render(
        self,
        scene: DynamicGaussians,
        T_source_camera: ArrayLike,
        times: ArrayLike,
        K: ArrayLike | None = None,
        size: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Frames (T, H, W, 3) uint8 of the scene at times (T,), seen from T_source_camera (T, 4, 4).

        Several camera paths (P, T, 4, 4) at the same times give (P, T, H, W, 3). K (3, 3) and size (width, height)
        default to the source camera's; K alone keeps the source's size, size alone resamples the source's view.
        """
        return self._render(scene, T_source_camera, times, K, size, with_depth=False).frames

    def views(
        self,
        scene: DynamicGaussians,
        T_source_camera: ArrayLike,
        times: ArrayLike,
        K: ArrayLike | None = None,
        size: tuple[int, int] | None = None,
        with_depth: bool = True,
    ) -> RenderedPaths:
        """What render gives, with confidence and, unless with_depth is False, depth.

        Besides the result it takes memory for a few views only.
        """
        return self._render(scene, T_source_camera, times, K, size, with_depth)

    def forecast(
        self,
        image: ArrayLike,
        K: ArrayLike,
        path: CameraPath,
        times: ArrayLike,
        num_samples: int = 1,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        depth: ArrayLike | None = None,
        reference: ReferenceView | None = None,
    ) -> Forecast:
        """Forecast what the camera will see along the path at times (T,) seconds after the image.

        size (width, height) of the frames; None: the image's. depth, reference and errors as predict has them; the
        speed is that of the path at its start.
        """
        scene = self.predict(image, K, num_samples, seed, depth, path.speed(), reference)
        return self.forecast_scene(scene, path, times, num_samples, size)

    def forecast_scene(
        self,
        scene: DynamicGaussians,
        path: CameraPath,
        times: ArrayLike,
        num_samples: int = 1,
        size: tuple[int, int] | None = None,
    ) -> Forecast:
        """Render a predicted scene and its sampled futures along the path, as forecast does."""
        poses, times = path.at(times), np.atleast_1d(np.asarray(times, np.float64))
        camera = _view_camera(scene, None, size)
        frames, depths, confidence, uncertainty = self._collect(
            [scene.sample(k) for k in range(num_samples)], poses, times, camera
        )
        return Forecast(times, poses, frames, depths, uncertainty, confidence, scene)

    def _render(
        self,
        scene: DynamicGaussians,
        T_source_camera: ArrayLike,
        times: ArrayLike,
        K: ArrayLike | None,
        size: tuple[int, int] | None,
        with_depth: bool,
    ) -> RenderedPaths:
        """What views gives; without depth, which nobody asked for, there is less to compute and to copy."""
        camera = _view_camera(scene, K, size)
        poses, instants = np.asarray(T_source_camera, np.float64), np.atleast_1d(np.asarray(times, np.float64))
        if not np.isfinite(instants).all():
            raise ValueError(f"the times to render must be finite, got {instants.tolist()}")
        leading = poses.shape[:-2]
        if poses.ndim == 3 and len(poses) != len(instants):
            raise ValueError(f"rendering needs one pose per time, got {len(poses)} poses and {len(instants)} times")
        if poses.ndim == 4:
            if poses.shape[1] != len(instants):
                raise ValueError(f"each path needs one pose per time, got {poses.shape[1]} and {len(instants)} times")
            poses = poses.reshape(-1, *poses.shape[2:])
        frames, depths, confidence, _ = self._collect([scene], poses, instants, camera, with_depth)
        return RenderedPaths(
            frames.reshape(*leading, *frames.shape[2:]),
            depths.reshape(*(leading if with_depth else (0,)), *depths.shape[2:]),
            confidence.reshape(leading),
        )

    @torch.inference_mode()
    def _collect(
        self,
        futures: list[DynamicGaussians],
        poses: FloatArray,
        times: FloatArray,
        camera: Camera,
        with_depth: bool = True,
        exact: bool = False,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Frames (S, V, H, W, 3), depth (S, V, H, W), confidence (S, V) and uncertainty (V, H, W) on the host.

        The poses (V, 4, 4) are at times (T,) over and over.
        """
        poses = check_poses(poses)
        if len(poses) == 0:
            raise ValueError("rendering needs at least one camera pose")
        s, v, height, width = len(futures), len(poses), camera.height, camera.width
        frames = HostBuffer((s * v, height, width, 3), torch.uint8, self.device)
        depths = HostBuffer((s * v if with_depth else 0, height, width), torch.float32, self.device)
        uncertainty = HostBuffer((v if s > 1 else 0, height, width), torch.float32, self.device)
        with _memory_errors(self.device):
            moved_scene = advance(futures, times, exact)
        instants = np.arange(v) % len(times)
        kept, source = distinct_views(poses, instants)
        starts = range(0, len(kept), VIEWS_PER_CALL)
        known, lanes = [], StreamPool(self.device, len(starts))
        for start in starts:
            some = kept[start : start + VIEWS_PER_CALL]
            with lanes.take_turn(), _memory_errors(self.device):
                part, shown = [], list(runs(source, start, len(some)))
                drawn = render(moved_scene, poses[some], instants[some], camera, with_depth)
                for k, future in enumerate(drawn):
                    part.append(future)
                    with lanes.copying():  # while the next future is rendered
                        for place, views in shown:
                            frames.put(k * v + place, future.frames[views])
                            if future.depth is not None:
                                depths.put(k * v + place, future.depth[views])
                known.append(torch.stack([future.confidence for future in part]))
                if s > 1:
                    spread = color_spread(part)
                    with lanes.copying():
                        for place, views in shown:
                            uncertainty.put(place, spread[views])
        lanes.join()
        confidence, complete = to_host(torch.cat(known, 1), moved_scene.complete)
        if not complete:  # more moves than there was room for
            return self._collect(futures, poses, times, camera, with_depth, exact=True)
        return (
            frames.array().reshape(s, v, height, width, 3),
            depths.array().reshape(s if with_depth else 0, v, height, width),
            confidence[:, source],
            uncertainty.array() if s > 1 else np.broadcast_to(np.float32(0), (v, height, width)),
        )


def _view_camera(scene: DynamicGaussians, K: ArrayLike | None, size: tuple[int, int] | None) -> Camera:
    """The camera to render with: the source's, as far as K (3, 3) and size (width, height) do not say otherwise."""
    source = scene.camera
    if source is None:
        if K is None or size is None:
            raise ValueError("this scene does not know its source camera: give K and size")
        return Camera(np.asarray(K), *size)
    width, height = size or (source.width, source.height)
    return source.resized(width, height) if K is None else Camera(np.asarray(K), width, height)


def _checked_device(device: str) -> torch.device:
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N") from error
    if chosen.type not in ("cpu", "cuda"):
        raise DeviceError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device {device} asked for, but torch sees no CUDA GPU: use device auto or cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device {device} asked for, but torch sees only {torch.cuda.device_count()} of them")
    return chosen


def check_image(image: ArrayLike) -> NDArray[np.uint8]:
    """Return an image as contiguous (H, W, 3) uint8, or raise ValueError with the cause and the cure."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"the image must be (H, W, 3) uint8 RGB, got {pixels.shape} {pixels.dtype}")
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise ValueError(
            f"the image must be at least {MIN_SIDE} pixels on each side, got {pixels.shape[1]}x{pixels.shape[0]}"
        )
    return np.require(pixels, requirements=["C", "W"])  # torch wants writable memory


def check_depth(depth: ArrayLike) -> NDArray[np.float32]:
    """Return a depth map as contiguous (h, w) float32 metres, or raise ValueError with the cause and the cure."""
    metres = np.asarray(depth)
    if metres.ndim != 2 or metres.size == 0 or not np.issubdtype(metres.dtype, np.floating):
        raise ValueError(f"depth must be (h, w) floating point metres, got {metres.shape} {metres.dtype}")
    return np.require(metres, np.float32, ["C", "W"])


@contextmanager
def _memory_errors(device: torch.device) -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise DeviceError(
            f"not enough memory on {device}: use smaller images, fewer steps or samples, or device cpu"
        ) from error
