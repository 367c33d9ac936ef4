# SPDX-License-Identifier: Apache-2.0
"""research/draw_runs.py and draw_curves.py: pictures of how training runs fared."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import pytest
from support.paths import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "research"))
import draw_curves
import draw_runs

TABLE = REPOSITORY / "docs" / "lab" / "training_runs.csv"
CURVES = REPOSITORY / "docs" / "lab" / "depth_over_time.csv"


def test_the_picture_shows_every_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib to draw")
    runs = draw_runs.read_runs(TABLE)
    assert {"D", "J: shipped"} <= {run.weights for run in runs}
    draw_runs.draw(runs, tmp_path / "runs.png")
    assert cv2.imread(str(tmp_path / "runs.png")).std() > 10


def test_a_row_that_lacks_a_figure_is_named(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(TABLE.read_text() + "K,K,31.0,,0.1\n")
    number = len(path.read_text().splitlines())
    with pytest.raises(ValueError, match=f"line {number}: .* is missing or no number"):
        draw_runs.read_runs(path)


def test_the_curves_show_every_look(tmp_path: Path) -> None:
    looks = draw_curves.read_looks(CURVES)
    assert len({look.run for look in looks}) == 4 and min(look.abs_rel for look in looks) == 0.136
    pytest.importorskip("matplotlib", reason="needs matplotlib to draw")
    draw_curves.draw(looks, tmp_path / "curves.png")
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 10


def test_a_look_that_is_no_number_is_named(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_text(CURVES.read_text() + "U,many,3.0,0.1\n")
    with pytest.raises(ValueError, match=r"line 21: .*many.* is missing or no number"):
        draw_curves.read_looks(path)
