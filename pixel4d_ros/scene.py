# SPDX-License-Identifier: Apache-2.0
"""DynamicGaussians: a scene of 3D Gaussians that move, the one type that everything else produces or consumes."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.quaternions import (
    axis_angle_to_quaternion,
    matrix_to_quaternion,
    quaternion_multiply,
    quaternion_rotate,
)
from pixel4d_ros.outputs.ply import StoredGaussians, write_ply


@dataclass(frozen=True)
class Motion:
    """How N Gaussians move, in the source camera's frame; rotations are axis-angle about the object's centroid."""

    velocities: Tensor  # (N, 3) m/s
    accelerations: Tensor  # (N, 3) m/s^2
    angular_velocities: Tensor  # (N, 3) rad/s
    angular_accelerations: Tensor  # (N, 3) rad/s^2


MOTION_FIELDS = tuple(f.name for f in fields(Motion))


def moved_gaussians(
    means: Tensor, quaternions: Tensor, centroids: Tensor, motion: Motion, t: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Means (..., N, 3) and quaternions (..., N, 4) after t seconds (a number, or a tensor that broadcasts).

    theta(t) = w t + a_w t^2 / 2, x(t) = c + R(theta)(x0 - c) + v t + a t^2 / 2, R_i(t) = R(theta) R_i(0).
    """
    turn = axis_angle_to_quaternion(motion.angular_velocities * t + 0.5 * motion.angular_accelerations * t * t)
    shift = motion.velocities * t + 0.5 * motion.accelerations * t * t
    return centroids + quaternion_rotate(turn, means - centroids) + shift, quaternion_multiply(turn, quaternions)


@dataclass(frozen=True)
class DynamicGaussians:
    """N Gaussians and M moving objects in the optical frame of the source camera at the source image's stamp (t = 0).

    Kinematics as in Pixel-to-4D (arXiv 2601.00678), see moved_gaussians. All Gaussians of one object share the same
    motion. `futures` holds every sampled motion; the motion fields are those of the selected sample.
    """

    means: Tensor  # (N, 3) metres
    quaternions: Tensor  # (N, 4) wxyz, unit
    scales: Tensor  # (N, 3) standard deviations, metres
    opacities: Tensor  # (N,) 0..1
    colors: Tensor  # (N, 3) 0..1, sRGB
    velocities: Tensor  # (N, 3)
    accelerations: Tensor  # (N, 3)
    angular_velocities: Tensor  # (N, 3)
    angular_accelerations: Tensor  # (N, 3)
    object_ids: Tensor  # (N,) int64: 0 = static background, 1..M = objects that can move
    centroids: Tensor  # (M + 1, 3) rotation centres, metres
    futures: tuple[Motion, ...] = ()
    observed: Tensor | None = None  # (N,) float 0..1: seen in the source image (1) or guessed (0); None = all seen
    camera: Camera | None = None  # the source image's
    moving_probability: Tensor | None = None  # (M + 1,) 0..1 that each object moves at all; None = not known
    instance_ids: Tensor | None = None  # (N,) int64: vehicles and people (movable.py), moving or not: 1..; others: 0
    depth_correction: Tensor | None = None  # (N,) log factor by which a reference image changed depth; None = none did

    def __post_init__(self) -> None:
        n = len(self.means)
        for name, width in _WIDTHS.items():
            if getattr(self, name) is None:
                continue
            shape = tuple(getattr(self, name).shape)
            if shape != ((n, width) if width else (n,)):
                raise ValueError(f"{name} must have shape {(n, width) if width else (n,)}, got {shape}")
        probability = self.moving_probability
        if probability is not None and probability.shape != self.centroids.shape[:1]:
            raise ValueError(f"moving_probability must have shape (M + 1,), got {tuple(probability.shape)}")
        if self.centroids.ndim != 2 or self.centroids.shape[1] != 3:
            raise ValueError(f"centroids must have shape (M + 1, 3), got {tuple(self.centroids.shape)}")

    def __len__(self) -> int:
        return len(self.means)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by field name, without those of `futures`; fields that are None are left out."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, Tensor)}

    @property
    def motion(self) -> Motion:
        """The selected sample's motion."""
        return Motion(*(getattr(self, name) for name in MOTION_FIELDS))

    @property
    def num_samples(self) -> int:
        """How many sampled futures the scene holds."""
        return max(1, len(self.futures))

    def sample(self, k: int) -> DynamicGaussians:
        """The same scene with the motion of sampled future k; the static fields are shared, not copied."""
        if not 0 <= k < self.num_samples:
            raise IndexError(f"sample {k} asked for, but the scene holds {self.num_samples}")
        return self if not self.futures else replace(self, **_motion_dict(self.futures[k]))

    def at(self, t: float) -> DynamicGaussians:
        """The selected sample's scene t seconds later, as a scene whose own t = 0 is then; other futures are not kept.

        at(s).at(t) equals at(s + t) as long as each object's angular velocity and acceleration share an axis.
        """
        if not math.isfinite(t):
            raise ValueError(f"the time of a scene must be a finite number of seconds, got {t}")
        means, quaternions = moved_gaussians(
            self.means, self.quaternions, self.centroids[self.object_ids], self.motion, t
        )
        shift = self.velocities * t + 0.5 * self.accelerations * t * t
        return replace(
            self,
            means=means,
            quaternions=quaternions,
            velocities=self.velocities + self.accelerations * t,
            angular_velocities=self.angular_velocities + self.angular_accelerations * t,
            centroids=self.centroids + self.per_object(shift),
            futures=(),
        )

    @property
    def members(self) -> Tensor:
        """Indices (n,) of the Gaussians that belong to objects; a GPU is waited for."""
        return torch.nonzero(self.object_ids)[:, 0]

    def per_object(self, values: Tensor, members: Tensor | None = None) -> Tensor:
        """Mean (M + 1, 3) of per-Gaussian values (N, 3) over each object; zero for the background and empty objects.

        members (n,) as the property, if they are known.
        """
        # Without the background, whose many values a GPU would add up one after another.
        members = self.members if members is None else members
        ids, own = self.object_ids[members], values[members].to(self.centroids.dtype)
        total = torch.zeros_like(self.centroids).index_add(0, ids, own)
        count = torch.zeros_like(self.centroids[:, :1]).index_add(0, ids, torch.ones_like(own[:, :1]))
        return total / count.clamp(min=1)

    def without_depth_correction(self, some: Tensor | None = None) -> DynamicGaussians:
        """The scene in which the Gaussians of some indices (n,) lie as far away as without a reference image.

        None: those of objects, since a reference image tells the depth of what stands. The source view does not change.
        """
        if self.depth_correction is None:
            return self
        some = self.members if some is None else some
        factor = torch.exp(-self.depth_correction[some])[:, None]
        means, scales = (values.index_copy(0, some, values[some] * factor) for values in (self.means, self.scales))
        return replace(self, means=means, scales=scales, depth_correction=None)

    def view_camera(self, K: ArrayLike | None = None, size: tuple[int, int] | None = None) -> Camera:
        """The source camera with K (3, 3) and size (width, height) replaced where given; size alone resamples its view.

        Raises ValueError when the scene has no source camera and K or size is missing.
        """
        if self.camera is None:
            if K is None or size is None:
                raise ValueError("this scene has no source camera: give K and size")
            return Camera(np.asarray(K), *size)
        width, height = size or (self.camera.width, self.camera.height)
        return self.camera.resized(width, height) if K is None else Camera(np.asarray(K), width, height)

    def pixels(self, camera: Camera) -> Tensor:
        """Pixel (N,), counted row by row, in which a camera at the source sees each observed Gaussian; -1 for none."""
        x, y, z = self.means.unbind(1)
        u = (camera.K[0, 0] * x).div_(z).add_(camera.K[0, 2]).round_()
        v = (camera.K[1, 1] * y).div_(z).add_(camera.K[1, 2]).round_()
        inside = (z > 0) & (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
        if self.observed is not None:
            inside &= self.observed > 0.5
        return torch.where(inside, v.int() * camera.width + u.int(), -1).long()

    def seen_depth(self, camera: Camera, places: Tensor, nothing: float) -> NDArray[np.float32]:
        """depth_map in the host's memory."""
        return self.depth_map(camera, places, nothing).cpu().numpy()

    def depth_map(self, camera: Camera, places: Tensor, nothing: float, corrected: bool = True) -> Tensor:
        """Mean depth (h, w) in metres of what a camera at the source sees in each pixel, `nothing` where there is none.

        places (N,) as pixels(camera) gives them. corrected: with what a reference image tells of depth.
        """
        seen = torch.nonzero(places >= 0)[:, 0]  # a GPU would add up the many others one after another
        depths, own = self.means[seen, 2], places[seen]
        if not corrected and self.depth_correction is not None:
            depths = depths * torch.exp(-self.depth_correction[seen])
        total, count = (
            torch.zeros(camera.height * camera.width, device=places.device).scatter_add(0, own, values)
            for values in (depths, torch.ones_like(depths))
        )
        return torch.where(count > 0, total / count.clamp(min=1), nothing).view(camera.height, camera.width)

    def transformed(self, T: ArrayLike | Tensor) -> DynamicGaussians:
        """The scene in frame a, given T_a_source (4, 4)."""
        T = torch.as_tensor(np.asarray(T) if not isinstance(T, Tensor) else T).to(self.means)
        R, p = T[:3, :3], T[:3, 3]

        def rotate(m: Motion) -> dict[str, Any]:
            return {name: vectors @ R.T for name, vectors in _motion_dict(m).items()}

        return replace(
            self,
            means=self.means @ R.T + p,
            quaternions=quaternion_multiply(matrix_to_quaternion(R).expand(len(self), 4), self.quaternions),
            centroids=self.centroids @ R.T + p,
            futures=tuple(Motion(**rotate(m)) for m in self.futures),
            **rotate(self.motion),
        )

    def select(self, keep: Tensor) -> DynamicGaussians:
        """Only the Gaussians where keep (N,) is true, or at the indices keep.

        Objects and centroids stay as they are.
        """
        per_gaussian: dict[str, Any] = {
            name: getattr(self, name)[keep] for name in _WIDTHS if getattr(self, name) is not None
        }
        futures = tuple(Motion(**{k: v[keep] for k, v in _motion_dict(m).items()}) for m in self.futures)
        return replace(self, **per_gaussian, futures=futures)

    def to(self, device: str | torch.device) -> DynamicGaussians:
        """The scene on another device."""
        tensors: dict[str, Any] = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        futures = tuple(Motion(**{k: v.to(device) for k, v in _motion_dict(m).items()}) for m in self.futures)
        return replace(self, **tensors, futures=futures)

    def save(self, path: str | Path) -> None:
        """Write everything, sampled futures included, to a safetensors file."""
        tensors = self.tensors()
        for k, motion in enumerate(self.futures):
            tensors |= {f"futures.{k}.{name}": v for name, v in _motion_dict(motion).items()}
        if self.camera is not None:
            tensors["camera"] = torch.tensor([*self.camera.K.ravel(), self.camera.width, self.camera.height])
        # Cloned, because safetensors refuses tensors that share memory, as the selected sample and its future do.
        save_file({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}, str(path))

    @staticmethod
    def load(path: str | Path) -> DynamicGaussians:
        """Read a scene that `save` wrote. Raises ValueError when the file is not such a scene."""
        try:
            with safe_open(str(path), "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            count = 1 + max((int(k.split(".")[1]) for k in tensors if k.startswith("futures.")), default=-1)
            futures = tuple(Motion(*(tensors.pop(f"futures.{k}.{n}") for n in MOTION_FIELDS)) for k in range(count))
            source = tensors.pop("camera", None)
            camera = (
                None if source is None else Camera(source[:9].numpy().reshape(3, 3), int(source[9]), int(source[10]))
            )
            scene = DynamicGaussians(**tensors, futures=futures, camera=camera)
        except (SafetensorError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is not a scene written by DynamicGaussians.save: {error}") from error
        if broken := scene._broken_field():
            raise ValueError(f"{path}: {broken} of the scene hold impossible values: copy it, or forecast it, again")
        return scene

    def _broken_field(self) -> str:
        """The first field whose values no scene has, as in a damaged file; else empty."""
        broken = {name: not torch.isfinite(values).all() for name, values in self.tensors().items()}
        broken["scales"] |= bool((self.scales < 0).any())
        broken["opacities"] |= bool(((self.opacities < 0) | (self.opacities > 1)).any())
        broken["quaternions"] |= bool(((self.quaternions.norm(dim=1) - 1).abs() > 0.01).any())
        broken["object_ids"] |= bool(((self.object_ids < 0) | (self.object_ids >= len(self.centroids))).any())
        return next((name for name, is_broken in broken.items() if is_broken), "")

    def save_ply(self, path: str | Path) -> None:
        """Write the usual 3DGS PLY for splat viewers, of the scene at its own time."""
        write_ply(path, StoredGaussians.of(self.means, self.quaternions, self.scales, self.opacities, self.colors))


_WIDTHS = {
    "means": 3,
    "quaternions": 4,
    "scales": 3,
    "opacities": 0,
    "colors": 3,
    **dict.fromkeys(MOTION_FIELDS, 3),
    "object_ids": 0,
    "observed": 0,
    "instance_ids": 0,
    "depth_correction": 0,
}


def _motion_dict(motion: Motion) -> dict[str, Any]:
    return {name: getattr(motion, name) for name in MOTION_FIELDS}
