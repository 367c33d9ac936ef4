"""DynamicGaussians: a scene of 3D Gaussians that move, the one type that everything else produces or consumes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pixel4d_ros.rotations import (
    axis_angle_to_quaternion,
    matrix_to_quaternion,
    quaternion_multiply,
    quaternion_rotate,
)

SH_C0 = 0.28209479177387814  # zeroth spherical harmonic: 3DGS files store (color - 0.5) / SH_C0


@dataclass(frozen=True)
class Motion:
    """How N Gaussians move, in the source camera's frame; rotations are axis-angle about the object's centroid."""

    velocities: Tensor  # (N, 3) m/s
    accelerations: Tensor  # (N, 3) m/s^2
    angular_velocities: Tensor  # (N, 3) rad/s
    angular_accelerations: Tensor  # (N, 3) rad/s^2


MOTION_FIELDS = tuple(f.name for f in fields(Motion))


@dataclass(frozen=True)
class DynamicGaussians:
    """N Gaussians and M moving objects in the optical frame of the source camera at the source image's stamp (t = 0).

    Kinematics (Pixel-to-4D, arXiv 2601.00678): theta(t) = w t + a_w t^2 / 2 and
    x(t) = c + R(theta)(x0 - c) + v t + a t^2 / 2. All Gaussians of one object share the same motion.
    `futures` holds every sampled motion; the motion fields are those of the selected sample.
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
    object_ids: Tensor  # (N,) int64: 0 = static background, 1..M = moving objects
    centroids: Tensor  # (M + 1, 3) rotation centres, metres
    futures: tuple[Motion, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.means)
        for name, width in _WIDTHS.items():
            shape = tuple(getattr(self, name).shape)
            if shape != ((n, width) if width else (n,)):
                raise ValueError(f"{name} must have shape {(n, width) if width else (n,)}, got {shape}")
        if self.centroids.ndim != 2 or self.centroids.shape[1] != 3:
            raise ValueError(f"centroids must have shape (M + 1, 3), got {tuple(self.centroids.shape)}")

    def __len__(self) -> int:
        return len(self.means)

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
        """The scene t seconds later, as a scene whose own t = 0 is then.

        at(s).at(t) equals at(s + t) as long as each object's angular velocity and acceleration share an axis.
        """
        moved = tuple(replace(self, futures=(), **_motion_dict(m)).at(t).motion for m in self.futures)
        c = self.centroids[self.object_ids]
        shift = self.velocities * t + 0.5 * self.accelerations * t * t
        turn = axis_angle_to_quaternion(self.angular_velocities * t + 0.5 * self.angular_accelerations * t * t)
        return replace(
            self,
            means=c + quaternion_rotate(turn, self.means - c) + shift,
            quaternions=quaternion_multiply(turn, self.quaternions),
            velocities=self.velocities + self.accelerations * t,
            angular_velocities=self.angular_velocities + self.angular_accelerations * t,
            centroids=self.centroids + self._per_object(shift),
            futures=moved,
        )

    def _per_object(self, values: Tensor) -> Tensor:
        """Mean (M + 1, 3) of per-Gaussian values (N, 3) over each object; zero for objects without Gaussians."""
        total = torch.zeros_like(self.centroids).index_add(0, self.object_ids, values.to(self.centroids.dtype))
        count = torch.zeros_like(self.centroids[:, :1]).index_add(
            0, self.object_ids, torch.ones_like(self.means[:, :1], dtype=self.centroids.dtype)
        )
        return total / count.clamp(min=1)

    def transformed(self, T: ArrayLike | Tensor) -> DynamicGaussians:
        """The scene in frame a, given T_a_source (4, 4)."""
        T = torch.as_tensor(np.asarray(T) if not isinstance(T, Tensor) else T).to(self.means)
        R, p = T[:3, :3], T[:3, 3]

        def rotate(m: Motion) -> dict[str, Tensor]:
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
        """Only the Gaussians where keep (N,) is true, or at the indices keep; objects and centroids stay as they are."""
        per_gaussian = {name: getattr(self, name)[keep] for name in _WIDTHS}
        futures = tuple(Motion(**{k: v[keep] for k, v in _motion_dict(m).items()}) for m in self.futures)
        return replace(self, **per_gaussian, futures=futures)

    def to(self, device: str | torch.device) -> DynamicGaussians:
        """The scene on another device."""
        tensors = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "futures"}
        futures = tuple(Motion(**{k: v.to(device) for k, v in _motion_dict(m).items()}) for m in self.futures)
        return DynamicGaussians(**tensors, futures=futures)

    def save(self, path: str | Path) -> None:
        """Write everything, sampled futures included, to a safetensors file."""
        tensors = {f.name: getattr(self, f.name).cpu().contiguous() for f in fields(self) if f.name != "futures"}
        for k, motion in enumerate(self.futures):
            tensors |= {f"futures.{k}.{name}": v.cpu().clone() for name, v in _motion_dict(motion).items()}
        save_file({k: v.clone() for k, v in tensors.items()}, str(path), metadata={"format": "pixel4d_scene"})

    @staticmethod
    def load(path: str | Path) -> DynamicGaussians:
        """Read a scene that `save` wrote. Raises ValueError when the file is not such a scene."""
        try:
            with safe_open(str(path), "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            count = 1 + max((int(k.split(".")[1]) for k in tensors if k.startswith("futures.")), default=-1)
            futures = tuple(Motion(*(tensors.pop(f"futures.{k}.{n}") for n in MOTION_FIELDS)) for k in range(count))
            return DynamicGaussians(**tensors, futures=futures)
        except (SafetensorError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is not a scene written by DynamicGaussians.save: {error}") from error

    def save_ply(self, path: str | Path) -> None:
        """Write the usual 3DGS PLY (binary little endian; log scales, logit opacities, f_dc colours) for splat viewers."""
        names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
        names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
        columns = (
            self.means,
            torch.zeros_like(self.means),
            (self.colors - 0.5) / SH_C0,
            torch.logit(self.opacities, eps=1e-6)[:, None],
            self.scales.clamp(min=1e-9).log(),
            self.quaternions,
        )
        data = torch.cat([c.detach().float().cpu() for c in columns], 1).numpy().astype("<f4")
        header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(self)}"]
        header += [f"property float {name}" for name in names] + ["end_header", ""]
        Path(path).write_bytes("\n".join(header).encode() + data.tobytes())


_WIDTHS = {
    "means": 3,
    "quaternions": 4,
    "scales": 3,
    "opacities": 0,
    "colors": 3,
    **dict.fromkeys(MOTION_FIELDS, 3),
    "object_ids": 0,
}


def _motion_dict(motion: Motion) -> dict[str, Tensor]:
    return {name: getattr(motion, name) for name in MOTION_FIELDS}
