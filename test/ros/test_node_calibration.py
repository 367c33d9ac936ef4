# SPDX-License-Identifier: Apache-2.0
"""The node over DDS with calibrations that are not the images': of raw images, of another camera, changing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from support.harness import HEIGHT, WIDTH, K, calibration, image, picture, recovers

from pixel4d_ros.geometry.rectification import Rectifier
from pixel4d_ros.ros.inputs import CalibrationSource, InputFault, read_source

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context")]
PARAMETERS = {"steps": 2, "diagnostics_period": 0.2}
# KITTI's K and D are of 1392 x 512 pixels, P of 1242 x 375: kitti2bag writes all beside images of the latter size.
SCALE = WIDTH / 1242
RAW = {
    "k": [959.79 * SCALE, 0.0, 696.02 * SCALE, 0.0, 956.93 * SCALE, 224.18 * SCALE, 0.0, 0.0, 1.0],
    "d": [-0.3691, 0.1968, 0.00135, 0.00057, -0.0677],
    "p": [721.54 * SCALE, 0.0, 609.56 * SCALE, 0.0, 0.0, 721.54 * SCALE, 172.85 * SCALE, 0.0, 0.0, 0.0, 1.0, 0.0],
    "distortion_model": "plumb_bob",
}


def seen(client: Any, info: Any, words: str) -> None:
    """Send frames with this calibration until the diagnostics say so."""

    def said() -> bool:
        client.info.publish(info)
        client.image.publish(image(1.0, picture()))
        return words in str(client.status())

    client.until(said)


def test_a_raw_calibration_beside_rectified_images_is_refused_and_the_cure_works(node, client) -> None:
    info = calibration(1.0, **RAW)
    seen(client, info, "the images seem to be rectified already (as kitti2bag writes them); set rectify to false")
    with pytest.raises(InputFault, match="set rectify to false"):
        read_source(image(1.0, picture()), CalibrationSource(info, "camera_info"), Rectifier(), rectify=True)
    source = read_source(image(1.0, picture()), CalibrationSource(info, "camera_info"), Rectifier(), rectify=False)
    np.testing.assert_allclose(source.camera.K, np.reshape(RAW["p"], (3, 4))[:, :3])
    assert source.undistortion is None and np.array_equal(source.rgb, picture())
    recovers(client, 2.0)


def test_a_calibration_of_another_frame_is_doubted(node, client) -> None:
    info = calibration(1.0)
    info.header.frame_id = "rear_camera"
    seen(client, info, "the images are in frame 'camera', its CameraInfo in 'rear_camera': is /camera_info that of")
    recovers(client, 3.0)


def test_a_zoom_applies_from_the_next_image_on(node, client) -> None:
    for focal in (120.0, 240.0):
        zoomed = [focal, 0.0, K[2], 0.0, focal, K[5], 0.0, 0.0, 1.0]
        seen(client, calibration(1.0, k=zoomed), f"{WIDTH}x{HEIGHT}, f {focal:.1f} {focal:.1f}")
    recovers(client, 4.0)
