"""Forecaster: the only door to the algorithm. An image, its intrinsics and a camera path in, a forecast out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pixel4d_ros.camera import Camera, CameraPath, check_poses
from pixel4d_ros.errors import DeviceError, WeightsError
from pixel4d_ros.predictor import Predictor
from pixel4d_ros.rendering import GaussianViews, rasterize
from pixel4d_ros.rotations import FloatArray, rigid_inverse
from pixel4d_ros.scene import DynamicGaussians, moved_gaussians

__all__ = ["DeviceError", "Forecast", "Forecaster", "Views", "WeightsError"]

VIEWS_PER_CALL = 28  # rendered at once: bounds memory
MIN_SIDE = 32  # pixels


@dataclass(frozen=True)
class Forecast:
    """What the camera will see: S sampled futures of T frames."""

    times: FloatArray  # (T,) s after the source image
    T_source_camera: FloatArray  # (T, 4, 4)
    frames: NDArray[np.uint8]  # (S, T, H, W, 3) RGB; sample 0 is the most likely future
    depth: NDArray[np.float32]  # (S, T, H, W) metres
    uncertainty: NDArray[np.float32]  # (T, H, W) 0..1: standard deviation of the colours over the samples
    confidence: NDArray[np.float32]  # (S, T) 0..1: share of pixels that come mostly from what the image showed
    scene: DynamicGaussians  # on the forecaster's device


@dataclass(frozen=True)
class Views:
    """Rendered views of a scene: one future, T times, or P paths of T times each."""

    frames: NDArray[np.uint8]  # (T, H, W, 3) or (P, T, H, W, 3) RGB
    depth: NDArray[np.float32]  # (..., H, W) metres, inf where nothing is seen
    confidence: NDArray[np.float32]  # (...) 0..1: share of pixels that come mostly from what the image showed


class Forecaster:
    """The method in three steps: predict a moving scene, move it, render it along the path."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.device = predictor.device
        self.weights_hash = predictor.weights_hash

    @staticmethod
    def load(weights: str | Path | None = None, device: str = "auto") -> Forecaster:
        """Load weights (None: the shipped ones) onto a device ("auto": CUDA if there is one).

        Raises WeightsError, DeviceError.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        chosen = _checked_device(device)
        with _memory_errors(chosen):
            return Forecaster(Predictor.load(weights, chosen))

    def warm_up(self) -> None:
        """Forecast once from nothing: first use compiles kernels and allocates, which a robot wants behind it."""
        K = np.array([[128.0, 0, 64], [0, 128, 32], [0, 0, 1]])
        self.forecast(np.zeros((64, 128, 3), np.uint8), K, CameraPath.still(), np.zeros(1))

    def predict(
        self,
        image: ArrayLike,
        K: ArrayLike,
        num_samples: int = 1,
        seed: int = 0,
        depth: ArrayLike | None = None,
        speed: float | None = None,
    ) -> DynamicGaussians:
        """Image (H, W, 3) uint8 RGB and K (3, 3) -> scene in the camera's optical frame, with num_samples futures.

        Two measurements help where there are any: depth (h, w) along the optical axis in metres, registered to the
        image, of any size, 0 or not finite where unknown; and the camera's own forward speed in m/s, which says much
        about the traffic around it. Raises ValueError for bad input, DeviceError when the device's memory does not
        suffice.
        """
        pixels = check_image(image)
        camera = Camera(np.asarray(K, np.float64), pixels.shape[1], pixels.shape[0])
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        if speed is not None and not np.isfinite(speed):
            raise ValueError(f"the speed must be a number of metres per second, got {speed}")
        measured = None if depth is None else check_depth(depth)
        with _memory_errors(self.device):
            tensor = torch.from_numpy(pixels).to(self.device).permute(2, 0, 1).float() / 255
            sensor = None if measured is None else torch.from_numpy(measured).to(self.device)
            return self.predictor.predict(tensor, camera, num_samples, seed, sensor, speed)

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
        return self.views(scene, T_source_camera, times, K, size).frames

    @torch.inference_mode()
    def views(
        self,
        scene: DynamicGaussians,
        T_source_camera: ArrayLike,
        times: ArrayLike,
        K: ArrayLike | None = None,
        size: tuple[int, int] | None = None,
    ) -> Views:
        """What render gives, with depth and confidence; besides the result it takes memory for a few views only."""
        if scene.camera is None and (K is None or size is None):
            raise ValueError("this scene does not know its source camera: give K and size")
        if K is None:
            assert scene.camera is not None
            K = (scene.camera if size is None else scene.camera.resized(*size)).K
        if size is None:
            assert scene.camera is not None
            size = (scene.camera.width, scene.camera.height)
        poses, instants = np.asarray(T_source_camera, np.float64), np.atleast_1d(np.asarray(times, np.float64))
        leading = poses.shape[:-2]
        if poses.ndim == 4:
            if poses.shape[1] != len(instants):
                raise ValueError(f"each path needs one pose per time, got {poses.shape[1]} and {len(instants)} times")
            poses, instants = poses.reshape(-1, *poses.shape[2:]), np.tile(instants, len(poses))
        if len(poses) == 0:
            raise ValueError("rendering needs at least one camera pose")
        parts = [
            (_to_bytes(rgb), depth.cpu().numpy(), (seen > 0.5).float().mean((1, 2)).cpu().numpy())
            for rgb, depth, seen in self._views(scene, poses, instants, K, size)
        ]
        frames, depth, confidence = (np.concatenate(part) for part in zip(*parts))
        return Views(
            frames.reshape(*leading, *frames.shape[1:]),
            depth.reshape(*leading, *depth.shape[1:]),
            confidence.reshape(leading).clip(0, 1),
        )

    @torch.inference_mode()
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
    ) -> Forecast:
        """Forecast what the camera will see along the path at times (T,) seconds after the image.

        size (width, height) of the frames; None: the image's. depth and errors as predict has them; the speed is that
        of the path at its start.
        """
        scene = self.predict(image, K, num_samples, seed, depth, path.speed())
        height, width = np.shape(image)[:2]
        camera = Camera(np.asarray(K, np.float64), width, height).resized(*(size or (width, height)))
        poses = path.at(times)
        shape = (camera.width, camera.height)
        futures = [self.views(scene.sample(k), poses, times, camera.K, shape) for k in range(num_samples)]
        frames = np.stack([future.frames for future in futures])
        spread = frames.std(0, dtype=np.float32).mean(-1) / 255 if num_samples > 1 else np.zeros(frames.shape[1:4])
        return Forecast(
            np.asarray(times, np.float64),
            poses,
            frames,
            np.stack([future.depth for future in futures]),
            spread.astype(np.float32),
            np.stack([future.confidence for future in futures]),
            scene,
        )

    def _views(
        self,
        scene: DynamicGaussians,
        T_source_camera: ArrayLike,
        times: ArrayLike,
        K: ArrayLike,
        size: tuple[int, int],
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Colours (V, H, W, 3), depth and share seen before (V, H, W), some views at a time."""
        times = np.atleast_1d(np.asarray(times, np.float64))
        poses = check_poses(T_source_camera)
        if len(poses) != len(times):
            raise ValueError(f"rendering needs one pose per time, got {len(poses)} poses and {len(times)} times")
        T = torch.from_numpy(rigid_inverse(poses)).float().to(self.device)
        intrinsics = torch.tensor(Camera(np.asarray(K), *size).K, dtype=torch.float32, device=self.device)
        observed = torch.ones_like(scene.opacities) if scene.observed is None else scene.observed
        features = torch.cat((scene.colors, observed[:, None]), 1)
        for start in range(0, len(times), VIEWS_PER_CALL):
            means, quaternions = _moved(scene, times[start : start + VIEWS_PER_CALL])
            v = len(means)
            with _memory_errors(self.device):
                view = rasterize(
                    GaussianViews(
                        means,
                        quaternions,
                        scene.scales.expand(v, -1, -1),
                        scene.opacities.expand(v, -1),
                        features.expand(v, -1, -1),
                        T[start : start + v],
                        intrinsics.expand(v, 3, 3),
                        size,
                    )
                )
            yield view.features[..., :3], view.depth, view.features[..., 3]


def _moved(scene: DynamicGaussians, times: FloatArray) -> tuple[Tensor, Tensor]:
    """Means (V, N, 3) and quaternions (V, N, 4) at V times.

    Only what moves is computed, and nothing is copied if nothing does.
    """
    v = len(times)
    means, quaternions = scene.means.expand(v, -1, -1), scene.quaternions.expand(v, -1, -1)
    moving = torch.nonzero(scene.object_ids > 0)[:, 0]
    if len(moving) == 0:
        return means, quaternions
    movers = scene.select(moving)
    t = torch.tensor(times, dtype=means.dtype, device=means.device)[:, None, None]
    moved = moved_gaussians(movers.means, movers.quaternions, scene.centroids[movers.object_ids], movers.motion, t)
    means, quaternions = means.clone(), quaternions.clone()
    means[:, moving], quaternions[:, moving] = moved
    return means, quaternions


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


def _to_bytes(rgb: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = (rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return pixels


@contextmanager
def _memory_errors(device: torch.device) -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise DeviceError(
            f"not enough memory on {device}: use smaller images, fewer steps or samples, or device cpu"
        ) from error
