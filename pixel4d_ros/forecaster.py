# SPDX-License-Identifier: Apache-2.0
"""Forecaster: the method of Pixel-to-4D (arXiv 2601.00678) in three steps.

    predict   image (H, W, 3), K (3, 3)  ->  DynamicGaussians: a scene at t = 0 with S sampled motions   predictor/
    advance   scene, T times             ->  MovedScene: where its Gaussians are at each time            rendering/
    render    T camera poses             ->  S x T frames, depth maps and confidences on the host        rendering/

`Forecaster.forecast` does all three. For several paths through one scene, call `predict`, then `forecast_scene`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pixel4d_ros.camera import Camera, CameraPath
from pixel4d_ros.checks import (
    check_camera,
    check_depth,
    check_device,
    check_image,
    check_sampling,
    check_views,
    memory_errors,
)
from pixel4d_ros.errors import DeviceError, WeightsError
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.predictor import Predictor
from pixel4d_ros.rendering.host_rendering import HostRendering, render_to_host
from pixel4d_ros.rendering.moved_scene import advance
from pixel4d_ros.rendering.streams import pin_memory
from pixel4d_ros.scene import DynamicGaussians
from pixel4d_ros.two_view.moving_probability import with_network_probability
from pixel4d_ros.two_view.reference_view import ReferenceView

if TYPE_CHECKING:  # numba takes half a second to import
    from pixel4d_ros.two_view.two_images import MeasuredFlow

__all__ = ["DeviceError", "Forecast", "Forecaster", "RenderedPaths", "WeightsError"]


@dataclass(frozen=True)
class Forecast:
    """What the camera will see: S sampled futures of T frames."""

    times: FloatArray  # (T,) seconds after the source image
    T_source_camera: FloatArray  # (T, 4, 4)
    frames: NDArray[np.uint8]  # (S, T, H, W, 3) RGB; sample 0 is the most likely future
    depth: NDArray[np.float32]  # (S, T, H, W) metres, inf where nothing is visible
    uncertainty: NDArray[np.float32]  # (T, H, W) 0..1, read-only: standard deviation of the colours over the samples
    confidence: NDArray[np.float32]  # (S, T) 0..1: share of pixels that come mostly from what the image showed
    scene: DynamicGaussians  # on the forecaster's device


@dataclass(frozen=True)
class RenderedPaths:
    """Views of a scene along one camera path of T poses, or along P paths of T poses each."""

    frames: NDArray[np.uint8]  # (T, H, W, 3) or (P, T, H, W, 3) RGB
    depth: NDArray[np.float32]  # (..., H, W) metres, inf where nothing is visible; of length 0 if not requested
    confidence: NDArray[np.float32]  # (...) 0..1: share of pixels that come mostly from what the image showed


class Forecaster:
    """Predicts a moving scene from one image, moves it, and renders it along a camera path."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.device = predictor.device
        self.weights_hash = predictor.weights_hash
        self.reference_seconds = 0.0  # that the last prediction took to measure motion with a reference image

    @staticmethod
    def load(weights: str | Path | None = None, device: str = "auto", fast: bool = True) -> Forecaster:
        """Load weights (None: those of the package) onto a device ("auto": CUDA if available).

        fast=False predicts operation by operation in float32, the reference for the CUDA graph in half precision.
        Raises WeightsError, DeviceError.
        """
        chosen = check_device(device)
        with memory_errors(chosen):
            return Forecaster(Predictor.load(weights, chosen, fast))

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
        """Forecast what the camera will see along the path at times (T,), in seconds after the image.

        size is (width, height) of the frames, by default the image's. The other arguments and the errors are those of
        predict; speed is the path's at its start.
        """
        scene = self.predict(image, K, num_samples, seed, depth, path.speed(), reference)
        return self.forecast_scene(scene, path, times, num_samples, size)

    def predict(
        self,
        image: ArrayLike,
        K: ArrayLike,
        num_samples: int = 1,
        seed: int = 0,
        depth: ArrayLike | None = None,
        speed: float | None = None,
        reference: ReferenceView | None = None,
        measure_motion: bool = True,
    ) -> DynamicGaussians:
        """Predict a scene in the camera's optical frame from image (H, W, 3) uint8 RGB and K (3, 3) in pixels.

        Three optional measurements improve it. depth (h, w) is metres along the optical axis, registered to the image,
        of any size, 0 or not finite where unknown. speed is the camera's own, forward, in m/s; traffic tends to move
        at a similar speed, a lead vehicle at the same. reference is an earlier image, by which depth is corrected and,
        with measure_motion, object motion is measured: its pose may be slightly wrong, as it is refined on the images.

        The scene has a probability of moving for each object, and each future but the first draws what moves.
        Raises ValueError for bad input, DeviceError when the device runs out of memory.
        """
        pixels = check_image(image)
        camera = check_camera(K, pixels.shape[1], pixels.shape[0])
        check_sampling(num_samples, speed)
        measured = None if depth is None else check_depth(depth)
        with memory_errors(self.device):
            sensor = None if measured is None else pin_memory(measured, self.device)
            source = pin_memory(pixels, self.device)
            arguments = source, camera, num_samples, seed, sensor, speed, reference
            self.reference_seconds = 0.0
            if reference is None or not measure_motion:
                scene = self.predictor.predict(*arguments)
                return with_network_probability(scene, speed, seed)
            # numba takes half a second to import, and not everyone has a reference image.
            from pixel4d_ros.two_view.object_motion import with_motion_from_flow
            from pixel4d_ros.two_view.two_images import MeasuredFlow

            views = reference.views
            # A GPU computes the flow first, then the scene, beside which the CPU refines the flow.
            pending = self.predictor.start_flows(source, views)
            with ThreadPoolExecutor(1) as beside:
                flows = beside.submit(
                    lambda: [MeasuredFlow.of(pixels, view, flow) for view, flow in zip(views, pending.result())]
                )
                scene = self.predictor.predict(*arguments)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # the network's time is not the comparison's
            began = time.monotonic()
            scene = with_motion_from_flow(scene, pixels, reference, seed, flows.result())
            self.reference_seconds = time.monotonic() - began
            return scene

    def measured_flow(self, image: NDArray[np.uint8], references: Sequence[ReferenceView]) -> list[MeasuredFlow]:
        """Optical flow from an image (H, W, 3) uint8 RGB to reference images, at two_view.flow.flow_size of the image.

        Raises ValueError for images of different sizes, or too small, DeviceError when the device runs out of memory.
        """
        from pixel4d_ros.two_view.two_images import MeasuredFlow

        with memory_errors(self.device):
            flows = self.predictor.flows(pin_memory(check_image(image), self.device), references)
        return [MeasuredFlow.of(image, view, flow) for view, flow in zip(references, flows)]

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
        futures = [scene.sample(k) for k in range(num_samples)]
        views = self._move_and_render(futures, times, poses, scene.view_camera(size=size))
        return Forecast(times, poses, views.frames, views.depth, views.uncertainty, views.confidence, scene)

    def _move_and_render(
        self,
        futures: Sequence[DynamicGaussians],
        times: FloatArray,
        poses: FloatArray,
        camera: Camera,
        with_depth: bool = True,
    ) -> HostRendering:
        """Advance S futures to times (T,) and render them from poses (P * T, 4, 4) of P paths."""
        with memory_errors(self.device):
            moved_scene = advance(futures, times)
            return render_to_host(moved_scene, poses, camera, with_depth)

    def views(
        self,
        scene: DynamicGaussians,
        T_source_camera: ArrayLike,
        times: ArrayLike,
        K: ArrayLike | None = None,
        size: tuple[int, int] | None = None,
        with_depth: bool = True,
    ) -> RenderedPaths:
        """Render one future of a scene at times (T,) from T_source_camera (T, 4, 4), or (P, T, 4, 4) for P paths.

        K (3, 3) and size (width, height) default to the source camera's. K alone keeps the source's size, size alone
        resamples the source's view. Rendering is faster without depth. Raises ValueError for bad poses and times.
        """
        poses, instants, leading = check_views(T_source_camera, times)
        views = self._move_and_render([scene], instants, poses, scene.view_camera(K, size), with_depth)
        return RenderedPaths(
            views.frames.reshape(*leading, *views.frames.shape[2:]),
            views.depth.reshape(*(leading if with_depth else (0,)), *views.depth.shape[2:]),
            views.confidence.reshape(leading),
        )

    def render(
        self,
        scene: DynamicGaussians,
        T_source_camera: ArrayLike,
        times: ArrayLike,
        K: ArrayLike | None = None,
        size: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """The frames alone of `views`: (T, H, W, 3) or (P, T, H, W, 3) uint8 RGB."""
        return self.views(scene, T_source_camera, times, K, size, with_depth=False).frames

    def warm_up(self) -> None:
        """Load and compile kernels and allocate the GPU's memory, by a forecast from an empty image.

        The network on the CPU has nothing to compile: there a scene of one Gaussian is rendered, which is much faster.
        """
        from pixel4d_ros.two_view.warm_up import compile_all

        compile_all()
        K = np.array([[128.0, 0, 64], [0, 128, 32], [0, 0, 1]])
        if self.device.type == "cpu":
            scene = _one_gaussian(Camera(K, 128, 64))
        else:
            scene = self.predict(np.zeros((64, 128, 3), np.uint8), K, num_samples=2)
        path = CameraPath.constant_twist((0, 0, 1), (0, 0, 0), 1.0)
        self.forecast_scene(scene, path, np.ones(1), scene.num_samples)

    @property
    def path(self) -> str:
        """How predictions are computed: by a CUDA graph in half precision, or operation by operation."""
        return self.predictor.path


def _one_gaussian(camera: Camera) -> DynamicGaussians:
    """A scene of one Gaussian at rest, 5 m ahead of the camera."""
    none, identity = torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]])
    return DynamicGaussians(
        none + torch.tensor([0, 0, 5.0]), identity, none + 0.1, torch.ones(1), none + 0.5, none, none, none, none,
        object_ids=torch.zeros(1, dtype=torch.int64), centroids=none, observed=torch.ones(1), camera=camera,
    )  # fmt: skip
