# SPDX-License-Identifier: Apache-2.0
"""Draw contacts that `pixel4d evaluate --clearance` misses: image, predicted depth, and the scene from above.

    python research/draw_contacts.py ../shared/logs docs/lab/missed_contacts.jpg

Yellow (from above: white) are LiDAR returns of obstacles, red those that the vehicle touches on its path. From above,
ground is brown and what the clearance takes for an obstacle is blue. The logs are excerpts of KITTI raw (CC BY-NC-SA
3.0, A. Geiger, P. Lenz, C. Stiller, R. Urtasun).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.open import open_clips
from pixel4d_ros.evaluation.clearance import CAR, measured_distances, probe_paths, standing_returns
from pixel4d_ros.evaluation.compare import Picture
from pixel4d_ros.evaluation.depth_picture import depth_picture
from pixel4d_ros.evaluation.video import BLUE, GREY, ORANGE, sheet
from pixel4d_ros.evaluation.windows import cut
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.geometry.optical import FORWARD_OPTICAL
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.outputs.clearance import find_scene_obstacles
from pixel4d_ros.outputs.ground import to_frame
from pixel4d_ros.outputs.obstacles import HEIGHTS
from pixel4d_ros.scene import DynamicGaussians

FRAMES, SIZE = 14, (520, 160)
BEHIND, ABOVE, PIXELS_PER_M = (
    2.5,
    (26.0, 8.0),
    40.0,
)  # metres behind the camera, and along and across in all, from above
RED, YELLOW, WHITE, BROWN = (255, 40, 40), (255, 230, 0), (240, 240, 240), (110, 90, 60)


@dataclass(frozen=True)
class Miss:
    """A path (of clearance.TWISTS) from an image of a log."""

    text: str
    log: str
    image: int
    path: int


MISSES = (
    Miss("A post of 0.1 m at 6 m is not predicted, the man behind it 17 % too far", "train/kitti_0005", 60, 0),
    Miss("A chain, a bollard and a table: the depth map shows none of them", "train/kitti_0005", 96, 3),
    Miss("A cyclist 22 % too far: the ground beneath is right to 2 %", "train/kitti_0005", 48, 2),
    Miss("A lorry's rear is predicted to turn away from the camera: passed at 0.3 m", "train/kitti_0052", 24, 3),
    Miss("A wall predicted 1.6 times too far: the ground goes on where it stands", "val/kitti_0002", 18, 0),
)


def row(forecaster: Forecaster, window: Clip, miss: Miss) -> Picture:
    """The three panels of one miss."""
    scene = forecaster.predict(window.images[0], window.K, 1)
    paths = probe_paths(window.times - window.times[0])
    returns, touched = touched_returns(window, paths[miss.path])
    measured = float(measured_distances(window, paths)[miss.path].min())
    eye = np.eye(4)[None]
    depth = forecaster.views(scene, eye, np.zeros(1)).depth[0]
    panels = [
        (marked(window, returns, touched), f"{window.name}, image {miss.image}", GREY),
        (depth_picture(depth, (3.0, 60.0)), "predicted depth, 3 to 60 m", BLUE),
        (from_above(scene, returns, touched, paths[miss.path]), f"from above; true distance {measured:.1f} m", ORANGE),
    ]
    return sheet([panels], SIZE, miss.text)


def touched_returns(window: Clip, path: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Returns (N, 3) of what stands, in the base frame, and which of them the vehicle touches on a path (T, 4, 4)."""
    returns = standing_returns(window)
    touched = np.zeros(len(returns), bool)
    for inverse in rigid_inverse(path):
        own = returns[:, :2] @ inverse[:2, :2].T + inverse[:2, 3]
        touched |= CAR.distances(torch.as_tensor(own)).numpy() <= 0
    return returns, touched


def marked(window: Clip, returns: FloatArray, touched: NDArray[np.bool_]) -> Picture:
    """The source image with the returns (N, 3) of obstacles, in the base frame, and those that are touched."""
    scale = SIZE[0] / window.images.shape[2]
    picture = np.ascontiguousarray(cv2.resize(np.asarray(window.images[0]), SIZE))
    homogeneous = returns @ FORWARD_OPTICAL[:3, :3] @ window.K.T
    pixels = homogeneous[:, :2] / homogeneous[:, 2:] * (scale, SIZE[1] / window.images.shape[1])
    for (u, v), hit in sorted(zip(pixels.tolist(), touched.tolist(), strict=True), key=lambda p: p[1]):
        cv2.circle(picture, (round(u), round(v)), 2 if hit else 0, RED if hit else YELLOW, -1)
    return picture


def from_above(scene: DynamicGaussians, returns: FloatArray, touched: NDArray[np.bool_], path: FloatArray) -> Picture:
    """Gaussians, obstacles, returns and the vehicle's outline along its path, x to the right and y upwards."""
    width, height = (round(PIXELS_PER_M * size) for size in ABOVE)
    picture = np.zeros((height, width, 3), np.uint8)

    def place(points: FloatArray) -> NDArray[np.int64]:
        metres = np.stack((points[:, 0] + BEHIND, ABOVE[1] / 2 - points[:, 1]), 1)
        return np.asarray((metres * PIXELS_PER_M).round(), np.int64)

    def dots(points: FloatArray, color: tuple[int, int, int], radius: int) -> None:
        for x, y in place(points).tolist():
            if 0 <= x < width and 0 <= y < height:
                cv2.circle(picture, (x, y), radius, color, -1)

    around = find_scene_obstacles(scene, FORWARD_OPTICAL, HEIGHTS)
    low = to_frame(scene.means, FORWARD_OPTICAL)
    dots(low[low[:, 2] < 0].cpu().numpy(), BROWN, 1)
    dots(to_frame(scene.means[around.obstacles.index], FORWARD_OPTICAL).cpu().numpy(), BLUE, 2)
    dots(returns[~touched], WHITE, 2)
    dots(returns[touched], RED, 4)
    assert CAR.corners is not None
    outline = np.column_stack((CAR.corners, np.zeros(4), np.ones(4)))
    for pose in path[::4]:
        cv2.polylines(picture, [place(outline @ pose.T).astype(np.int32)], True, RED, 1)
    return picture


def main() -> int:
    """Draw; returns the exit status."""
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    forecaster, logs = Forecaster.load(), Path(sys.argv[1])
    rows = []
    for miss in MISSES:
        clip = next(iter(open_clips(str(logs / f"{miss.log}.mcap"))))
        rows.append(row(forecaster, cut(clip, np.arange(miss.image, miss.image + FRAMES)), miss))
    if not cv2.imwrite(sys.argv[2], np.concatenate(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80]):
        print(f"draw_contacts: {sys.argv[2]} cannot be written", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
