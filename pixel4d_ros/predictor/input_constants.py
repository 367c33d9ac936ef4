# SPDX-License-Identifier: Apache-2.0
"""InputConstants: the tensors that depend on the camera but not on the image, made once per camera."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pixel4d_ros.camera import Camera
from pixel4d_ros.predictor.background import Background
from pixel4d_ros.predictor.heads import latent_shape
from pixel4d_ros.predictor.input_view import SURFACE_FOCAL, InputView, cached_tensor, view_rays
from pixel4d_ros.predictor.lifting import VisibleGrid
from pixel4d_ros.predictor.objects import ObjectCells


@dataclass(frozen=True)
class InputConstants:
    """The constants of one camera on one device."""

    camera: Camera
    device: torch.device

    @cached_property
    def view(self) -> InputView:
        """The image as the network sees it."""
        return InputView.of(self.camera)

    @cached_property
    def fine(self) -> InputView:
        """The image as the surface branch sees it."""
        return self.view.finer(self.camera)

    @cached_property
    def grid(self) -> VisibleGrid:
        """The visible Gaussians' grid."""
        return VisibleGrid.of(self.camera, self.fine)

    @cached_property
    def key(self) -> tuple[float, ...]:
        """A hashable value that equal cameras share."""
        return (*self.camera.K.ravel().tolist(), self.camera.width, self.camera.height)

    def fits(self, camera: Camera) -> bool:
        """Whether these are the camera's constants."""
        size = (camera.width, camera.height)
        return size == (self.camera.width, self.camera.height) and np.array_equal(camera.K, self.camera.K)

    @cached_property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one latent."""
        return latent_shape(self.view.width, self.view.height)

    @cached_property
    def depth_scale(self) -> Tensor:
        """(1,) metres per canonical metre."""
        return torch.full((1,), self.view.depth_scale, device=self.device)

    @cached_property
    def grid_K(self) -> Tensor:
        """(1, 3, 3) of the padded grid."""
        return torch.tensor(self.grid.camera.K, dtype=torch.float32, device=self.device)[None]

    @cached_property
    def view_K(self) -> Tensor:
        """(1, 3, 3) of the padded input view."""
        return torch.tensor(self.view.camera.K, dtype=torch.float32, device=self.device)[None]

    @cached_tensor
    def rays(self, dtype: torch.dtype) -> Tensor:
        """(1, 2, H, W) of the input view, as the network takes them."""
        rays = view_rays(self.view_K, self.view.width, self.view.height)
        return rays.to(dtype, memory_format=torch.channels_last)

    @cached_tensor
    def inside(self, dtype: torch.dtype) -> Tensor:
        """(1, 1, H, W) of the input view, as the network takes it: 1 where the camera saw, 0 in the padding."""
        return self.view.inside(self.device)[None, None].to(dtype, memory_format=torch.channels_last)

    @cached_property
    def fine_depth_scale(self) -> Tensor:
        """(1,) metres per canonical metre of the surface branch."""
        return torch.full((1,), float(self.fine.inner.K[0, 0]) / SURFACE_FOCAL, device=self.device)

    @cached_property
    def fine_K(self) -> Tensor:
        """(1, 3, 3) of the padded fine view."""
        return torch.tensor(self.fine.camera.K, dtype=torch.float32, device=self.device)[None]

    @cached_property
    def always(self) -> Tensor:
        """(1,) true."""
        return torch.ones(1, dtype=torch.bool, device=self.device)

    @cached_tensor
    def fine_rays(self, dtype: torch.dtype) -> Tensor:
        """(1, 2, H, W) of the fine view, as the surface branch takes them."""
        rays = view_rays(self.fine_K, self.fine.width, self.fine.height, SURFACE_FOCAL)
        return rays.to(dtype, memory_format=torch.channels_last)

    @cached_tensor
    def fine_inside(self, dtype: torch.dtype) -> Tensor:
        """(1, 1, H, W) of the fine view: 1 where the camera saw, 0 in the padding."""
        return self.fine.inside(self.device)[None, None].to(dtype, memory_format=torch.channels_last)

    @cached_property
    def seen(self) -> Tensor:
        """(H, W) bool of the input view: where the camera saw."""
        return self.view.inside(self.device) > 0

    @cached_property
    def points(self) -> Tensor:
        """(3, H, W) metres: what the pixels of the input view would see at a depth of one canonical metre."""
        rays = view_rays(self.view_K, self.view.width, self.view.height)[0]
        return torch.cat((rays, self.depth_scale[:, None, None].expand_as(rays[:1])))

    @cached_property
    def cells(self) -> ObjectCells:
        """The cells in which objects are found."""
        return ObjectCells.of(self.view.height, self.view.width, self.depth_scale)

    @cached_property
    def fine_cells(self) -> ObjectCells:
        """The cells in which instances are found."""
        return ObjectCells.of(self.fine.height, self.fine.width, self.depth_scale)

    @cached_property
    def background(self) -> Background:
        """The background around the input view."""
        return Background.of(self.view_K, self.view.width, self.view.height, self.depth_scale)

    @cached_property
    def observed(self) -> Tensor:
        """(N,) of a scene's Gaussians: 1 where the camera saw, 0 what is guessed."""
        return torch.cat((self.grid.inside(self.device).flatten(), torch.zeros(self._guessed, device=self.device)))

    @cached_property
    def pixels(self) -> Tensor:
        """(N,) the pixel of the input view whose object each Gaussian of a scene belongs to.

        Behind the visible layer nothing belongs to one: that is the pixel in the corner, which lies in the padding.
        """
        height, width = self.view.height, self.view.width
        visible = self.grid.sample_nearest(torch.arange(height * width, device=self.device).view(height, width))
        return torch.cat((visible.flatten(), visible.new_zeros(self._guessed)))

    @property
    def _guessed(self) -> int:
        """How many Gaussians there are behind the visible layer."""
        return self.view.width * self.view.height + self.background.means.shape[1]
