# SPDX-License-Identifier: Apache-2.0
"""DynamicGaussians: kinematics, rigid transforms, sampled futures, and the files they are kept in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scenes import random_scene
from torch import Tensor

from pixel4d_ros import Camera, DynamicGaussians
from pixel4d_ros.geometry.rotations import FloatArray, rigid, rigid_inverse, rotation_matrix
from pixel4d_ros.outputs.ply import SH_C0
from pixel4d_ros.rendering import GaussianViews
from pixel4d_ros.rendering.torch_rasterizer import rasterize_torch
from pixel4d_ros.scene import MOTION_FIELDS

often = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
times = st.floats(-2, 2)
CAMERA = Camera(np.array([[60.0, 0, 24], [0, 60, 16], [0, 0, 1]]), 48, 32)


def random_pose(seed: int) -> FloatArray:
    rng = np.random.default_rng(seed)
    return rigid(rotation_matrix(rng.uniform(-1, 1, 3)), rng.uniform(-3, 3, 3))


def render(scene: DynamicGaussians, T_scene_camera: FloatArray) -> Tensor:
    """Colours (H, W, 3) of the scene as the camera sees it."""
    parts = (scene.means, scene.quaternions, scene.scales, scene.opacities, scene.colors)
    T, K = torch.from_numpy(rigid_inverse(T_scene_camera)), torch.from_numpy(CAMERA.K)
    return rasterize_torch(
        GaussianViews(*(p[None] for p in parts), T[None], K[None], (CAMERA.width, CAMERA.height))
    ).features[0]


def assert_same(a: DynamicGaussians, b: DynamicGaussians, futures: bool = True) -> None:
    for name, value in a.tensors().items():
        torch.testing.assert_close(value, getattr(b, name), atol=1e-9, rtol=1e-9, msg=name)
    for one, other in zip(a.futures, b.futures, strict=True) if futures else ():
        for name in MOTION_FIELDS:
            torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-9, rtol=1e-9, msg=name)


def test_a_car_drives_and_turns_about_its_centroid() -> None:
    scene = random_scene(0, n=1, objects=1)
    at_centroid = replace(
        scene,
        means=torch.tensor([[1.0, 0, 10]], dtype=torch.float64),
        quaternions=torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64),
        object_ids=torch.ones(1, dtype=torch.long),
        centroids=torch.tensor([[0.0, 0, 0], [0, 0, 10]], dtype=torch.float64),
        velocities=torch.tensor([[0.0, 0, 5]], dtype=torch.float64),
        accelerations=torch.tensor([[0.0, 0, 2]], dtype=torch.float64),
        angular_velocities=torch.tensor([[0.0, torch.pi / 4, 0]], dtype=torch.float64),
        angular_accelerations=torch.zeros(1, 3, dtype=torch.float64),
    )
    later = at_centroid.at(2.0)
    # In 2 s: 5 * 2 + 2 * 4 / 2 = 14 m ahead, and a quarter turn about y, which takes x to -z.
    torch.testing.assert_close(later.means, torch.tensor([[0.0, 0, 23]], dtype=torch.float64))
    torch.testing.assert_close(later.centroids[1], torch.tensor([0.0, 0, 24], dtype=torch.float64))
    torch.testing.assert_close(later.velocities, torch.tensor([[0.0, 0, 9]], dtype=torch.float64))
    half = torch.tensor(0.5, dtype=torch.float64).sqrt()
    torch.testing.assert_close(later.quaternions[0], torch.stack((half, 0 * half, half, 0 * half)))


@often
@given(seeds, times, times)
def test_moving_twice_is_moving_once_for_as_long(seed: int, s: float, t: float) -> None:
    scene = random_scene(seed, samples=2)
    assert_same(scene.at(s).at(t), scene.at(s + t))


@often
@given(seeds, times)
def test_the_background_stays_and_objects_stay_rigid(seed: int, t: float) -> None:
    scene = random_scene(seed)
    later = scene.at(t)
    still = scene.object_ids == 0
    torch.testing.assert_close(later.means[still], scene.means[still])
    for k in (1, 2):
        part = scene.object_ids == k
        torch.testing.assert_close(torch.pdist(later.means[part]), torch.pdist(scene.means[part]))


@often
@given(seeds, times)
def test_rigid_transforms_commute_with_time(seed: int, t: float) -> None:
    scene, T = random_scene(seed, samples=2), random_pose(seed)
    assert_same(scene.transformed(T).at(t), scene.at(t).transformed(T))


@often
@given(seeds)
def test_transforming_back_gives_the_scene_again(seed: int) -> None:
    scene, T = random_scene(seed), random_pose(seed)
    back = scene.transformed(T).transformed(rigid_inverse(T))
    sign = torch.sign((back.quaternions * scene.quaternions).sum(-1, keepdim=True))
    assert_same(replace(back, quaternions=back.quaternions * sign), scene)


@settings(max_examples=8, deadline=None)
@given(seeds, st.floats(-1, 1))
def test_a_camera_that_moves_along_sees_the_same_image(seed: int, t: float) -> None:
    scene, T_a_source, T_source_camera = random_scene(seed).at(t), random_pose(seed), np.eye(4)
    T_source_camera[:3, 3] = [0.3, -0.1, 0.5]
    before, after = render(scene, T_source_camera), render(scene.transformed(T_a_source), T_a_source @ T_source_camera)
    assert before.max() > 0.1
    # A Gaussian's rim may fall on either side of the smallest alpha that is drawn; everything else is equal.
    assert ((before - after).abs() < 1e-6).double().mean() > 0.999


def test_sampled_futures_share_the_static_scene() -> None:
    scene = random_scene(3, samples=3)
    assert scene.num_samples == 3
    second = scene.sample(1)
    assert second.means is scene.means
    assert second.velocities is scene.futures[1].velocities
    assert_same(scene.sample(0), scene)
    with pytest.raises(IndexError, match="holds 3"):
        scene.sample(3)
    alone = random_scene(3)
    assert alone.num_samples == 1 and alone.sample(0) is alone


def test_selecting_keeps_objects_and_futures() -> None:
    scene = replace(random_scene(4, samples=2), observed=torch.rand(30))
    moving = scene.select(scene.object_ids > 0)
    assert len(moving) == int((scene.object_ids > 0).sum())
    torch.testing.assert_close(moving.futures[1].velocities, scene.futures[1].velocities[scene.object_ids > 0])
    torch.testing.assert_close(moving.centroids, scene.centroids)
    assert len(scene.select(torch.tensor([5, 2])).observed) == 2  # type: ignore[arg-type]


def test_fields_of_the_wrong_shape_are_refused() -> None:
    scene = random_scene(0)
    with pytest.raises(ValueError, match=r"scales must have shape \(30, 3\), got \(29, 3\)"):
        replace(scene, scales=scene.scales[1:])
    with pytest.raises(ValueError, match="centroids must have shape"):
        replace(scene, centroids=scene.centroids[0])


@pytest.mark.parametrize("samples", [0, 3])
def test_save_and_load(samples: int, tmp_path: Path) -> None:
    scene = replace(random_scene(5, samples=samples), camera=CAMERA, observed=torch.rand(30))
    scene.save(tmp_path / "scene.safetensors")
    loaded = DynamicGaussians.load(tmp_path / "scene.safetensors")
    assert_same(loaded, scene)
    assert loaded.camera is not None
    assert (loaded.camera.width, loaded.camera.height) == (48, 32)
    np.testing.assert_array_equal(loaded.camera.K, CAMERA.K)


def test_loading_what_is_not_a_scene(tmp_path: Path) -> None:
    file = tmp_path / "scene.safetensors"
    random_scene(0).save(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a scene"):
        DynamicGaussians.load(file)
    file.write_text("ply")
    with pytest.raises(ValueError, match="not a scene"):
        DynamicGaussians.load(file)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("means", lambda values: values * torch.nan),
        ("scales", torch.log),
        ("opacities", lambda values: values + 1),
        ("quaternions", torch.zeros_like),
        ("object_ids", lambda values: values + 99),
    ],
)
def test_a_damaged_scene_is_refused_with_the_field(field: str, change: Any, tmp_path: Path) -> None:
    file, scene = tmp_path / "scene.safetensors", random_scene(0)
    replace(scene, **{field: change(getattr(scene, field))}).save(file)
    with pytest.raises(ValueError, match=f"{field} of the scene hold impossible values"):
        DynamicGaussians.load(file)


def read_ply(path: Path) -> dict[str, FloatArray]:
    """The float properties of a binary little endian PLY file's vertices."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    names = [line.split()[2] for line in lines if line.startswith("property float ")]
    values = np.frombuffer(body, "<f4").reshape(count, len(names))
    return dict(zip(names, values.T.astype(np.float64)))


def test_save_ply_writes_what_splat_viewers_read(tmp_path: Path) -> None:
    scene = random_scene(6)
    scene.at(0.5).save_ply(tmp_path / "half_a_second_later.ply")
    ply = read_ply(tmp_path / "half_a_second_later.ply")
    assert list(ply) == [
        *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
        *(f"f_rest_{i}" for i in range(45)),
        *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    ]

    def columns(*names: str) -> FloatArray:
        return np.stack([ply[name] for name in names], -1)

    later = scene.at(0.5)
    assert not any(ply[f"f_rest_{i}"].any() for i in range(45))
    np.testing.assert_allclose(columns("x", "y", "z"), later.means, rtol=1e-5)
    np.testing.assert_allclose(np.exp(columns("scale_0", "scale_1", "scale_2")), scene.scales, rtol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-ply["opacity"])), scene.opacities, rtol=1e-5)
    np.testing.assert_allclose(columns("f_dc_0", "f_dc_1", "f_dc_2") * SH_C0 + 0.5, scene.colors, atol=1e-6)
    np.testing.assert_allclose(columns("rot_0", "rot_1", "rot_2", "rot_3"), later.quaternions, atol=1e-6)


def test_save_ply_has_no_infinite_numbers(tmp_path: Path) -> None:
    scene = random_scene(7)
    extreme = replace(scene, opacities=torch.arange(30) % 2.0, scales=torch.zeros(30, 3), colors=torch.ones(30, 3))
    extreme.save_ply(tmp_path / "extreme.ply")
    assert all(np.isfinite(values).all() for values in read_ply(tmp_path / "extreme.ply").values())
