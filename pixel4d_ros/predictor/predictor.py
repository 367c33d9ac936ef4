"""Predictor: image and intrinsics -> DynamicGaussians, in one network pass."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.camera import Camera
from pixel4d_ros.predictor.canvas import Canvas
from pixel4d_ros.predictor.checkpoint import load_weights, shipped_weights
from pixel4d_ros.predictor.graphs import Graphs, concurrently
from pixel4d_ros.predictor.layout import Layout
from pixel4d_ros.predictor.lifting import hidden_layer, visible_layer
from pixel4d_ros.predictor.maps import PixelMaps, Source, decode_depth, encode_sensor, encode_speed, latent_shape
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.predictor.objects import decode_motion, find_objects, members, object_means, object_motion
from pixel4d_ros.predictor.shell import shell_layer
from pixel4d_ros.scene import DynamicGaussians, Motion
from pixel4d_ros.transfer import to_device

REACH = 2  # cells of 32 pixels each way over which a sampled latent is averaged
FAST = torch.float16  # the network's precision on the fast path; geometry stays in float32
EAGER_PATH, FAST_PATH = "eager, float32", "CUDA graph, float16"
_LAYER_FIELDS = ("means", "quaternions", "scales", "opacities", "colors", "observed")


class Predictor:
    """A trained network and what turns its maps into a scene."""

    def __init__(self, network: Network, device: torch.device, weights_hash: str = "", fast: bool = True) -> None:
        self.device = device
        self.weights_hash = weights_hash
        network = network.to(device)
        self._network = network.for_inference(torch.float32)
        self._graphs = Graphs() if fast and device.type == "cuda" else None
        self._fast = None if self._graphs is None else network.for_inference(FAST)
        self._layout: Layout | None = None  # of the last camera

    @property
    def path(self) -> str:
        """Which path runs: FAST_PATH, or EAGER_PATH on the CPU, where it was asked for, and where recording failed."""
        return EAGER_PATH if self._graphs is None else FAST_PATH

    @staticmethod
    def load(weights: str | Path | None, device: torch.device, fast: bool = True) -> Predictor:
        """Load weights (None: the shipped ones). Raises WeightsError."""
        network = Network()
        weights_hash = load_weights(network, weights or shipped_weights())
        return Predictor(network, device, weights_hash, fast)

    @torch.inference_mode()
    def predict(
        self,
        image: Tensor,
        camera: Camera,
        num_samples: int,
        seed: int,
        depth: Tensor | None = None,
        speed: float | None = None,
    ) -> DynamicGaussians:
        """Image (H, W, 3) uint8 RGB on the device -> a scene with num_samples futures.

        Sample 0 is the prior's mode. depth (h, w) metres, 0 where unknown, and the camera's forward speed in m/s help
        where they are known.
        """
        if self._layout is None or not self._layout.fits(camera):
            self._layout = Layout(camera, self.device)
        speeds = torch.tensor([torch.nan if speed is None else speed])
        host = (speeds, _latents(self._layout.canvas, num_samples, seed))
        inputs = [image, *(to_device(tensor.numpy(), self.device) for tensor in host)]
        if depth is not None:
            inputs.append(depth)
        return _scene(self._run(self._layout, inputs), camera)

    def _run(self, layout: Layout, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        """_predicted by the fast path; once that failed for another reason than memory, by the other one ever after."""
        if self._graphs is not None and self._fast is not None:
            network = self._fast
            key = (layout.key, *(tuple(tensor.shape) for tensor in inputs))
            try:
                return self._graphs.run(key, lambda *tensors: _predicted(network, layout, *tensors), *inputs)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._graphs = self._fast = None
                warnings.warn(f"predictions go on slower, {EAGER_PATH}: no CUDA graph here ({error})", stacklevel=4)
        return _predicted(self._network, layout, *inputs)


def _latents(canvas: Canvas, num_samples: int, seed: int) -> Tensor:
    """Samples of the prior, smooth over the image, so that all parts of an object draw about the same."""
    channels, height, width = latent_shape(canvas.width, canvas.height)
    if num_samples == 1:
        return torch.zeros(1, 1, channels, height, width)
    generator = torch.Generator().manual_seed(seed)
    rough = torch.randn(num_samples, channels, height + 2 * REACH, width + 2 * REACH, generator=generator)
    z = F.avg_pool2d(rough, 2 * REACH + 1, 1) * (2 * REACH + 1)  # of unit variance again
    z[0] = 0
    return z[None]


def _predicted(
    network: Network, layout: Layout, pixels: Tensor, speed: Tensor, z: Tensor, depth: Tensor | None = None
) -> tuple[Tensor, ...]:
    """All tensors of a scene, see _scene: a computation of fixed shapes that never waits for the device."""
    canvas, scale = layout.canvas, layout.depth_scale
    image = pixels.permute(2, 0, 1)[None].float() / 255
    drawn = canvas.draw(image)
    source = Source(
        drawn,
        canvas.inside(drawn.device)[None, None],
        layout.rays,
        None if depth is None else encode_sensor(canvas.place(depth)[None], scale),
        encode_speed(speed),
    )
    dtype = next(network.parameters()).dtype
    maps = network(source.to(dtype), z.to(dtype))[0].float()
    objects, *layers = concurrently(
        lambda: _objects(maps, layout),
        lambda: visible_layer(maps, image, layout.grid_K, layout.grid, scale),
        lambda: hidden_layer(maps, drawn, layout.canvas_K, scale),
        lambda: shell_layer(drawn, layout.shell),
    )
    fields = [torch.cat([getattr(layer, name)[0] for layer in layers]) for name in _LAYER_FIELDS]
    return (*fields, *objects)


def _objects(maps: PixelMaps, layout: Layout) -> tuple[Tensor, ...]:
    """Ids of all Gaussians (N,), centroids (MAX_OBJECTS + 1, 3), and per sample the Gaussians' motion."""
    inside, depth = layout.canvas.inside(layout.device), decode_depth(maps.static["depth"])[0]
    # What is mirrored in the padding is no object.
    mobility = maps.static["mobility"][0, 0].masked_fill(inside == 0, -torch.inf)
    found = find_objects(mobility, maps.objects["center"][0, 0], maps.objects["offset"][0])
    # Only what the camera saw tells where an object is and how it moves; and pixels at its rim are the least sure.
    sure = inside * torch.sigmoid(maps.static["opacity"][0, 0])
    weights = members(found) * sure[..., None]
    points = torch.cat((layout.rays[0] * depth, depth * layout.depth_scale)).permute(1, 2, 0)
    coarse_weights = F.avg_pool2d(weights.permute(2, 0, 1), 4).permute(1, 2, 0)
    ids = layout.grid.sample_nearest(found).flatten()
    membership = members(ids)
    motions: list[Tensor] = []
    for sample in decode_motion(maps.motion, layout.depth_scale)[0]:
        means = object_means(sample.flatten(0, 1).permute(1, 2, 0), coarse_weights)
        motion = object_motion(means.view(-1, 4, 3), membership, layout.count)
        motions += [motion.velocities, motion.accelerations, motion.angular_velocities, motion.angular_accelerations]
    return F.pad(ids, (0, layout.count - len(ids))), object_means(points, weights), *motions


def _scene(tensors: tuple[Tensor, ...], camera: Camera) -> DynamicGaussians:
    means, quaternions, scales, opacities, colors, observed, ids, centroids, *motions = tensors
    futures = tuple(Motion(*motions[i : i + 4]) for i in range(0, len(motions), 4))
    first = futures[0]
    return DynamicGaussians(
        means=means,
        quaternions=quaternions,
        scales=scales,
        opacities=opacities,
        colors=colors,
        velocities=first.velocities,
        accelerations=first.accelerations,
        angular_velocities=first.angular_velocities,
        angular_accelerations=first.angular_accelerations,
        object_ids=ids,
        centroids=centroids,
        futures=futures,
        observed=observed,
        camera=camera,
    )
