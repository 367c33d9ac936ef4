# SPDX-License-Identifier: Apache-2.0
"""The ONNX graph of the predictor computes what the predictor computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pixel4d_ros.camera import Camera
from pixel4d_ros.cli import main
from pixel4d_ros.geometry.quaternions import quaternion_to_matrix
from pixel4d_ros.predictor import Predictor
from pixel4d_ros.predictor.input_view import resize
from pixel4d_ros.predictor.objects import ObjectCells, nearest_peaks

WIDTH, HEIGHT, FOCAL = 160, 96, 120.0


@pytest.fixture
def exporting(monkeypatch):
    """Code takes the way that it takes during an export."""

    def switch(on: bool) -> None:
        monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: on)

    return switch


@pytest.mark.parametrize("size", [(50, 31), (130, 77)])
def test_images_are_resampled_alike_in_the_graph(exporting, size):
    image = torch.rand(1, 3, 64, 101)
    expected = resize(image, *size)
    exporting(True)
    torch.testing.assert_close(resize(image, *size), expected)


def test_objects_are_found_alike_in_the_graph(exporting):
    generator = torch.Generator().manual_seed(1)
    center, offset = torch.randn(20, 40, generator=generator), torch.randn(2, 20, 40, generator=generator)
    cells = ObjectCells.of(80, 160, torch.ones(1))
    expected = nearest_peaks(center, offset, cells)
    assert len(expected.unique()) > 5
    exporting(True)
    assert torch.equal(nearest_peaks(center, offset, cells), expected)


@pytest.mark.slow
@pytest.mark.timeout(900)  # torch's exporter takes 40 s of one core
def test_the_graph_gives_the_predictors_gaussians(tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")
    pytest.importorskip("onnxscript", reason="needs onnxscript: pip install onnxscript")
    path = tmp_path / "camera.onnx"
    intrinsics = [str(value) for value in (FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2)]
    assert main(["export", "--onnx", str(path), "--size", f"{WIDTH}x{HEIGHT}", "--intrinsics", *intrinsics]) == 0
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert {(i.name, tuple(i.shape), i.type) for i in session.get_inputs()} == {
        ("image", (HEIGHT, WIDTH, 3), "tensor(uint8)"),
        ("speed", (2,), "tensor(float)"),
    }
    image = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    given = {"image": image, "speed": np.array([8, 1], np.float32)}
    found = dict(zip([output.name for output in session.get_outputs()], session.run(None, given)))

    K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    predictor = Predictor.load(None, torch.device("cpu"))
    scene = predictor.predict(torch.from_numpy(image), Camera(K, WIDTH, HEIGHT), 1, 0, speed=8.0)
    depth = scene.means[:, 2:].abs().clamp(min=1).numpy()
    np.testing.assert_allclose(found["means"] / depth, scene.means.numpy() / depth, atol=1e-3)
    assert covariances(found["quaternions"], found["scales"], depth) == pytest.approx(
        covariances(scene.quaternions.numpy(), scene.scales.numpy(), depth), abs=1e-3
    )
    np.testing.assert_allclose(found["opacities"], scene.opacities.numpy(), atol=1e-3)
    np.testing.assert_allclose(found["colors"], scene.colors.numpy(), atol=1e-3)
    np.testing.assert_array_equal(found["object_ids"], scene.object_ids.numpy())
    np.testing.assert_allclose(found["centroids"], scene.centroids.numpy(), atol=1e-3)
    moved = found["motions"][found["object_ids"], 0]
    np.testing.assert_allclose(moved, scene.velocities.numpy(), atol=1e-3)


def covariances(quaternions: np.ndarray, scales: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(N, 3, 3) in units of the depth; quaternions alone differ where two axes are as long."""
    axes = quaternion_to_matrix(torch.from_numpy(quaternions)).numpy() * (scales / depth)[:, None]
    return axes @ axes.swapaxes(1, 2)


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--onnx", "a.onnx"], "--onnx needs the size of the images, e.g. --size 1280x720"),
        (["--onnx", "a.onnx", "--size", "64x64", "scene"], "needs no scene"),
        ([], "export needs a scene and a folder, or --onnx"),
    ],
)
def test_what_cannot_be_exported_is_refused(arguments: list[str], cause: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) != 0
    assert cause in capsys.readouterr().err


def test_images_too_small_for_the_network_are_refused(capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["export", "--onnx", "a.onnx", "--size", "9x9"])
    assert "from 32 to 8192 pixels" in capsys.readouterr().err
