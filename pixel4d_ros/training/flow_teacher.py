# SPDX-License-Identifier: Apache-2.0
"""Dense labels of real clips by a trained flow network: depth from matches along epipolar lines, and flow.

A teacher for training only. Labels of a clip are kept in a folder on disk, by which the processes of a run share the
work and a resumed run starts at once.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.rotations import rigid_inverse
from pixel4d_ros.training.flow import frame_gaps, no_flow
from pixel4d_ros.training.flow_network import MULTIPLE, FlowNetwork
from pixel4d_ros.training.matched_points import best_of, is_textured, is_there_and_back, triangulated

PIXELS = 832 * 256  # of the images between which flow is measured: smaller ones are enlarged, larger ones shrunk
LARGEST_SCALE = 2.1
BATCH = 8  # pairs at once
PATIENCE = 900  # seconds that a process waits for the labels of a clip that another one makes
VERSION = 2  # of the labels: raise it when their making changes


@dataclass(frozen=True)
class TaughtLabels:
    """Of T frames."""

    flow: NDArray[np.float16]  # (T, h, w, 2) to the frame clip_gap later, shares of width and height; NaN where unknown
    depth: NDArray[np.float16]  # (T, H, W) in the clip's units, 0 where unknown


class FlowTeacher:
    """Makes labels, or reads them from its folder. Threads may share it; the device works for one of them at a time.

    weights: the published GMFlow weights (two scales), read as tensors only. Clips are numbered through the run; those
    with number % world == rank are made here, for the others it waits until another process has made them.
    """

    def __init__(self, weights: Path, folder: Path, device: torch.device, rank: int = 0, world: int = 1) -> None:
        self.folder, self.device, self.rank, self.world = folder, device, rank, world
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            self.network = FlowNetwork()
            self.network.load_state_dict(state)
        except Exception as error:  # torch.load raises many kinds, some with a line for each tensor
            text = " ".join(str(error).split())[:200]
            raise ValueError(f"{weights} holds no weights of GMFlow with two scales: {text}") from error
        self.network.eval().requires_grad_(False).to(device)
        self.name = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
        self._lock = Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def is_own(self, number: int) -> bool:
        """Whether this process makes the labels of a clip."""
        return number % self.world == self.rank

    def labels(self, clip: Clip, number: int) -> TaughtLabels:
        """Labels of a clip in memory. Raises TimeoutError when the process that should make them does not."""
        path = self.folder / f"{self._key(clip)}.npz"
        deadline = time.monotonic() + PATIENCE
        while not path.is_file():
            if self.is_own(number):
                with self._lock:
                    made = self._made(clip)
                temporary = path.with_suffix(f".{os.getpid()}.tmp")
                with temporary.open("wb") as file:
                    np.savez(file, flow=made.flow, depth=made.depth)
                temporary.replace(path)
                return made
            if time.monotonic() > deadline:
                raise TimeoutError(f"no other process of the run made {path} within {PATIENCE} s")
            time.sleep(0.2)
        with np.load(path) as content:
            return TaughtLabels(content["flow"], content["depth"])

    def _key(self, clip: Clip) -> str:
        """Names a clip's labels by all that they depend on but the pixels, of which the first frame is taken."""
        parts = [np.asarray(clip.images[0]), clip.poses, clip.K, clip.times]
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest()[:12]
        return f"{clip.name}-{len(clip)}-{digest}-{self.name}-{VERSION}"

    @torch.no_grad()
    def _made(self, clip: Clip) -> TaughtLabels:
        """Flow over the first of the clip's gaps; depth from the other camera if there is one, else from all gaps."""
        size = working_size(clip.images.shape[2], clip.images.shape[1])
        flow, depth = no_flow(clip), np.zeros(clip.images.shape[:3], np.float16)
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(len(clip))]  # depth and parallax, per frame
        gaps = [gap for gap in frame_gaps(clip) if gap < len(clip)]
        for gap in gaps[:1] if clip.stereo is not None else gaps:
            for first in range(0, len(clip) - gap, BATCH):
                ts = range(first, min(first + BATCH, len(clip) - gap))
                there, back = self._flows(clip, list(ts), clip, [t + gap for t in ts], size)
                for i, t in enumerate(ts):
                    if gap == gaps[0]:
                        flow[t] = _as_shares(there[i], back[i], flow.shape[1:3])
                    if clip.stereo is None:
                        found[t].append(_depth(clip, t, clip, t + gap, there[i], back[i]))
                        found[t + gap].append(_depth(clip, t + gap, clip, t, back[i], there[i]))
        if clip.stereo is not None:
            for first in range(0, len(clip), BATCH):
                ts = range(first, min(first + BATCH, len(clip)))
                there, back = self._flows(clip, list(ts), clip.stereo, list(ts), size)
                for i, t in enumerate(ts):
                    found[t].append(_depth(clip, t, clip.stereo, t, there[i], back[i]))
        for t, estimates in enumerate(found):
            if estimates:
                best = best_of([(z.float(), parallax.float()) for z, parallax in estimates])[0]
                whole = F.interpolate(best[None, None], depth.shape[1:], mode="nearest-exact")
                depth[t] = whole[0, 0].cpu().numpy().astype(np.float16)
        return TaughtLabels(flow, depth)

    def _flows(
        self, clip: Clip, ts: list[int], other: Clip, ss: list[int], size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Flow (N, 2, h, w) between frames ts of a clip and ss of another, there and back, in pixels at size."""
        first, second = (self._images(c, frames, size) for c, frames in ((clip, ts), (other, ss)))
        half = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.float16, enabled=half):
            there, back = self.network(first, second)
        return there.float(), back.float()

    def _images(self, clip: Clip, frames: list[int], size: tuple[int, int]) -> Tensor:
        images = torch.from_numpy(np.stack([clip.images[t] for t in frames])).to(self.device)
        images = images.permute(0, 3, 1, 2).float() / 255
        return F.interpolate(images, size[::-1], mode="bilinear", antialias=True)


def working_size(width: int, height: int) -> tuple[int, int]:
    """Width and height, multiples of MULTIPLE, at which flow of images of width x height is measured."""
    scale = min(LARGEST_SCALE, (PIXELS / (width * height)) ** 0.5)
    wide, high = (max(2 * MULTIPLE, MULTIPLE * round(n * scale / MULTIPLE)) for n in (width, height))
    return wide, high


def _depth(clip: Clip, t: int, other: Clip, s: int, there: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
    """Depth (h, w) of frame t by its matches in frame s of other, 0 where unclear, and their parallax in pixels."""
    image = torch.from_numpy(np.ascontiguousarray(clip.images[t])).to(there.device).permute(2, 0, 1)
    image = F.interpolate(image[None].float(), there.shape[1:], mode="bilinear", antialias=True)[0]
    height, width = there.shape[1:]
    native = clip.images.shape[2], clip.images.shape[1]
    K, other_K = (Camera(given, *native).resized(width, height).K for given in (clip.K, other.K))
    T = rigid_inverse(other.poses[s]) @ clip.poses[t]
    known = is_there_and_back(there, back) & is_textured(image)
    depth, parallax = triangulated(there, known, K, other_K, T)
    return depth.clamp(max=6e4).half(), parallax.half()  # of a long clip they take gigabytes


def _as_shares(there: Tensor, back: Tensor, size: tuple[int, ...]) -> NDArray[np.float16]:
    """Flow (2, h, w) in pixels as shares (*size, 2) of width and height; NaN where the two directions disagree."""
    shares = there / there.new_tensor([there.shape[2], there.shape[1]])[:, None, None]
    small = F.interpolate(shares[None], size, mode="bilinear", antialias=True)[0]
    known = is_there_and_back(there, back)[None, None].float()
    small = torch.where(F.interpolate(known, size, mode="nearest-exact")[0] > 0, small, torch.nan)
    return small.permute(1, 2, 0).cpu().numpy().astype(np.float16)
