# SPDX-License-Identifier: Apache-2.0
"""Stereo pairs: read from a folder, and matched into dense depth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.stereo_pairs import BASELINE, KITTI_CAMERA, is_stereo_folder, read_stereo_folder
from pixel4d_ros.training.real_data import RealData
from pixel4d_ros.training.stereo_depth import matched_depth, stereo_depth

WIDTH, HEIGHT = 400, 120
NEAR, FAR = 8.0, 25.0  # metres
BOX = (slice(40, 90), slice(150, 230))  # rows and columns of something near
REAL = Path("../shared/stereo2015")


def pair_of_images(focal: float, baseline: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left and right image and the left one's depth: a textured wall, something near before it, and a grey strip."""
    rng = np.random.default_rng(5)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, 2 * WIDTH, 3)).astype(np.uint8), (3, 3), 0)
    texture[:30] = 128
    wall, box = focal * baseline / FAR, focal * baseline / NEAR
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)

    def seen(shift: float) -> np.ndarray:
        return cv2.remap(texture, columns + np.float32(100 + shift), rows, cv2.INTER_CUBIC)

    left, right = seen(0), seen(wall)
    patch = np.random.default_rng(6).integers(0, 256, (50, 80, 3)).astype(np.uint8)
    left[BOX] = patch
    step = round(box)
    right[BOX[0], BOX[1].start - step : BOX[1].stop - step] = patch
    depth = np.full((HEIGHT, WIDTH), FAR, np.float32)
    depth[BOX] = focal * baseline / step
    return left, right, depth


def test_matched_depth_is_right_where_it_claims_to_know() -> None:
    left, right, truth = pair_of_images(230.0, 0.53)
    depth = matched_depth(left, right, 230.0, 0.53)
    known = depth > 0
    assert known[40:, 60:].mean() > 0.6
    assert np.median(np.abs(depth[known] / truth[known] - 1)) < 0.05
    assert abs(np.median(depth[BOX][depth[BOX] > 0]) / truth[BOX].mean() - 1) < 0.05
    assert not known[:20].any(), "a strip without texture tells nothing"


def test_the_partner_must_be_rectified_and_on_the_right() -> None:
    left, right, _ = pair_of_images(230.0, 0.53)
    K = np.array([[230.0, 0, 200], [0, 230, 60], [0, 0, 1]])
    beside = np.eye(4)[None].copy()
    beside[0, 0, 3] = 0.53
    pair = Clip("right", right[None], K, beside, np.zeros(1))
    clip = Clip("left", left[None], K, np.eye(4)[None], np.zeros(1), stereo=pair)
    depth = stereo_depth(clip)
    assert depth is not None and depth.shape == (1, HEIGHT, WIDTH)
    elsewhere = -beside
    elsewhere[0] = np.linalg.inv(beside[0])
    turned = beside.copy()
    turned[0, :3, :3] = cv2.Rodrigues(np.array([0, 0.1, 0]))[0]
    for poses in (elsewhere, turned):
        assert stereo_depth(replace(clip, stereo=replace(pair, poses=poses))) is None
    assert stereo_depth(replace(clip, stereo=None)) is None


def write_folder(folder: Path) -> np.ndarray:
    """One pair of which only the near thing has a measured disparity; returns the true depth."""
    focal = KITTI_CAMERA.K[0, 0] * WIDTH / KITTI_CAMERA.width  # at the size of these images
    left, right, depth = pair_of_images(focal, BASELINE)
    objects = np.zeros((HEIGHT, WIDTH), np.uint8)
    objects[BOX] = 1
    disparity = np.where(objects > 0, 256 * focal * BASELINE / depth, 0).astype(np.uint16)
    files = {"left": left[..., ::-1], "right": right[..., ::-1], "disparity": disparity, "objects": objects}
    for name, image in files.items():
        (folder / name).mkdir()
        cv2.imwrite(str(folder / name / "000001.png"), image)
    return depth


def test_a_folder_of_pairs_becomes_clips(tmp_path: Path) -> None:
    truth = write_folder(tmp_path)
    assert is_stereo_folder(tmp_path) and not is_stereo_folder(tmp_path / "left")
    (clip,) = read_stereo_folder(tmp_path)
    assert clip.stereo is not None and clip.object_ids is not None and clip.depth is not None
    assert clip.stereo.poses[0, 0, 3] == BASELINE
    np.testing.assert_array_equal(clip.object_ids[0] > 0, clip.depth[0] > 0)
    np.testing.assert_allclose(clip.depth[0][BOX], truth[BOX], rtol=0.01)
    (tmp_path / "objects" / "000001.png").unlink()
    assert read_stereo_folder(tmp_path)[0].object_ids is None
    (tmp_path / "disparity" / "000001.png").unlink()
    with pytest.raises(ValueError, match=r"000001\.png .* incomplete"):
        read_stereo_folder(tmp_path)


def test_training_fills_what_the_sensor_leaves_out_with_matched_depth(tmp_path: Path) -> None:
    write_folder(tmp_path)
    clips, size = read_stereo_folder(tmp_path), (96, 32)
    batch = RealData(clips, np.random.default_rng(0), torch.device("cpu")).batch(8, 2, size)
    assert ((batch.depth > 0) & (batch.matched > 0)).sum() == 0
    box, wall = batch.depth[batch.depth > 0], batch.matched[batch.matched > 0]
    assert len(box) > 100 and len(wall) > 1000
    # Crops are zoomed, and depth with them: by how much, the thing before the wall tells.
    assert (wall.median() / box.median()).item() == pytest.approx(FAR / NEAR, rel=0.1)
    alone = RealData(clips, np.random.default_rng(0), torch.device("cpu"), match=False).batch(8, 2, size)
    assert (alone.matched == 0).all() and torch.equal(alone.depth, batch.depth)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the stereo pairs in {REAL}")
def test_real_pairs_agree_with_the_laser() -> None:
    errors = []
    for clip in read_stereo_folder(REAL)[:8]:
        matched = stereo_depth(clip)
        assert matched is not None and clip.depth is not None
        both = (matched > 0) & (np.asarray(clip.depth) > 0)
        errors.append(np.abs(np.log(matched[both] / np.asarray(clip.depth)[both])).mean())
    assert np.mean(errors) < 0.08
