# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite2 feature pyramid (Tan and Le 2019; the Lite variants of 2020 drop squeeze-excitation and swish).

Parameters come in the order of the public checkpoints, so those load one by one. Convolutions pad as TensorFlow does,
since the ImageNet weights were trained that way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

# repeats, kernel, stride, expansion, output channels
STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
FEATURE_CHANNELS = (16, 24, 48, 120, 352)  # at strides 2, 4, 8, 16, 32
_LAST_OF_STRIDE = (0, 1, 2, 4, 6)  # stages whose output is a pyramid level


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's 'same' padding: at stride 2 and even sizes the extra row is at the end."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        pads = []
        for size in (x.shape[-1], x.shape[-2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, stride, 0, 1, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; with a residual where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [SameConv(inputs, hidden, 1, bias=False), _norm(hidden), nn.ReLU6()]
        layers += [SameConv(hidden, hidden, kernel, stride, groups=hidden, bias=False), _norm(hidden), nn.ReLU6()]
        layers += [SameConv(hidden, outputs, 1, bias=False), _norm(outputs)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs
        self.drop = 0.0  # in training, the share of samples for which a residual is left out (Huang et al. 2016)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.layers(x)
        if not self.residual:
            return change
        if self.training and self.drop > 0:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
            change = change * (kept / (1 - self.drop)).to(change.dtype)
        return x + change


class Encoder(nn.Module):
    """RGB (B, 3, H, W) in 0..1, sides multiples of 32 -> features at strides 2, 4, 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(SameConv(3, 32, 3, 2, bias=False), _norm(32), nn.ReLU6())
        stages, channels = [], 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            blocks = []
            for i in range(repeats):
                blocks.append(InvertedResidual(channels, outputs, kernel, stride if i == 0 else 1, expansion))
                channels = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor, levels: int = len(FEATURE_CHANNELS)) -> list[Tensor]:
        """The features of the first levels."""
        x = self.stem((image * 255 - 127) / 128)  # the scaling of the Lite checkpoints
        features: list[Tensor] = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in _LAST_OF_STRIDE:
                features.append(x)
            if len(features) == levels:
                break
        return features

    def train(self, mode: bool = True) -> Encoder:
        """Batch statistics stay those of ImageNet.

        Batches here mix real and synthetic images too unevenly to average.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def drop_residuals(self, share: float) -> None:
        """In training leave residuals out at random: none at the start of the network, this share at its end."""
        blocks = [module for module in self.modules() if isinstance(module, InvertedResidual)]
        for i, block in enumerate(blocks):
            block.drop = share * i / (len(blocks) - 1)

    def fold(self) -> None:
        """Fold each norm into the convolution before it; afterwards the encoder cannot be trained."""
        for module in list(self.modules()):
            if isinstance(module, nn.Sequential):
                _fold_norms(module)

    def load_imagenet(self, state: dict[str, Tensor]) -> None:
        """Copy a public EfficientNet-Lite2 checkpoint, parameter by parameter in order; its classifier is left out.

        Raises ValueError when the shapes do not match.
        """
        own = self.state_dict()
        given = list(state.values())
        for (name, tensor), other in zip(own.items(), given):
            if tensor.shape != other.shape:
                raise ValueError(f"not an EfficientNet-Lite2 checkpoint: {name} is {tuple(other.shape)} there")
        self.load_state_dict({name: other for (name, _), other in zip(own.items(), given)})


def _fold_norms(layers: nn.Sequential) -> None:
    for i in range(len(layers) - 1):
        conv, norm = layers[i], layers[i + 1]
        if isinstance(conv, SameConv) and isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            layers[i + 1] = nn.Identity()


def load_backbone(path: str) -> dict[str, Tensor]:
    """Tensors of a public .pth checkpoint for training to start from; torch's restricted reader, which runs no code."""
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
