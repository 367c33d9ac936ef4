"""Predictor: image and intrinsics -> DynamicGaussians, in one network pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.camera import Camera
from pixel4d_ros.predictor.canvas import Canvas, resize
from pixel4d_ros.predictor.checkpoint import load_weights, shipped_weights
from pixel4d_ros.predictor.lifting import Grid, Layer, hidden_layer, shell_layer, visible_layer
from pixel4d_ros.predictor.network import (
    Network,
    PixelMaps,
    Source,
    canvas_rays,
    encode_sensor,
    encode_speed,
    latent_shape,
)
from pixel4d_ros.predictor.objects import decode_motion, find_objects, object_means, object_motion
from pixel4d_ros.rendering import GaussianViews, rasterize
from pixel4d_ros.scene import DynamicGaussians

REACH = 2  # cells of 32 pixels each way over which a sampled latent is averaged
COLOR_STEPS = 1  # rounds of matching the rendered source view to the image; more costs later frames


class Predictor:
    """A trained network and what turns its maps into a scene."""

    def __init__(self, network: Network, device: torch.device, weights_hash: str = "") -> None:
        self.device = device
        self.weights_hash = weights_hash
        self.network = network.to(device).eval()

    @staticmethod
    def load(weights: str | Path | None, device: torch.device) -> Predictor:
        """Load weights (None: the shipped ones). Raises WeightsError."""
        network = Network()
        weights_hash = load_weights(network, weights or shipped_weights())
        return Predictor(network, device, weights_hash)

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
        """Image (3, H, W) float 0..1 on the device -> a scene with num_samples futures.

        Sample 0 is the prior's mode. depth (H, W) metres, 0 where unknown, and the camera's forward speed in m/s help
        where they are known.
        """
        canvas = Canvas.of(camera)
        grid = Grid.of(camera, canvas)
        drawn = canvas.draw(image[None])
        scale = torch.full((1,), canvas.depth_scale, device=self.device)
        sensor = drawn.new_zeros(1, 2, canvas.height, canvas.width)
        if depth is not None:
            sensor = encode_sensor(canvas.place(depth)[None], scale)
        source = Source(
            drawn,
            canvas.inside(drawn.device)[None, None],
            canvas_rays(self._intrinsics(canvas.camera), canvas.width, canvas.height),
            sensor,
            encode_speed(torch.tensor([torch.nan if speed is None else speed], device=self.device)),
        )
        maps = self.network(source, self._latents(canvas, num_samples, seed))[0]
        grid_K, canvas_K = self._intrinsics(grid.camera), self._intrinsics(canvas.camera)
        visible = visible_layer(maps, image[None], grid_K, grid, canvas, scale)
        hidden = hidden_layer(maps, drawn, canvas_K, scale)
        shell = shell_layer(drawn, canvas_K, scale)
        scene = _assemble((visible, hidden, shell), *_group(maps, visible, grid, canvas, scale))
        return replace(_match_colors(scene, image, grid), camera=camera)

    def _latents(self, canvas: Canvas, num_samples: int, seed: int) -> Tensor:
        """Samples of the prior, smooth over the image, so that all parts of an object draw about the same."""
        generator = torch.Generator().manual_seed(seed)
        channels, height, width = latent_shape(canvas.width, canvas.height)
        rough = torch.randn(num_samples, channels, height + 2 * REACH, width + 2 * REACH, generator=generator)
        z = F.avg_pool2d(rough, 2 * REACH + 1, 1) * (2 * REACH + 1)  # of unit variance again
        z[0] = 0
        return z[None].to(self.device)

    def _intrinsics(self, camera: Camera) -> Tensor:
        return torch.tensor(camera.K, dtype=torch.float32, device=self.device)[None]


def _group(
    maps: PixelMaps, visible: Layer, grid: Grid, canvas: Canvas, scale: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Ids of the visible Gaussians (N,), centroids (M + 1, 3), and per sample the objects' motion (M + 1, 4, 3)."""
    # What is mirrored in the padding is no object.
    outside = canvas.inside(scale.device) == 0
    mobility = maps.static["mobility"][0, 0].masked_fill(outside, -torch.inf)
    objects = find_objects(mobility, maps.objects["center"][0, 0], maps.objects["offset"][0])
    fine = grid.sample_nearest(objects.ids, canvas)
    ids = fine.flatten()
    # Only what the camera saw tells where an object is and how it moves; and pixels at its rim are the least sure.
    weights = visible.observed[0] * visible.opacities[0] * (ids > 0)
    centroids = object_means(visible.means[0], ids, objects.count, weights)
    motion = decode_motion(maps.motion, scale)[0]
    futures = []
    for sample in motion:
        dense = grid.sample(sample.flatten(0, 1)[None], canvas)[0].flatten(1).T
        futures.append(object_means(dense, ids, objects.count, weights).view(-1, 4, 3))
    return ids, centroids, futures


def _assemble(layers: tuple[Layer, ...], ids: Tensor, centroids: Tensor, futures: list[Tensor]) -> DynamicGaussians:
    count = sum(layer.means.shape[1] for layer in layers)
    all_ids = torch.zeros(count, dtype=torch.long, device=ids.device)
    all_ids[: len(ids)] = ids
    motions = tuple(object_motion(future, all_ids) for future in futures)
    first = motions[0]
    return DynamicGaussians(
        means=torch.cat([layer.means[0] for layer in layers]),
        quaternions=torch.cat([layer.quaternions[0] for layer in layers]),
        scales=torch.cat([layer.scales[0] for layer in layers]),
        opacities=torch.cat([layer.opacities[0] for layer in layers]),
        colors=torch.cat([layer.colors[0] for layer in layers]),
        velocities=first.velocities,
        accelerations=first.accelerations,
        angular_velocities=first.angular_velocities,
        angular_accelerations=first.angular_accelerations,
        object_ids=all_ids,
        centroids=centroids,
        futures=motions,
        observed=torch.cat([layer.observed[0] for layer in layers]),
    )


def _match_colors(scene: DynamicGaussians, image: Tensor, grid: Grid) -> DynamicGaussians:
    """Adjust the visible colours until the source view shows the image: overlapping Gaussians blur.

    A fixed-point iteration (van Cittert deconvolution): add to each pixel's Gaussian what its pixel lacks.
    """
    inner = grid.inner
    target = resize(image[None], inner.width, inner.height)[0].permute(1, 2, 0)
    rows = slice(grid.top, grid.top + inner.height)
    columns = slice(grid.left, grid.left + inner.width)
    visible = grid.camera.height * grid.camera.width
    K = torch.tensor(inner.K, dtype=torch.float32, device=image.device)[None]
    colors = scene.colors.clone()
    pixels = colors[:visible].view(grid.camera.height, grid.camera.width, 3)
    for _ in range(COLOR_STEPS):
        rendered = rasterize(
            GaussianViews(
                scene.means[None],
                scene.quaternions[None],
                scene.scales[None],
                scene.opacities[None],
                colors[None],
                torch.eye(4, device=image.device)[None],
                K,
                (inner.width, inner.height),
            )
        ).features[0]
        pixels[rows, columns] = (pixels[rows, columns] + target - rendered).clamp(0, 1)
    return replace(scene, colors=colors)
