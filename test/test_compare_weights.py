# SPDX-License-Identifier: Apache-2.0
"""research/compare_weights.py and research/draw_depth.py: the table and the sheet, without a network."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.paths import REPOSITORY

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.depth_picture import depth_picture, depth_range, filled
from pixel4d_ros.evaluation.video import CAPTION, MARGIN
from pixel4d_ros.forecaster import Forecaster

sys.path.insert(0, str(REPOSITORY / "research"))
import compare_weights
import draw_depth

K = np.array([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]])


def ramp(far: float = 40.0) -> np.ndarray:
    """Depth (48, 64) from 4 m on the left to far on the right."""
    return np.broadcast_to(np.geomspace(4, far, 64, dtype=np.float32), (48, 64)).copy()


class Flat:
    """A forecaster that takes everything for 10 m away."""

    def predict(self, *_: object, **__: object) -> None:
        return None

    def views(self, *_: object) -> SimpleNamespace:
        return SimpleNamespace(depth=np.full((1, 48, 64), 10, np.float32))


def test_each_weights_file_has_a_column_and_each_measure_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(Forecaster, "load", staticmethod(lambda path, device: path))
    measures = (
        compare_weights.Measure("length", lambda e: e, 1, "5"),  # type: ignore[arg-type, return-value]
        compare_weights.Measure("nothing", lambda e: None),
    )
    case = compare_weights.Case("case", lambda d, f: [3.0, 4.0] if f else 2.0, measures)  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(compare_weights, "CASES", (case, replace(case, name="other")))
    out = tmp_path / "numbers.json"
    assert compare_weights.main(["shipped", "new.safetensors", "--only", "case", "--json", str(out)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in table[0].split("|")[1:-1]] == ["measure", "shipped", "new", "asked for"]
    assert [cell.strip() for cell in table[2].split("|")[1:-1]] == ["case: length", "2.0", "3.5", "5"]
    assert [cell.strip() for cell in table[3].split("|")[1:-1]] == ["case: nothing", "", "", ""]
    assert len(table) == 4
    assert '"case: length": 3.5' in out.read_text()
    assert compare_weights.main(["--only", "missing"]) == 1
    assert "there is no such case" in capsys.readouterr().err


def test_a_row_of_the_sheet_shows_image_prediction_and_truth() -> None:
    images = np.full((1, 48, 64, 3), 100, np.uint8)
    clip = Clip("ramp", images, K, np.eye(4)[None], np.zeros(1), ramp()[None])
    sheet = draw_depth.all_rows(Flat(), [(clip, None), (clip, None)])  # type: ignore[arg-type]
    assert sheet.shape[1] == 3 * draw_depth.WIDTH + 4 * MARGIN
    top = MARGIN + CAPTION + 40
    _, predicted, measured = (MARGIN + k * (draw_depth.WIDTH + MARGIN) for k in range(3))
    assert (sheet[top, predicted + 10] == sheet[top, predicted + 400]).all()  # the prediction is flat
    assert (sheet[top, measured + 10] != sheet[top, measured + 400]).any()


def test_near_is_red_far_is_blue_and_unknown_is_black() -> None:
    depth = ramp()
    depth[:, :2] = 0
    picture = depth_picture(depth)
    assert not picture[:, :2].any()
    near, far = picture[10, 4].astype(int), picture[10, -1].astype(int)
    assert near[0] > near[2]
    assert far[2] > far[0]
    assert depth_range(np.zeros((4, 4), np.float32)) == (1.0, 100.0)
    points = np.zeros((9, 9), np.float32)
    points[4, 4], points[4, 5] = 8, 3
    assert filled(points, 3)[3, 4] == 3  # the nearer point wins
    assert filled(points, 3)[5, 3] == 8
