# SPDX-License-Identifier: Apache-2.0
"""Score what planners read of predicted scenes: ids, and grids and distances along paths against a log's LiDAR."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.alignment import source_poses
from pixel4d_ros.evaluation.clearance import ClearanceScore, Probe, score_probes, summarise_probes
from pixel4d_ros.evaluation.lidar_ground import lidar_points, road_heights, seen_by_camera
from pixel4d_ros.evaluation.occupancy import RANGES, OccupancyCounts, compare_with_lidar, total
from pixel4d_ros.evaluation.path_metrics import paths_table
from pixel4d_ros.evaluation.protocol import Protocol
from pixel4d_ros.evaluation.tables import Table
from pixel4d_ros.evaluation.track_objects import FUTURE, ids_table, track_clip
from pixel4d_ros.evaluation.windows import clip_windows, reference_view
from pixel4d_ros.geometry.optical import FORWARD_OPTICAL
from pixel4d_ros.geometry.rotations import rigid_inverse
from pixel4d_ros.outputs.obstacles import HEIGHTS
from pixel4d_ros.outputs.occupancy import MapExtent, occupancy_map
from pixel4d_ros.scene import DynamicGaussians

if TYPE_CHECKING:
    from pixel4d_ros.forecaster import Forecaster

EXTENT = MapExtent((70.0, 70.0), 0.25, HEIGHTS)  # 35 m around the camera

Predict = Callable[[Clip], DynamicGaussians]


def predictor_of(forecaster: Forecaster, clip: Clip, protocol: Protocol, two_images: bool) -> Predict:
    """Predicts the source image of a window of the clip; two_images: with an earlier image."""

    def predict(window: Clip) -> DynamicGaussians:
        speed = CameraPath(window.times - window.times[0], source_poses(window)).speed()
        reference = reference_view(clip, window) if two_images else None
        return forecaster.predict(window.images[0], window.K, 1, protocol.seed, None, speed, reference)

    return predict


def score_outputs(
    predict: Predict, clip: Clip, name: str, protocol: Protocol, ids: bool, occupancy: bool, clearance: bool
) -> tuple[dict[str, object], list[Table]]:
    """The chosen scores of a clip, as numbers and as tables under a name. Raises ValueError."""
    numbers: dict[str, object] = {}
    tables = []
    if ids:
        found, paths = track_clip(predict, clip)
        numbers |= {"ids": asdict(found), "paths": None if paths is None else asdict(paths)}
        seconds = FUTURE * float(clip.times[-1] - clip.times[0]) / (len(clip) - 1)
        tables += [ids_table(name, found), paths_table(name, paths, seconds)]
    if occupancy:
        counts = score_occupancy(predict, clip, protocol)
        numbers["occupancy"] = {key: values.tolist() for key, values in asdict(counts).items()}
        tables.append(occupancy_table(name, counts))
    if clearance:
        score = score_clearance(predict, clip, protocol)
        numbers["clearance"] = asdict(score)
        tables.append(clearance_table(name, score))
    return numbers, tables


def score_occupancy(predict: Predict, clip: Clip, protocol: Protocol) -> OccupancyCounts:
    """Cells of the grid at the source image's time against LiDAR, over the protocol's source images."""
    return total(_occupancy(predict(window), window) for window in _with_depth(clip, protocol))


def _occupancy(scene: DynamicGaussians, window: Clip) -> OccupancyCounts:
    T_fixed_base = window.poses[0] @ rigid_inverse(FORWARD_OPTICAL)
    made = occupancy_map(scene, T_fixed_base, FORWARD_OPTICAL, EXTENT)
    assert window.depth is not None
    depth = np.asarray(window.depth[0])
    points = lidar_points(depth, window.K)
    heights = road_heights(points @ FORWARD_OPTICAL[:3, :3].T)
    seen = seen_by_camera(depth, heights, window.K, EXTENT.heights)
    fixed = points[seen] @ window.poses[0, :3, :3].T + window.poses[0, :3, 3]
    return compare_with_lidar(made, fixed, heights[seen], window.poses[0, :3, 3], EXTENT)


def score_clearance(predict: Predict, clip: Clip, protocol: Protocol) -> ClearanceScore:
    """Distances along probe paths from the protocol's source images."""
    probes: list[Probe] = []
    for window in _with_depth(clip, protocol):
        probes += score_probes(predict(window), window)
    return summarise_probes(probes)


def _with_depth(clip: Clip, protocol: Protocol) -> Iterator[Clip]:
    """The protocol's windows whose source image has depth. Raises ValueError for a clip without depth."""
    if clip.depth is None:
        raise ValueError(f"{clip.name} has no depth: occupancy and distances need the LiDAR's")
    for window in tqdm(clip_windows(clip, protocol), "outputs", unit="image", leave=False):
        if window.depth is not None and (window.depth[0] > 0).any():
            yield window


def occupancy_table(name: str, counts: OccupancyCounts) -> Table:
    """How often free ground is called occupied, by distance, and how many obstacles are found."""
    header = [name, *(f"{near:.0f}-{far:.0f} m" for near, far in RANGES)]
    free, found = np.maximum(counts.free, 1), np.maximum(counts.obstacles, 1)
    return header, [
        ["free ground called occupied, %", *(f"{100 * s:.1f}" for s in counts.called_occupied / free)],
        ["free ground called free, %", *(f"{100 * s:.1f}" for s in counts.called_free / free)],
        ["obstacles found, %", *(f"{100 * s:.1f}" for s in counts.found / found)],
        ["cells of free ground", *(str(n) for n in counts.free)],
        ["cells of obstacles", *(str(n) for n in counts.obstacles)],
    ]


def clearance_table(name: str, score: ClearanceScore) -> Table:
    """The probes' numbers."""
    return [name, ""], [
        ["paths compared", str(score.probes)],
        ["closest distance on paths without contact: median error, m", f"{score.median_error:.2f}"],
        ["paths with a contact", str(score.contacts)],
        ["contacts missed", str(score.missed)],
        ["contacts predicted where there are none", str(score.false)],
    ]
