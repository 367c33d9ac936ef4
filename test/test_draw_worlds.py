# SPDX-License-Identifier: Apache-2.0
"""The grid of synthetic worlds that research/draw_worlds.py draws."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "research"))

import draw_worlds


def test_a_grid_shows_image_depth_and_ids_of_each_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "grid.png"
    assert draw_worlds.main([str(path), "--count", "2", "--size", "64x32", "--seed", "1", "--camera"]) == 0
    grid = cv2.imread(str(path))
    assert grid.shape == (64, 192, 3)
    assert grid[:, 64:128].std() > 20  # depth in colours
    assert draw_worlds.main([str(path), "--count", "2", "--size", "64x32", "--seed", "1", "--samples", "4"]) == 0
    assert cv2.imread(str(path)).shape == grid.shape
    assert draw_worlds.main([str(tmp_path / "no" / "grid.png"), "--count", "1", "--size", "32x16"]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_near_is_red_far_is_blue_and_the_sky_is_black() -> None:
    blue, _, red = draw_worlds.depth_colors(np.array([[1.5, 80.0, np.inf]], np.float32))[0].T.astype(int)
    assert red[0] > blue[0] and blue[1] > red[1] and blue[2] == red[2] == 0
