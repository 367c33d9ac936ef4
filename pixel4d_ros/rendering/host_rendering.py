# SPDX-License-Identifier: Apache-2.0
"""Rendering of all views of a moved scene into host memory, in parts that bound the memory of the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.rendering.moved_scene import (
    MovedScene,
    RenderedViews,
    advance,
    color_spread,
    distinct_views,
    render,
    runs,
)
from pixel4d_ros.rendering.streams import HostBuffer, StreamPool, to_host

VIEWS_PER_CALL = 28  # views rendered at once


@dataclass(frozen=True)
class HostRendering:
    """S futures in V views."""

    frames: NDArray[np.uint8]  # (S, V, H, W, 3) RGB
    depth: NDArray[np.float32]  # (S, V, H, W) metres, inf where nothing is visible; (0, V, H, W) if not requested
    confidence: NDArray[np.float32]  # (S, V) 0..1: share of pixels that come mostly from what the image showed
    uncertainty: NDArray[np.float32]  # (V, H, W) 0..1: standard deviation of the colours over the futures


class _HostBuffers:
    """Pinned memory for V views of S futures. A rendered view goes to each place that shows it."""

    def __init__(self, s: int, v: int, camera: Camera, with_depth: bool, device: torch.device) -> None:
        self.s, self.v, self.with_depth, image = s, v, with_depth, (camera.height, camera.width)
        self.frames = HostBuffer((s * v, *image, 3), torch.uint8, device)
        self.depth = HostBuffer((s * v if with_depth else 0, *image), torch.float32, device)
        self.uncertainty = HostBuffer((v if s > 1 else 0, *image), torch.float32, device)

    def put(self, k: int, future: RenderedViews, places: list[tuple[int, slice]]) -> None:
        for place, views in places:
            self.frames.put(k * self.v + place, future.frames[views])
            if future.depth is not None:
                self.depth.put(k * self.v + place, future.depth[views])

    def put_uncertainty(self, spread: Tensor, places: list[tuple[int, slice]]) -> None:
        for place, views in places:
            self.uncertainty.put(place, spread[views])

    def result(self, confidence: NDArray[np.float32]) -> HostRendering:
        """The views; only after to_host has waited for the device."""
        s, v, frames = self.s, self.v, self.frames.array()
        image = frames.shape[1:3]
        return HostRendering(
            frames.reshape(s, v, *image, 3),
            self.depth.array().reshape(s if self.with_depth else 0, v, *image),
            confidence,
            self.uncertainty.array() if s > 1 else np.broadcast_to(np.float32(0), (v, *image)),
        )


@torch.inference_mode()
def render_to_host(
    moved_scene: MovedScene, poses: FloatArray, camera: Camera, with_depth: bool = True
) -> HostRendering:
    """Render all futures from poses (V, 4, 4), T_source_camera, of which view i is at the scene's time i modulo T.

    Paths that start alike share views, which are rendered once. Copies to the host run beside the next rendering.
    """
    device, s, v = moved_scene.device, len(moved_scene.futures), len(poses)
    instants = np.arange(v) % len(moved_scene.times)
    distinct, source = distinct_views(poses, instants)
    starts = range(0, len(distinct), VIEWS_PER_CALL)
    buffers, streams, known = _HostBuffers(s, v, camera, with_depth, device), StreamPool(device, len(starts)), []
    for start in starts:
        some = distinct[start : start + VIEWS_PER_CALL]
        places = list(runs(source, start, len(some)))
        with streams.take_turn():
            futures = []
            for k, future in enumerate(render(moved_scene, poses[some], instants[some], camera, with_depth)):
                futures.append(future)
                with streams.copying():
                    buffers.put(k, future, places)
            known.append(torch.stack([future.confidence for future in futures]))
            if s > 1:
                spread = color_spread(futures)
                with streams.copying():
                    buffers.put_uncertainty(spread, places)
    streams.join()
    confidence, complete = to_host(torch.cat(known, 1), moved_scene.complete)
    if not complete:  # more Gaussians move than advance reserved room for
        counted = advance(moved_scene.futures, moved_scene.times, exact=True)
        return render_to_host(counted, poses, camera, with_depth)
    return buffers.result(confidence[:, source])
