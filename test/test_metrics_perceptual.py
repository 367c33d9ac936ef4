# SPDX-License-Identifier: Apache-2.0
"""LPIPS and FVD with small stand-in weights, against the same formulas written down directly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.errors import WeightsError
from pixel4d_ros.evaluation.frechet import frechet_distance
from pixel4d_ros.evaluation.metrics import psnr, ssim
from pixel4d_ros.evaluation.perceptual import load_lpips, load_video_features

RANDOM = np.random.default_rng(5)
CPU = torch.device("cpu")


def alexnet() -> nn.Sequential:
    """AlexNet's features as torchvision lays them out, a sixteenth as wide."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(4, 12, 5, 1, 2), nn.ReLU()),
        *(nn.MaxPool2d(3, 2), nn.Conv2d(12, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, 16, 3, 1, 1), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU()),
    )


def vgg() -> nn.Sequential:
    """VGG16's features as torchvision lays them out, very narrow."""
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    width = 3
    for i, (out, count) in enumerate(((2, 2), (4, 2), (6, 3), (8, 3), (8, 3))):
        layers += [nn.MaxPool2d(2, 2)] if i else []
        for _ in range(count):
            layers += [nn.Conv2d(width, out, 3, 1, 1), nn.ReLU()]
            width = out
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("network", "taps"), [(alexnet(), (1, 4, 7, 9, 11)), (vgg(), (3, 8, 15, 22, 29))], ids=["alex", "vgg"]
)
def test_lpips_is_its_formula(network: nn.Sequential, taps: tuple[int, ...], tmp_path: Path) -> None:
    a, b = (RANDOM.integers(0, 256, (3, 72, 80, 3), dtype=np.uint8) for _ in range(2))
    layers = list(network.children())
    widths = [[m for m in layers[:tap] if isinstance(m, nn.Conv2d)][-1].out_channels for tap in taps]
    linear = [torch.rand(w) for w in widths]
    torch.save({f"features.{k}": v for k, v in network.state_dict().items()}, tmp_path / "net.pth")
    torch.save({f"lin{i}.model.1.weight": w.view(1, -1, 1, 1) for i, w in enumerate(linear)}, tmp_path / "lin.pth")
    lpips = load_lpips(tmp_path / "net.pth", tmp_path / "lin.pth", CPU)

    def features(video: np.ndarray) -> list[Tensor]:
        x = torch.from_numpy(video).permute(0, 3, 1, 2).float() / 255 * 2 - 1
        x = (x - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor([0.458, 0.448, 0.450])[
            :, None, None
        ]
        found = []
        for i, layer in enumerate(layers):
            x = layer(x)
            if i in taps:
                found.append(F.normalize(x, dim=1))
        return found

    with torch.no_grad():
        expected = sum(
            (w[:, None, None] * (x - y) ** 2).sum(1).mean((1, 2))
            for w, x, y in zip(linear, features(a), features(b), strict=True)
        )
    assert isinstance(expected, Tensor)
    np.testing.assert_allclose(lpips(a, b), expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(lpips(a, a), 0, atol=1e-7)


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="alexnet or vgg16"):
        load_lpips(tmp_path / "net.pth", tmp_path / "net.pth", CPU)
    with pytest.raises(WeightsError, match="does not exist"):
        load_lpips(tmp_path / "none.pth", tmp_path / "net.pth", CPU)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_lpips(tmp_path / "text.pth", tmp_path / "net.pth", CPU)
    with pytest.raises(WeightsError, match="i3d_torchscript"):
        load_video_features(tmp_path / "text.pth", CPU)


def square_root(matrix: np.ndarray) -> np.ndarray:
    """Of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(values.clip(0)) @ vectors.T)


@pytest.mark.parametrize("dimensions", [3, 40])
def test_the_frechet_distance_is_its_formula(dimensions: int) -> None:
    """Also where there are fewer videos than dimensions, and the covariances have no full rank."""
    a = RANDOM.normal(size=(20, dimensions))
    b = 0.5 + 1.5 * RANDOM.normal(size=(25, dimensions)) @ RANDOM.normal(size=(dimensions, dimensions))
    S_a, S_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = square_root(square_root(S_a) @ S_b @ square_root(S_a))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(S_a + S_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)
    with pytest.raises(ValueError, match="two or more"):
        frechet_distance(a[:1], b)


class TinyI3d(nn.Module):
    """Takes what the published I3D file takes."""

    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        if rescale:
            x = x / 127.5 - 1
        return torch.cat((x.mean((2, 3, 4)), x.std((2, 3, 4))), 1)


def test_video_features_are_those_of_the_file(tmp_path: Path) -> None:
    torch.jit.script(TinyI3d()).save(str(tmp_path / "i3d.pt"))
    features = load_video_features(tmp_path / "i3d.pt", CPU)
    video = RANDOM.integers(0, 256, (14, 32, 48, 3), dtype=np.uint8)
    scaled = video.reshape(-1, 3).astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(features(video), [*scaled.mean(0), *scaled.std(0, ddof=1)], atol=1e-5)


def test_psnr_and_ssim_agree_with_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    functional = torchmetrics.functional.image
    for sigma in (3, 30):
        a = RANDOM.integers(0, 256, (48, 64, 3)).astype(np.uint8)
        b = np.clip(a + RANDOM.normal(0, sigma, a.shape), 0, 255).astype(np.uint8)
        x, y = (torch.from_numpy(i).permute(2, 0, 1)[None].double() / 255 for i in (a, b))
        assert psnr(a, b) == pytest.approx(float(functional.peak_signal_noise_ratio(x, y, data_range=1.0)), abs=1e-4)
        expected = functional.structural_similarity_index_measure(x, y, data_range=1.0, sigma=1.5, kernel_size=11)
        assert ssim(a, b) == pytest.approx(float(expected), abs=1e-4)
