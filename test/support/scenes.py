# SPDX-License-Identifier: Apache-2.0
"""Random scenes, and all the tensors of one."""

from __future__ import annotations

import torch
from torch import Tensor

from pixel4d_ros.scene import MOTION_FIELDS, DynamicGaussians, Motion


def random_scene(seed: int, n: int = 30, objects: int = 2, samples: int = 0) -> DynamicGaussians:
    """Gaussians (float64) 4 to 12 m ahead; each object's angular velocity and acceleration share their axis."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    ids = torch.randint(0, objects + 1, (n,), generator=generator)

    def motion() -> Motion:
        moves = (torch.arange(objects + 1) > 0)[:, None]
        axis = torch.nn.functional.normalize(uniform(-1, 1, objects + 1, 3), dim=-1) * moves
        linear = (uniform(-3, 3, objects + 1, 3) * moves, uniform(-1, 1, objects + 1, 3) * moves)
        angular = (axis * uniform(-1, 1, objects + 1, 1), axis * uniform(-1, 1, objects + 1, 1))
        return Motion(*(values[ids] for values in (*linear, *angular)))

    futures = tuple(motion() for _ in range(samples))
    first = futures[0] if futures else motion()
    means = uniform(-1, 1, n, 3) * torch.tensor([3.0, 2, 4]) + torch.tensor([0.0, 0, 8])
    return DynamicGaussians(
        means=means,
        quaternions=torch.nn.functional.normalize(uniform(-1, 1, n, 4), dim=-1),
        scales=uniform(0.05, 0.5, n, 3),
        opacities=uniform(0.3, 0.95, n),
        colors=uniform(0, 1, n, 3),
        **{name: getattr(first, name) for name in MOTION_FIELDS},
        object_ids=ids,
        centroids=uniform(-2, 2, objects + 1, 3) + torch.tensor([0.0, 0, 8]),
        futures=futures,
    )


def scene_of(n: int) -> DynamicGaussians:
    g = torch.Generator().manual_seed(1)
    vectors = {name: torch.randn(n, 3, generator=g) for name in ("means", "velocities", "accelerations")}
    vectors |= {name: torch.randn(n, 3, generator=g) for name in ("angular_velocities", "angular_accelerations")}
    return DynamicGaussians(
        **vectors,
        quaternions=torch.nn.functional.normalize(torch.randn(n, 4, generator=g), dim=-1),
        scales=torch.rand(n, 3, generator=g),
        opacities=torch.linspace(0, 1, n),
        colors=torch.rand(n, 3, generator=g),
        object_ids=torch.arange(n) % 3,
        centroids=torch.zeros(3, 3),
    )


def tensors(scene: DynamicGaussians) -> dict[str, torch.Tensor]:
    """All of a scene, sampled futures included."""
    futures = {f"{k}.{name}": getattr(m, name) for k, m in enumerate(scene.futures) for name in MOTION_FIELDS}
    return scene.tensors() | futures
