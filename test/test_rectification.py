# SPDX-License-Identifier: Apache-2.0
"""Lens distortion is undone: what the lens drew comes out where a pinhole camera sees it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rectification import FISHEYE, Lens, Rectifier, is_distorted, undistortion

SIZE = (320, 200)
CAMERA = Camera(np.array([[160.0, 0, 161.0], [0, 158.0, 98.0], [0, 0, 1]]), *SIZE)
LENSES = {
    "plumb_bob": (-0.25, 0.06, 0.001, -0.002, 0.0),
    "rational_polynomial": (0.3, -0.02, 0.001, -0.001, 0.0, 0.7, 0.05, 0.001),
    "equidistant": (-0.02, 0.003, -0.001, 0.0002),
    "fisheye": (0.05, 0.0, 0.0, 0.0),
}


def projected(lens: Lens, points: np.ndarray) -> np.ndarray:
    """Pixels (n, 2) at which the lens draws points (n, 3), by OpenCV's own projection."""
    project = cv2.fisheye.projectPoints if lens.model in FISHEYE else cv2.projectPoints
    points = points.reshape(-1, 1, 3)
    pixels, _ = project(points, np.zeros(3), np.zeros(3), lens.camera.K, np.asarray(lens.coefficients))
    return pixels.reshape(-1, 2)


@pytest.mark.parametrize("model", LENSES)
def test_points_come_out_where_a_pinhole_camera_sees_them(model: str) -> None:
    lens = Lens(CAMERA, model, LENSES[model])
    made = undistortion(lens)
    assert (made.camera.width, made.camera.height) == SIZE
    for x, y in ((0.0, 0.0), (0.4, -0.2), (-0.5, 0.3)):
        ray = np.array([[x, y, 1.0]])
        u, v = projected(lens, ray)[0]
        rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
        spot = np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / 18)
        drawn = np.repeat(np.uint8(255 * spot)[..., None], 3, 2)
        found = made.image(drawn)[..., 0].astype(float)
        centre = np.array([(columns * found).sum(), (rows * found).sum()]) / found.sum()
        np.testing.assert_allclose(centre, (made.camera.K @ ray[0])[:2], atol=0.35)
        depth = made.depth(np.where(spot > 0.5, 7.0, 0.0).astype(np.float32))
        assert set(np.unique(depth)) == {0.0, 7.0}
        at = np.round((made.camera.K @ ray[0])[:2]).astype(int)
        assert depth[at[1], at[0]] == 7.0


@pytest.mark.parametrize("model", LENSES)
def test_no_corner_is_black(model: str) -> None:
    white = np.full((SIZE[1], SIZE[0], 3), 255, np.uint8)
    assert (undistortion(Lens(CAMERA, model, LENSES[model])).image(white) == 255).all()
    maps = undistortion(Lens(CAMERA, model, LENSES[model])).maps
    assert all(m.min() > -1.5 and m.max() < n + 0.5 for m, n in zip(maps, SIZE))


def test_an_undistortion_is_made_once_per_calibration() -> None:
    rectifier = Rectifier()
    lens = Lens(CAMERA, "plumb_bob", LENSES["plumb_bob"])
    first = rectifier.undistortion(lens)
    assert rectifier.undistortion(Lens(CAMERA, "plumb_bob", LENSES["plumb_bob"])) is first
    assert rectifier.undistortion(Lens(CAMERA.resized(160, 100), "plumb_bob", LENSES["plumb_bob"])) is not first
    for k in range(8):
        rectifier.undistortion(Lens(CAMERA, "plumb_bob", (0.01 * k, 0.0, 0.0, 0.0, 0.0)))
    assert rectifier.undistortion(lens) is not first  # few are kept


def test_what_cannot_be_undone_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="distortion model 'kannala' is not supported: publish plumb_bob"):
        undistortion(Lens(CAMERA, "kannala", (0.1,) * 4))
    with pytest.raises(ValueError, match="rational_polynomial needs 8 or 12 or 14 distortion coefficients, got 5"):
        undistortion(Lens(CAMERA, "rational_polynomial", (0.1,) * 5))
    assert not is_distorted([]) and not is_distorted([0.0] * 5) and is_distorted([0.0, 1e-3])
