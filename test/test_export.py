# SPDX-License-Identifier: Apache-2.0
"""`pixel4d export`: files per time step, as PLY and, where gsply is installed, as SPZ."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.scenes import random_scene

from pixel4d_ros.cli import main
from pixel4d_ros.geometry.quaternions import quaternion_to_matrix
from pixel4d_ros.outputs.ply import SH_C0
from pixel4d_ros.outputs.spz import save_spz
from pixel4d_ros.scene import DynamicGaussians

FLIP = np.diag([1.0, -1, -1])


@pytest.fixture
def scene_file(tmp_path: Path) -> Path:
    path = tmp_path / "scene.safetensors"
    random_scene(3).save(path)
    return path


def test_a_ply_file_per_time_step(tmp_path: Path, scene_file: Path) -> None:
    assert main(["export", str(scene_file), str(tmp_path / "out"), "--steps", "3", "--step", "0.25"]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["scene_000_0.00s.ply", "scene_001_0.25s.ply", "scene_002_0.50s.ply"]


def test_files_of_an_older_export_are_not_left_among_the_new_ones(
    tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ["export", str(scene_file), str(tmp_path / "out"), "--steps"]
    assert main([*export, "3"]) == main([*export, "3"]) == main([*export, "4"]) == 0
    assert main([*export, "2"]) == 1
    assert "holds scene_002_0.20s.ply of another export, 2 such files in all" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--min-opacity", "2"], "no Gaussian of"),  # empty files were written
        (["--min-opacity", "nan"], "no Gaussian of"),
        (["--steps", "1000000"], "--steps must be 1 to 1000"),
        (["--step", "1e6"], "--step 0 to 2 s"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(
    tmp_path: Path, scene_file: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(scene_file), str(tmp_path / "out"), *options]) == 1
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_spz_files_are_the_scene_of_their_time(tmp_path: Path, scene_file: Path) -> None:
    gsply = pytest.importorskip("gsply", reason="needs the extra spz: pip install 'pixel4d_ros[spz]'")
    options = ["--steps", "2", "--step", "0.5", "--format", "spz"]
    assert main(["export", str(scene_file), str(tmp_path / "out"), *options]) == 0
    got = gsply.read_spz(tmp_path / "out" / "scene_001_0.50s.spz")
    scene = DynamicGaussians.load(scene_file).at(0.5)
    np.testing.assert_allclose(got.means @ FLIP, scene.means, atol=2e-4)
    np.testing.assert_allclose(np.exp(got.scales), scene.scales, rtol=0.04)
    np.testing.assert_allclose(1 / (1 + np.exp(-got.opacities)), scene.opacities, atol=0.003)
    np.testing.assert_allclose(got.sh0 * SH_C0 + 0.5, scene.colors, atol=0.005)
    turned = FLIP @ quaternion_to_matrix(torch.tensor(got.quats, dtype=torch.float64)).numpy() @ FLIP
    np.testing.assert_allclose(turned, quaternion_to_matrix(scene.quaternions.double()), atol=0.01)


def test_spz_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    """Header and positions as Niantic's README says: gzip, magic, version, count, 24-bit fixed point, y up, z back."""
    pytest.importorskip("gsply", reason="needs the extra spz: pip install 'pixel4d_ros[spz]'")
    scene = random_scene(4, n=7)
    save_spz(scene, tmp_path / "a.spz")
    data = gzip.decompress((tmp_path / "a.spz").read_bytes())
    magic, version, count, degree, bits = struct.unpack("<IIIBB", data[:14])
    assert (magic, version, count, degree) == (0x5053474E, 3, 7, 0)
    raw = np.frombuffer(data, np.uint8, 9 * count, 16).reshape(count, 3, 3).astype(np.int64)
    fixed = raw @ [1, 1 << 8, 1 << 16]
    positions = np.where(fixed >= 1 << 23, fixed - (1 << 24), fixed) / 2.0**bits
    np.testing.assert_allclose(positions * [1, -1, -1], scene.means, atol=2e-4)


def test_extreme_values_stay_finite(tmp_path: Path) -> None:
    gsply = pytest.importorskip("gsply", reason="needs the extra spz: pip install 'pixel4d_ros[spz]'")
    scene = random_scene(5, n=4)
    scene.means[0] = torch.tensor([0.0, -1.0, 1e5])
    scene.opacities[:2] = torch.tensor([0.0, 1.0])
    scene.scales[0] = 0.0
    save_spz(scene, tmp_path / "a.spz")
    got = gsply.read_spz(tmp_path / "a.spz")
    assert all(np.isfinite(values).all() for values in (got.means, got.scales, got.opacities, got.quats))
    assert got.means[0, 2] < -2000  # far ahead still, not wrapped round to behind


def test_without_gsply_the_extra_is_named(
    tmp_path: Path, scene_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gsply", None)
    assert main(["export", str(scene_file), str(tmp_path / "out"), "--format", "spz"]) == 1
    assert "pip install 'pixel4d_ros[spz]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
