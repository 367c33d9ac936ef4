# SPDX-License-Identifier: Apache-2.0
"""research/draw_outputs.py: where boxes and cells land in the picture."""

from __future__ import annotations

import sys
from types import SimpleNamespace as Message

import numpy as np
from support.paths import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "research"))
import draw_outputs

K = np.array([[100.0, 0, 99.5], [0, 100, 49.5], [0, 0, 1]])


def box(x: float, z: float) -> Message:
    """A red cube of 1 m in the camera's frame."""
    pose = Message(position=Message(x=x, y=0.0, z=z), orientation=Message(x=0.0, y=0.0, z=0.0, w=1.0))
    colour = Message(r=1.0, g=0.0, b=0.0)
    return Message(type=draw_outputs.CUBE, ns="boxes", pose=pose, scale=Message(x=1.0, y=1.0, z=1.0), color=colour)


def test_boxes_are_drawn_where_the_camera_sees_them() -> None:
    black = np.zeros((100, 200, 3), np.uint8)
    canvas = draw_outputs.draw_motion(black, K, Message(markers=[box(2.0, 10.0), box(0.0, -10.0)]))
    rows, columns = np.nonzero(canvas[..., 0])
    scale = canvas.shape[1] / 200
    # The near face, at 9.5 m: x from 1.5 to 2.5 m, y from -0.5 to 0.5 m. What is behind the camera is not drawn.
    np.testing.assert_allclose(columns.max() / scale, 99.5 + 100 * 2.5 / 9.5, atol=1)
    np.testing.assert_allclose(columns.min() / scale, 99.5 + 100 * 1.5 / 10.5, atol=1)
    np.testing.assert_allclose(
        (rows.min() / scale, rows.max() / scale), 49.5 + 100 * np.array([-0.5, 0.5]) / 9.5, atol=1
    )


def test_the_map_shows_what_is_known_around_the_vehicle() -> None:
    cells = np.full((80, 100), -1, np.int8)
    cells[40:44, 50:70] = 0
    cells[50:54, 60:64] = 100  # ahead and to the left
    info = Message(height=80, width=100, resolution=0.5)
    picture, metres = draw_outputs.occupancy_picture(Message(data=cells.reshape(-1), info=info), 300)
    assert picture.shape == (300, 300, 3)
    assert metres < 20  # 50 m wide, mostly unknown
    orange = np.argwhere((picture == [255, 120, 0]).all(-1)).mean(0)
    ring = np.argwhere((picture == draw_outputs.WHITE).all(-1)).mean(0)
    cell = 300 * 0.5 / metres
    np.testing.assert_allclose((orange - ring) / cell, [-12, 12], atol=1)  # rows go down, y up
