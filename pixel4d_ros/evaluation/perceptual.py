# SPDX-License-Identifier: Apache-2.0
"""LPIPS, FLIP and the features of FVD; published weights are given by the user, none come with the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.errors import WeightsError
from pixel4d_ros.geometry.rotations import FloatArray

Video = NDArray[np.uint8]  # (T, H, W, 3) RGB

# Convolutions (name in torchvision's files, stride, padding), "pool" and "tap": where LPIPS compares features.
ALEX = (
    ("0", 4, 2),
    "tap",
    "pool",
    ("3", 1, 2),
    "tap",
    "pool",
    ("6", 1, 1),
    "tap",
    ("8", 1, 1),
    "tap",
    ("10", 1, 1),
    "tap",
)
VGG_LAYERS = (("0", "2"), ("5", "7"), ("10", "12", "14"), ("17", "19", "21"), ("24", "26", "28"))
VGG: tuple[Any, ...] = tuple(
    item
    for i, block in enumerate(VGG_LAYERS)
    for item in (*(("pool",) if i else ()), *((name, 1, 1) for name in block), "tap")
)
FLIP_EVERY = 4  # frames: FLIP takes a second for an image of 832x256 pixels
POOLS = {"alex": (3, 2), "vgg": (2, 2)}  # kernel and stride
# LPIPS's own scaling of RGB in -1..1.
SHIFT, SCALE = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])


class Lpips(nn.Module):
    """Learned perceptual distance of images (R. Zhang et al., CVPR 2018), version 0.1 of the reference.

    Channel-wise unit-length features of five layers, squared differences weighted per channel, averaged over pixels
    and summed over layers.
    """

    def __init__(self, backbone: dict[str, Tensor], linear: dict[str, Tensor]) -> None:
        """backbone: torchvision's AlexNet or VGG16; linear: the lpips package's weights for it (lin0..lin4).

        Raises KeyError or ValueError when they are something else.
        """
        super().__init__()
        self.kind = "vgg" if "features.28.weight" in backbone else "alex"
        self.plan = VGG if self.kind == "vgg" else ALEX
        for item in self.plan:
            if isinstance(item, tuple):
                name = item[0]
                self.register_buffer(f"w{name}", backbone[f"features.{name}.weight"].float())
                self.register_buffer(f"b{name}", backbone[f"features.{name}.bias"].float())
        taps = sum(item == "tap" for item in self.plan)
        for i in range(taps):
            self.register_buffer(f"lin{i}", linear[f"lin{i}.model.1.weight"].float())

    @torch.inference_mode()
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance (B,) of images (B, 3, H, W), RGB in -1..1."""
        total = torch.zeros(len(a), device=a.device)
        for i, (x, y) in enumerate(zip(self._features(a), self._features(b))):
            difference = (_unit(x) - _unit(y)) ** 2
            total = total + F.conv2d(difference, getattr(self, f"lin{i}")).mean((1, 2, 3))
        return total

    def _features(self, images: Tensor) -> list[Tensor]:
        shift, scale = (values.to(images).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        x, taps = (images - shift) / scale, []
        for item in self.plan:
            if item == "tap":
                taps.append(x)
            elif item == "pool":
                x = F.max_pool2d(x, *POOLS[self.kind])
            else:
                name, stride, padding = item
                x = F.relu(F.conv2d(x, getattr(self, f"w{name}"), getattr(self, f"b{name}"), stride, padding))
        return taps


def _unit(features: Tensor) -> Tensor:
    return features.div(features.norm(dim=1, keepdim=True) + 1e-10)


def load_lpips(backbone: Path, linear: Path, device: torch.device) -> Callable[[Video, Video], FloatArray]:
    """LPIPS (T,) of two videos (T, H, W, 3), from the two files' weights. Raises WeightsError."""
    try:
        network = Lpips(_state(backbone), _state(linear)).to(device)
    except (KeyError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{backbone} and {linear} are not the weights of LPIPS: give torchvision's alexnet or vgg16 file and the"
            f" lpips package's weights/v0.1/alex.pth or vgg.pth for it ({error})"
        ) from error

    def distance(a: Video, b: Video) -> FloatArray:
        x, y = (torch.from_numpy(np.ascontiguousarray(v)).to(device).permute(0, 3, 1, 2).float() for v in (a, b))
        return np.asarray(network(x / 127.5 - 1, y / 127.5 - 1).cpu().numpy(), np.float64)

    return distance


def load_flip() -> Callable[[Video, Video], FloatArray]:
    """FLIP (T,) of a video (T, H, W, 3) and the true one, at every FLIP_EVERY-th frame from 1 on, NaN at the others.

    P. Andersson et al., "FLIP: a difference evaluator for alternating images", 2020; 0 is no visible difference.
    Raises ValueError where flip-evaluator is not installed.
    """
    try:
        import flip_evaluator
    except ImportError as error:
        raise ValueError("--flip needs the package flip-evaluator: pip install flip-evaluator") from error

    def distance(a: Video, b: Video) -> FloatArray:
        found = np.full(len(a), np.nan)
        for i in range(1, len(a), FLIP_EVERY):
            frame, truth = (np.ascontiguousarray(v[i], np.float32) / 255 for v in (a, b))
            found[i] = flip_evaluator.evaluate(truth, frame, "LDR", applyMagma=False)[1]
        return found

    return distance


def load_video_features(path: Path, device: torch.device) -> Callable[[Video], FloatArray]:
    """Features (D,) of a video for FVD, by the I3D TorchScript of StyleGAN-V.

    The file (i3d_torchscript.pt) takes (1, 3, T, H, W) in 0..255 and resizes itself. Raises WeightsError.
    """
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise WeightsError(f"{path} is not a TorchScript file: give i3d_torchscript.pt ({error})") from error

    @torch.inference_mode()
    def features(video: Video) -> FloatArray:
        x = torch.from_numpy(np.ascontiguousarray(video)).to(device).permute(3, 0, 1, 2).float()[None]
        found = network(x, rescale=True, resize=True, return_features=True)
        return np.asarray(found[0].flatten().cpu().numpy(), np.float64)

    return features


def _state(path: Path) -> dict[str, Tensor]:
    """Weights by name from a .pth file, read without running code in it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist") from None
    except Exception as error:
        raise WeightsError(f"{path} cannot be read as PyTorch weights: {error}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no weights by name")
    return state
