# SPDX-License-Identifier: Apache-2.0
"""Predictor: image and intrinsics -> DynamicGaussians, in one network pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.camera import Camera
from pixel4d_ros.predictor import fused_operations
from pixel4d_ros.predictor.background import background_layer
from pixel4d_ros.predictor.checkpoint import load_weights, shipped_weights
from pixel4d_ros.predictor.cuda_graphs import EAGER_PATH, Graphs, concurrently
from pixel4d_ros.predictor.flow_estimator import FlowEstimator, PendingFlows
from pixel4d_ros.predictor.heads import (
    NetworkInput,
    PixelMaps,
    ReferenceInput,
    decode_depth,
    encode_sensor,
    known_speed,
)
from pixel4d_ros.predictor.input_constants import InputConstants
from pixel4d_ros.predictor.lifting import Layer, hidden_layer, visible_layer
from pixel4d_ros.predictor.movable import instance_numbers
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.predictor.objects import MOVING, Objects, find_objects, nearest_peaks
from pixel4d_ros.rendering import triton_kernels
from pixel4d_ros.rendering.streams import pin_memory
from pixel4d_ros.scene import DynamicGaussians, Motion
from pixel4d_ros.two_view.flow import FlowBothWays
from pixel4d_ros.two_view.reference_view import ReferenceView

REACH = 2  # cells of 32 pixels each way over which a sampled latent is averaged
FAST = torch.float16  # what follows the encoder on the fast path, but for the geometry
FAST_PATH = "CUDA graph, float16 after the encoder"


@dataclass(frozen=True)
class _Parts:
    """What the scene of one image is put together from."""

    layers: tuple[Layer, ...]  # from front to back
    objects: Objects
    observed: Tensor  # (N,) as InputConstants has it
    pixels: Tensor  # (N,) as InputConstants has it
    instances: Tensor  # (H, W) int64 of the pixels of the input view, as instance_numbers has them
    depth_correction: Tensor | None  # (N,) of log depth, by a reference image


class Predictor:
    """A trained network and what turns its maps into a scene. Threads that share one take turns."""

    def __init__(
        self, network: Network, device: torch.device, weights_hash: str = "", fast: bool = True, in_place: bool = False
    ) -> None:
        """in_place: the network itself is changed for inference, as its for_inference does; else a copy is."""
        self.device = device
        self.weights_hash = weights_hash
        network = network.to(device)
        self._fast = network.for_inference(FAST) if fast and device.type == "cuda" else None
        self.network = network.for_inference(torch.float32, in_place=in_place)
        self._graphs = Graphs(device)
        self._flow = FlowEstimator(self.network.flow, None if self._fast is None else self._fast.flow, device)
        self._constants: InputConstants | None = None  # of the last camera
        self._turn = Lock()  # a graph's next replay writes over what is not yet copied into a scene

    @property
    def path(self) -> str:
        """Which path runs: FAST_PATH, or EAGER_PATH on the CPU, where it was asked for, and where recording failed."""
        return EAGER_PATH if self._fast is None else FAST_PATH

    @staticmethod
    def load(weights: str | Path | None, device: torch.device, fast: bool = True) -> Predictor:
        """Load weights (None: the shipped ones). Raises WeightsError."""
        with torch.device("meta"):
            network = Network()
        weights_hash = load_weights(network, weights or shipped_weights())
        return Predictor(network, device, weights_hash, fast, in_place=True)

    @torch.inference_mode()
    def predict(
        self,
        image: Tensor,
        camera: Camera,
        num_samples: int,
        seed: int,
        depth: Tensor | None = None,
        speed: float | None = None,
        reference: ReferenceView | None = None,
    ) -> DynamicGaussians:
        """Image (H, W, 3) uint8 RGB -> a scene with num_samples futures, which shares no memory with any other.

        Sample 0 is the prior's mode. depth (h, w) metres, 0 where unknown, the camera's forward speed in m/s, and a
        reference image help where they are known. Image and depth may be on the host (see streams.pin_memory) or on
        the device.
        """
        with self._turn:
            if self._constants is None or not self._constants.fits(camera):
                self._constants = InputConstants(camera, self.device)
            z = None if num_samples == 1 else _latents(*self._constants.latent_shape, num_samples, seed)
            far = None if reference is None else reference.wider or reference
            second = (None, None) if far is None else _reference_tensors(self._constants, far, self.device)
            return _scene(self._run(self._constants, image, known_speed(speed), z, depth, *second), camera)

    def flows(self, image: Tensor, references: Sequence[ReferenceView]) -> list[FlowBothWays]:
        """Flow between an image (H, W, 3) uint8 RGB and reference images, at two_view.flow.flow_size of the image.

        The image may be on the host or on the device. Raises ValueError for images of different sizes, or too small.
        """
        return self.start_flows(image, references).result()

    def start_flows(self, image: Tensor, references: Sequence[ReferenceView]) -> PendingFlows:
        """As flows, but without waiting for a GPU: result() waits."""
        return self._flow.start(image, references)

    def _run(self, constants: InputConstants, *inputs: Tensor | None) -> _Parts:
        """Use the CUDA graph; after any failure other than out-of-memory, use eager mode permanently."""
        network = self._fast
        if network is not None:
            key = (constants.key, *(None if tensor is None else tuple(tensor.shape) for tensor in inputs))
            parts = self._graphs.attempt(key, lambda *tensors: predict_parts(network, constants, *tensors), *inputs)
            if parts is not None:
                return parts
            self._graphs, self._fast = Graphs(self.device), None
        there: list[Any] = [None if t is None else t.to(self.device, non_blocking=True) for t in inputs]
        return predict_parts(self.network, constants, *there)


@lru_cache(maxsize=4)
def _latents(channels: int, height: int, width: int, num_samples: int, seed: int) -> Tensor:
    """Samples of the prior, smooth over the image, so that all parts of an object draw about the same."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.randn(num_samples, channels, height + 2 * REACH, width + 2 * REACH, generator=generator)
    z = F.avg_pool2d(rough, 2 * REACH + 1, 1) * (2 * REACH + 1)  # of unit variance again
    z[0] = 0
    return z[None]


def _reference_tensors(
    constants: InputConstants, reference: ReferenceView, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The reference image, and its K in the finer view beside T_reference_source in canonical metres (1, 3, 7)."""
    fine, image = constants.fine, reference.image
    camera = Camera(reference.K, image.shape[1], image.shape[0]).resized(fine.inner.width, fine.inner.height)
    K = camera.shifted(-fine.left, -fine.top, fine.width, fine.height).K
    T = reference.T_reference_source[:3].copy()
    T[:, 3] /= constants.view.depth_scale
    pixels = np.require(image, requirements=("C", "W"))
    return pin_memory(pixels, device), torch.from_numpy(np.concatenate((K, T), 1)[None].astype(np.float32))


def predict_parts(
    network: Network,
    constants: InputConstants,
    pixels: Tensor,
    speed: Tensor,
    z: Tensor | None = None,
    depth: Tensor | None = None,
    reference: Tensor | None = None,
    reference_pose: Tensor | None = None,
) -> _Parts:
    """All that a scene is made from, see _scene: a computation of fixed shapes that never waits for the device."""
    view, scale, dtype = constants.view, constants.depth_scale, network.precision or torch.float32
    image = pixels.permute(2, 0, 1)[None] / 255
    drawn = view.draw(image)
    source = NetworkInput(
        drawn,
        constants.inside(dtype),
        constants.rays(dtype),
        None if depth is None else encode_sensor(view.place(depth)[None], scale),
        speed,
    )
    fine = NetworkInput(
        drawn if constants.fine is view else constants.fine.draw(image),
        constants.fine_inside(dtype),
        constants.fine_rays(dtype),
        None if depth is None else encode_sensor(constants.fine.place(depth)[None], constants.fine_depth_scale),
        speed,
    )
    second = None
    if reference is not None and reference_pose is not None:
        second = ReferenceInput(
            constants.fine.draw(reference.permute(2, 0, 1)[None] / 255),
            reference_pose[:, :, :3],
            constants.fine_K,
            reference_pose[:, :, 3:],
            constants.always,
        )
    maps, _ = network(
        source,
        fine,
        None if z is None else z.to(dtype),
        reference=second,
        group=lambda objects: nearest_peaks(objects["center"][0, 0], objects["offset"][0], constants.cells),
    )
    objects, *layers = concurrently(
        lambda: _objects(maps, constants),
        lambda: visible_layer(maps.surface, image, constants.grid_K, constants.grid, scale),
        lambda: hidden_layer(maps.surface, drawn, constants.view_K, scale),
        lambda: background_layer(drawn, constants.background),
    )
    correction = None
    if maps.surface.depth_correction is not None:
        visible = constants.grid.sample(maps.surface.depth_correction).flatten()
        correction = F.pad(visible, (0, len(constants.pixels) - len(visible)))
    numbers = instance_numbers(maps.movable, constants.fine_cells)
    instances = F.interpolate(numbers[None, None].float(), (view.height, view.width), mode="nearest-exact")[0, 0].long()
    return _Parts(tuple(layers), objects, constants.observed, constants.pixels, instances, correction)


def _objects(maps: PixelMaps, constants: InputConstants) -> Objects:
    assert maps.nearest_center_ids is not None
    # What is mirrored in the padding is no object.
    logit = maps.static["mobility"][0, 0]
    mobility = torch.sigmoid(logit) * ((logit > MOVING) & constants.seen)
    # An object's place and motion come from the pixels that the camera saw; those at its rim count least.
    opacity = maps.surface.opacity
    confidence = torch.sigmoid(F.avg_pool2d(opacity, opacity.shape[-1] // logit.shape[-1]))[0, 0] * (mobility > 0)
    points = constants.points * (decode_depth(maps.static["depth"])[0, 0] * confidence)
    return find_objects(
        maps.nearest_center_ids, mobility, confidence, points, maps.motion[0].flatten(0, 1), constants.cells
    )


def _scene(parts: _Parts, camera: Camera) -> DynamicGaussians:
    """A scene of its own: the next prediction may write over the parts."""
    joined: dict[str, Any] = {
        field.name: torch.cat([getattr(layer, field.name)[0] for layer in parts.layers]) for field in fields(Layer)
    }
    ids = parts.objects.ids.flatten().index_select(0, parts.pixels)
    motion = parts.objects.motion
    table = motion.flatten(1)
    rows = fused_operations.rows(table, ids) if triton_kernels.can_use(table) else table.index_select(0, ids)
    per_gaussian = rows.view(-1, *motion.shape[1:])
    futures = tuple(Motion(*sample.unbind(1)) for sample in per_gaussian.unbind(1))
    first = futures[0]
    return DynamicGaussians(
        **joined,
        velocities=first.velocities,
        accelerations=first.accelerations,
        angular_velocities=first.angular_velocities,
        angular_accelerations=first.angular_accelerations,
        object_ids=ids,
        centroids=parts.objects.centroids.clone(),
        futures=futures,
        observed=parts.observed.clone(),
        camera=camera,
        instance_ids=parts.instances.flatten().index_select(0, parts.pixels),
        depth_correction=None if parts.depth_correction is None else parts.depth_correction.clone(),
    )
