"""Layout: all that a prediction's shapes and constants depend on, made once per camera."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pixel4d_ros.camera import Camera
from pixel4d_ros.predictor.canvas import Canvas, canvas_rays
from pixel4d_ros.predictor.lifting import Grid
from pixel4d_ros.predictor.shell import Shell


@dataclass(frozen=True)
class Layout:
    """Of one camera on one device."""

    camera: Camera
    device: torch.device

    @cached_property
    def canvas(self) -> Canvas:
        """What the network sees."""
        return Canvas.of(self.camera)

    @cached_property
    def grid(self) -> Grid:
        """The visible Gaussians' grid."""
        return Grid.of(self.camera, self.canvas)

    @cached_property
    def key(self) -> tuple[float, ...]:
        """The same for equal cameras."""
        return (*self.camera.K.ravel().tolist(), self.camera.width, self.camera.height)

    def fits(self, camera: Camera) -> bool:
        """Whether this is the camera's layout."""
        size = (camera.width, camera.height)
        return size == (self.camera.width, self.camera.height) and np.array_equal(camera.K, self.camera.K)

    @cached_property
    def depth_scale(self) -> Tensor:
        """(1,) metres per canonical metre."""
        return torch.full((1,), self.canvas.depth_scale, device=self.device)

    @cached_property
    def grid_K(self) -> Tensor:
        """(1, 3, 3) of the padded grid."""
        return torch.tensor(self.grid.camera.K, dtype=torch.float32, device=self.device)[None]

    @cached_property
    def canvas_K(self) -> Tensor:
        """(1, 3, 3) of the padded canvas."""
        return torch.tensor(self.canvas.camera.K, dtype=torch.float32, device=self.device)[None]

    @cached_property
    def rays(self) -> Tensor:
        """(1, 2, H, W) of the canvas."""
        return canvas_rays(self.canvas_K, self.canvas.width, self.canvas.height)

    @cached_property
    def shell(self) -> Shell:
        """The shell around the canvas."""
        return Shell.of(self.canvas_K, self.canvas.width, self.canvas.height, self.depth_scale)

    @cached_property
    def count(self) -> int:
        """How many Gaussians a scene has."""
        grid, canvas = self.grid.camera, self.canvas
        return grid.width * grid.height + canvas.width * canvas.height + self.shell.means.shape[1]
