"""Triton kernels against the torch code they stand for."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pixel4d_ros.predictor import fused
from pixel4d_ros.predictor.lifting import surface_gaussians
from pixel4d_ros.rotations import quaternion_to_matrix

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU with Triton")


def test_on_the_cpu_torch_does_the_steps() -> None:
    assert not fused.usable(torch.device("cpu"))


def covariances(quaternions: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    axes = quaternion_to_matrix(quaternions) * scales[..., None, :]
    return axes @ axes.transpose(-1, -2)


@pytest.mark.gpu
@needs_gpu
def test_gaussians_are_those_of_torch() -> None:
    torch.manual_seed(0)
    inverse = 1 / (torch.rand(2, 23, 37) * 20 + 3)
    inverse[0, 5:9, 7:20] = 0.02  # a plane that faces the camera, with edges around it
    inverse[1] = torch.linspace(0.01, 0.3, 23)[:, None]  # a road
    K = torch.tensor([[[120.0, 0, 18], [0, 130, 11], [0, 0, 1]], [[90, 0, 18], [0, 90, 3], [0, 0, 1]]])
    given = [t.cuda() for t in (inverse, K, torch.rand(2, 23, 37) * 0.4 + 0.4)]
    assert fused.usable(given[0].device)
    with torch.enable_grad():
        means, quaternions, scales = surface_gaussians(*given)  # with gradients it is torch's own steps
    with torch.no_grad():
        quick = surface_gaussians(*given)
    torch.testing.assert_close(quick[0], means)
    torch.testing.assert_close(quick[2], scales, rtol=1e-4, atol=1e-6)
    # Not the quaternions themselves: a round patch has no long axis.
    wanted, found = covariances(quaternions, scales), covariances(quick[1], quick[2])
    assert ((wanted - found).abs().amax((-1, -2)) < 1e-4 * wanted.abs().amax((-1, -2))).all()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("channels", "height", "width"), [(48, 13, 29), (64, 40, 60), (192, 3, 5)])
def test_normalised_features_are_those_of_torch(channels: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    x = (torch.randn(1, channels, height, width, device="cuda") * 2 + 1).half()
    x = x.contiguous(memory_format=torch.channels_last)
    weight, bias = torch.rand(channels, device="cuda").half() + 0.5, torch.randn(channels, device="cuda").half()
    wanted = F.silu(F.group_norm(x.float(), 8, weight.float(), bias.float(), 1e-5))
    found = fused.group_norm_silu(x, 8, weight, bias, 1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.float(), wanted, rtol=2e-3, atol=5e-3)
