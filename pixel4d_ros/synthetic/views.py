# SPDX-License-Identifier: Apache-2.0
"""Training views and clips of synthetic worlds, with exact depth, object ids and motion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.stereo_pairs import KITTI_CAMERA
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.synthetic.assets import Assets
from pixel4d_ros.synthetic.camera_effects import apply_camera
from pixel4d_ros.synthetic.motion import expand, kinematics, true_pose_changes
from pixel4d_ros.synthetic.plan import TOWN
from pixel4d_ros.synthetic.renderer import Rendered, render
from pixel4d_ros.synthetic.rooms import make_room
from pixel4d_ros.synthetic.street import make_street
from pixel4d_ros.synthetic.world import MAX_INSTANCES, MAX_OBJECTS, WorldLayout, Worlds

KINDS = ("street", "room", "mixed")
_T = TypeVar("_T")
ROOM_SHARE = 0.3  # of "mixed"
AT_REST = 0.05  # m/s, m/s^2, rad/s or rad/s^2: at less an object stands
CLIP_SPEED = 8.0  # m/s at the start of a clip


@dataclass(frozen=True)
class WorldViews:
    """B worlds seen in V views each; view 0 is the source. All tensors are on the rendering device."""

    rgb: Tensor  # (B, V, H, W, 3) float32 0..1
    depth: Tensor  # (B, V, H, W) float32 metres along z; sky = inf
    object_ids: Tensor  # (B, V, H, W) int64: 0 = background, 1..M objects: first those that move, then those that stand
    K: Tensor  # (B, 3, 3) pixels
    T_source_camera: Tensor  # (B, V, 4, 4): view v's camera in the frame of view 0's camera
    times: Tensor  # (B, V) seconds after view 0
    motions: Tensor  # (B, M + 1, 4, 3): v, a, w, a_w at view 0, in view 0's optical frame; row 0 zeros
    centroids: Tensor  # (B, M + 1, 3) at view 0, in view 0's optical frame
    hidden_depth: Tensor | None = (
        None  # (B, H, W) metres, first static surface behind the one that view 0 shows; 0: none
    )

    @property
    def moving(self) -> Tensor:
        """Which objects (B, M + 1) move or are about to; False for the background, standing objects and unused ids."""
        return self.motions.abs().amax((-1, -2)) > AT_REST


def sample_views(
    seeds: Sequence[int],
    times: Tensor,
    size: tuple[int, int] = (416, 128),
    device: str | torch.device = "cpu",
    kind: str = "street",
    hidden: bool = False,
    camera: bool = False,
    assets: Assets | None = None,
) -> WorldViews:
    """Render one world per seed at times (B, V), seconds; size is (width, height), kind one of KINDS.

    Objects move exactly by their second-order motion at view 0, so labels have no error at any time.
    Times are taken relative to the first. With `hidden`, hidden_depth is traced, too; with `camera` images are as
    a camera records them (camera_effects). With assets some vehicles of streets are textured models. The same seed
    gives the same world, camera and motion whatever the batch.
    Raises ValueError on an unknown kind or times of the wrong shape.
    """
    moments = np.asarray(torch.as_tensor(times).detach().cpu().numpy(), np.float64)
    if moments.ndim != 2 or len(moments) != len(seeds):
        raise ValueError(f"times must be (B, V) with one row per seed: got {moments.shape} for {len(seeds)} seeds")
    moments = moments - moments[:, :1]
    horizon = float(np.abs(moments).max(initial=0.0))
    layouts = [_layout(int(seed), kind, horizon, assets) for seed in seeds]
    intrinsics = np.stack([_intrinsics(int(seed), size) for seed in seeds])
    cameras = np.stack([layout.camera(t) for layout, t in zip(layouts, moments)])
    expansions = [expand(layout.actors, 0.0) for layout in layouts]
    poses = np.stack([_padded(e.pose_changes(t)) for e, t in zip(expansions, moments)])
    B, V = moments.shape

    def upload(values: FloatArray) -> Tensor:
        return torch.as_tensor(np.asarray(values, np.float32), device=device)

    K, worlds = upload(intrinsics), Worlds.of(layouts, device, assets.meshes if assets else None)
    index = torch.arange(B, device=device).repeat_interleave(V)
    moved, seen, K_n = upload(poses).flatten(0, 1), upload(cameras).flatten(0, 1), K.repeat_interleave(V, 0)

    first = torch.arange(B * V, device=device) % V == 0

    def draw(part: slice) -> Rendered:
        asked = first[part] if hidden else None
        return render(worlds, index[part], moved[part], seen[part], K_n[part], size, asked)

    device = torch.device(device)
    step = 1 if device.type == "cpu" else B * V
    drawn = _each(draw, [slice(k, k + step) for k in range(0, B * V, step)], device)
    out = Rendered(*(torch.cat([getattr(part, f.name) for part in drawn]) for f in fields(Rendered)))
    world_to_source = rigid_inverse(cameras[:, 0])
    motions = [kinematics(e, T[:3, :3], MAX_INSTANCES) for e, T in zip(expansions, world_to_source)]
    everything = [np.concatenate((e.centroids, layout.standing)) for e, layout in zip(expansions, layouts)]
    centroids = [_centroids(places, T, MAX_INSTANCES) for places, T in zip(everything, world_to_source)]
    rgb, depth, object_ids = (torch.unflatten(each, 0, (B, V)) for each in (out.rgb, out.depth, out.object_ids))
    return WorldViews(
        apply_camera(rgb, seeds) if camera else rgb,
        depth,
        object_ids,
        K,
        upload(world_to_source[:, None] @ cameras),
        upload(moments),
        upload(np.stack(motions)),
        upload(np.stack(centroids)),
        out.hidden_depth[::V] if hidden else None,
    )


def _layout(seed: int, kind: str, horizon: float, assets: Assets | None) -> WorldLayout:
    if kind not in KINDS:
        raise ValueError(f"unknown kind of world {kind!r}: use one of {', '.join(KINDS)}")
    room = kind == "room" or (kind == "mixed" and np.random.default_rng([seed, 7]).uniform() < ROOM_SHARE)
    return make_room(seed) if room else make_street(seed, max(horizon, 3.0), assets=assets)


def _intrinsics(seed: int, size: tuple[int, int]) -> FloatArray:
    """A camera of that seed: focal length 0.5 to 1.1 image widths, nearly square pixels, nearly centred."""
    rng = np.random.default_rng([seed, 2])
    width, height = size
    fx = width * np.exp(rng.uniform(np.log(0.5), np.log(1.1)))
    cx, cy = (width - 1) / 2 + rng.normal(0, 0.02) * width, (height - 1) / 2 + rng.normal(0, 0.04) * height
    return np.array([[fx, 0, cx], [0, fx * rng.uniform(0.97, 1.03), cy], [0, 0, 1]])


def kitti_intrinsics(size: tuple[int, int]) -> FloatArray:
    """KITTI's left colour camera as in the 832x256 logs, resized to (width, height)."""
    return KITTI_CAMERA.resized(*size).K


def _padded(poses: FloatArray) -> FloatArray:
    """Object transforms (T, M, 4, 4) as (T, MAX_OBJECTS + 1, 4, 4): identity for the static world and unused ids."""
    out = np.tile(np.eye(4), (len(poses), MAX_OBJECTS + 1, 1, 1))
    out[:, 1 : poses.shape[1] + 1] = poses
    return out


def _centroids(world: FloatArray, T_camera_world: FloatArray, objects: int) -> FloatArray:
    """Points (K, 3) of objects 1..K in the camera, padded to (objects + 1, 3)."""
    out = np.zeros((objects + 1, 3))
    out[1 : len(world) + 1] = world @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
    return out


def _each(
    draw: Callable[[slice], _T], parts: Sequence[slice], device: torch.device, bar: tqdm | None = None
) -> list[_T]:
    """draw(part) for all parts, in order; on a CPU one thread per core, each with whole images.

    Many small operations in one thread per image go faster than each of them spread over all cores.
    """
    if device.type != "cpu" or len(parts) == 1:
        return [_counted(draw(part), part, bar) for part in parts]
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            return [_counted(result, part, bar) for part, result in zip(parts, pool.map(draw, parts))]
        finally:
            torch.set_num_threads(threads)


def _counted(result: _T, part: slice, bar: tqdm | None) -> _T:
    if bar is not None:
        bar.update(part.stop - part.start)
    return result


def clip_layout(seed: int, duration: float) -> WorldLayout:
    """The town street behind `street_clip` of that seed and duration (s); its camera's path continues after that."""
    return make_street(seed, duration + 4.0, CLIP_SPEED, TOWN)


def street_clip(
    seed: int,
    frames: int,
    step: float = 0.1,
    size: tuple[int, int] = (416, 128),
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Clip:
    """A drive of `frames` images, `step` seconds apart, with KITTI's camera; depth is 0 in the sky.

    Actors follow the road, so object_motions are the second-order expansion of their true paths at each frame: exact on
    straight stretches, centimetres off after a second in bends (test_synthetic.py holds the bound).
    """
    if frames < 1 or step <= 0:
        raise ValueError(f"a clip needs at least one frame and a positive step, got {frames} frames, step {step:g} s")
    times = np.arange(frames, dtype=np.float64) * step
    layout = clip_layout(seed, float(times[-1]))
    worlds = Worlds.of([layout], device)
    cameras = layout.camera(times)
    poses = _padded(true_pose_changes(layout.actors, times))
    K = kitti_intrinsics(size)
    device = torch.device(device)

    def draw(part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        moved, seen = (torch.as_tensor(v[part].astype(np.float32), device=device) for v in (poses, cameras))
        K_n = torch.as_tensor(K.astype(np.float32), device=device).expand(len(seen), 3, 3)
        index = torch.zeros(len(seen), dtype=torch.int64, device=device)
        out = render(worlds, index, moved, seen, K_n, size)
        depth = torch.where(torch.isfinite(out.depth), out.depth, 0.0).cpu().numpy()
        ids = torch.where(out.object_ids <= len(layout.actors), out.object_ids, 0)  # only what moves
        return (out.rgb * 255).round().byte().cpu().numpy(), depth, ids.byte().cpu().numpy()

    batch = 8 if device.type == "cuda" else 1
    parts = [slice(first, min(first + batch, frames)) for first in range(0, frames, batch)]
    with tqdm(total=frames, desc="synthetic street", unit="frame", disable=not progress) as bar:
        images, depths, ids = zip(*_each(draw, parts, device, bar))
    motions, centroids = [], []
    for time, T in zip(times, rigid_inverse(cameras)):
        expansion = expand(layout.actors, float(time))
        motions.append(kinematics(expansion, T[:3, :3], MAX_OBJECTS))
        centroids.append(_centroids(expansion.centroids, T, MAX_OBJECTS).astype(np.float32))
    return Clip(
        f"synthetic_street_{seed}",
        np.concatenate(images),
        K,
        cameras,
        times,
        np.concatenate(depths),
        np.concatenate(ids),
        np.stack(motions),
        np.stack(centroids),
    )
