# SPDX-License-Identifier: Apache-2.0
"""Occupancy grids and distances of predicted scenes against LiDAR: a road with a wall across it, known exactly."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pixel4d_ros.cli import main
from pixel4d_ros.commands import evaluate
from pixel4d_ros.datasets.boxes import Box
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.open import good_clips
from pixel4d_ros.evaluation.clearance import (
    FARTHEST,
    Probe,
    measured_distances,
    probe_paths,
    score_probes,
    summarise_probes,
)
from pixel4d_ros.evaluation.protocol import Protocol
from pixel4d_ros.evaluation.scene_outputs import clearance_table, occupancy_table, score_clearance, score_occupancy
from pixel4d_ros.geometry.optical import FORWARD_OPTICAL
from pixel4d_ros.geometry.rotations import rigid
from pixel4d_ros.scene import DynamicGaussians

K = np.array([[120.0, 0, 99.5], [0, 120, 49.5], [0, 0, 1]])
WIDTH, HEIGHT, ABOVE_GROUND, FRAMES = 200, 100, 1.65, 14


def depth_of(wall: float) -> np.ndarray:
    """Depth (H, W) of a flat road with a wall across it that many metres ahead, as high as the camera and more."""
    v = np.arange(HEIGHT)[:, None] - K[1, 2]
    road = np.where(v > 0, ABOVE_GROUND * K[1, 1] / np.maximum(v, 1e-6), np.inf)
    depth = np.broadcast_to(np.minimum(road, wall), (HEIGHT, WIDTH)).astype(np.float32).copy()
    depth[: HEIGHT // 2 - int(0.3 * K[1, 1] / wall)] = 0  # the sky above it
    return depth


def scene_of(depth: np.ndarray) -> DynamicGaussians:
    """A flat Gaussian per pixel with depth, facing the camera on the wall and lying on the road."""
    v, u = np.nonzero(depth)
    z = depth[v, u]
    means = np.stack(((u - K[0, 2]) * z / K[0, 0], (v - K[1, 2]) * z / K[1, 1], z), 1)
    n = len(z)
    size = z / K[0, 0] / 2
    on_road = means[:, 1] > ABOVE_GROUND - 0.02
    thin = np.full(n, 0.01)
    scales = np.where(on_road[:, None], np.stack((size, thin, 4 * size), 1), np.stack((size, size, thin), 1))
    zeros = torch.zeros(n, 3)
    return DynamicGaussians(
        torch.from_numpy(means).float(),
        torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        torch.from_numpy(scales).float(),
        torch.full((n,), 0.9),
        torch.full((n, 3), 0.5),
        *(zeros, zeros, zeros, zeros),
        torch.zeros(n, dtype=torch.int64),
        torch.zeros(1, 3),
    )


def clip_of(wall: float) -> Clip:
    """A standing camera before a wall; the world is z up."""
    pose = np.tile(rigid(FORWARD_OPTICAL[:3, :3], [0, 0, ABOVE_GROUND]), (FRAMES, 1, 1))
    images = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    depth = np.tile(depth_of(wall), (FRAMES, 1, 1))
    return Clip("wall", images, K, pose, 0.1 * np.arange(FRAMES), depth)


def test_a_scene_like_the_lidar_has_its_free_ground_and_its_wall() -> None:
    counts = score_occupancy(lambda window: scene_of(depth_of(15.0)), clip_of(15.0), Protocol(stride=1))
    assert counts.free[0] > 50
    assert counts.called_occupied[:2].sum() <= 0.02 * counts.free[:2].sum()
    assert counts.found.sum() > 0.95 * counts.obstacles.sum() > 0
    header, rows = occupancy_table("wall", counts)
    assert header == ["wall", "0-10 m", "10-20 m", "20-30 m"]
    assert rows[0][0] == "free ground called occupied, %"
    nearer = score_occupancy(lambda window: scene_of(depth_of(8.0)), clip_of(15.0), Protocol(stride=1))
    assert nearer.called_occupied.sum() > counts.called_occupied.sum()
    assert nearer.found.sum() < 0.2 * nearer.obstacles.sum()


def test_distances_to_a_wall_are_those_to_its_place() -> None:
    near, far = clip_of(8.0), clip_of(15.0)
    score = score_clearance(lambda window: scene_of(depth_of(8.0)), near, Protocol(stride=1))
    assert score.median_error < 0.3
    assert score.contacts * 7 == score.probes * 2  # at 8 m/s the wall is reached within 1.3 s, at 1 to 4 m/s it is not
    assert summarise_probes([Probe(0, 0, True, True), Probe(0.5, 0.8, False, False)]).median_error == pytest.approx(0.3)
    assert (score.missed, score.false) == (0, 0)
    blind = score_clearance(lambda window: scene_of(depth_of(15.0)), near, Protocol(stride=1))
    assert blind.missed == blind.contacts > 0
    assert score_clearance(lambda window: scene_of(depth_of(8.0)), far, Protocol(stride=1)).false > 0
    assert ["contacts missed", "0"] in clearance_table("wall", score)[1]


def test_a_lidar_return_that_stands_alone_is_no_obstacle() -> None:
    clip = clip_of(60.0)
    assert clip.depth is not None
    stray, post = clip.depth.copy(), clip.depth.copy()
    row = int(K[1, 2]) + 3
    stray[0, row, WIDTH // 2] = post[0, row : row + 3, WIDTH // 2] = 6.0
    alone, seen = (measured_distances(replace(clip, depth=d), probe_paths(clip.times)) for d in (stray, post))
    assert alone[1, 0] > 20 and seen[1, 0] == pytest.approx(6.0 - 2.2, abs=0.1)


def test_a_moving_box_is_where_it_will_be() -> None:
    clip = clip_of(60.0)
    paths = probe_paths(clip.times)

    def box(t: int) -> Box:
        pose = rigid([[0, -1, 0], [0, 0, -1], [1, 0, 0]], [0, 1.0, 30 - 20 * 0.1 * t])
        return Box(1, "Car", pose, np.array([4.0, 1.8, 1.5]), True, np.array([0, 0, -20.0]), 0)

    coming = replace(clip, boxes=tuple((box(t),) for t in range(FRAMES)))
    distances = measured_distances(coming, paths)
    assert distances[1, 0] == pytest.approx(30 - 2 - 2.2, abs=0.1)
    assert np.diff(distances[1, :9]) == pytest.approx([-2.8] * 8, abs=0.02)  # 20 m/s and 8 m/s towards each other
    assert (distances[1, 10:12] == 0).all()


def test_without_depth_there_is_nothing_to_compare_with() -> None:
    clip = replace(clip_of(8.0), depth=None)
    with pytest.raises(ValueError, match="no depth"):
        score_occupancy(lambda window: scene_of(depth_of(8.0)), clip, Protocol())
    with pytest.raises(ValueError, match="no LiDAR depth"):
        score_probes(scene_of(depth_of(8.0)), clip)
    with pytest.raises(ValueError, match="no path"):
        summarise_probes([])
    assert FARTHEST == 10


def test_clips_of_one_name_keep_their_numbers_and_one_without_depth_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As a/drive.mcap, b/drive.mcap: the numbers of the first were lost; one bad log ended the command without any."""
    clips = [clip_of(15.0), replace(clip_of(8.0), name="blind", depth=None), clip_of(8.0)]
    opener = SimpleNamespace(open_clips=lambda *_, **__: iter(clips), good_clips=good_clips)
    wall = SimpleNamespace(predict=lambda *_: scene_of(depth_of(8.0)))
    monkeypatch.setitem(sys.modules, "pixel4d_ros.datasets.open", opener)
    forecaster = SimpleNamespace(Forecaster=SimpleNamespace(load=lambda *_: wall))
    monkeypatch.setitem(sys.modules, "pixel4d_ros.forecaster", forecaster)
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    assert evaluate.run(parser.parse_args([str(tmp_path), "--clearance", "--json"])) == 1
    out = capsys.readouterr()
    numbers = json.loads(out.out)
    assert list(numbers) == ["wall", "wall_1"] and numbers["wall"]["clearance"] != numbers["wall_1"]["clearance"]
    assert "blind was left out: blind has no depth" in out.err


def test_options_of_forecasts_beside_outputs_for_planners_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "drive.mcap", "--clearance", "--flip", "--out", str(tmp_path / "page")]) == 1
    assert "omit --out, --flip; --json writes their numbers" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()
