# SPDX-License-Identifier: Apache-2.0
"""Pixels of image messages for the node: by cv_bridge where it is installed, else by logs/images.py.

Both give the same pixels. Compressed images always take the second way: cv_bridge ignores what their format says about
Bayer patterns and the order of channels.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from pixel4d_ros.logs.images import RgbImage, check_image, decode_image

logger = logging.getLogger(__name__)


def rgb_pixels(message: Any) -> RgbImage:
    """RGB (H, W, 3) uint8 of an Image or CompressedImage. Raises ValueError for what cannot be decoded."""
    bridge = cv_bridge()
    if bridge is None or hasattr(message, "format"):
        return decode_image(message)
    dtype, channels = check_image(message)
    # cv_bridge rounds a step down to whole pixels, and with numpy 2 it fails on big-endian messages.
    if message.step % (dtype.itemsize * channels) or message.is_bigendian:
        return decode_image(message)
    try:
        return np.asarray(bridge.imgmsg_to_cv2(message, "rgb8"))
    except (TypeError, RuntimeError):  # CvBridgeError: 8UC3 and 32FC1 are no colours to it, some versions lack uyvy
        return decode_image(message)


@cache
def cv_bridge() -> Any:
    """cv_bridge's converter, None where it is not installed or converts wrongly."""
    try:
        bridge = import_module("cv_bridge").CvBridge()
    except ImportError:
        return None
    except AttributeError as error:  # built for another OpenCV
        logger.warning("cv_bridge is not used: %s", error)
        return None
    # cv_bridge 1.13 from PyPI, for example, miscounts channels with OpenCV 5.
    sample = Image(height=1, width=2, encoding="bgr8", step=6)
    sample.data.frombytes(bytes(range(6)))
    try:
        if np.array_equal(bridge.imgmsg_to_cv2(sample, "rgb8"), [[[2, 1, 0], [5, 4, 3]]]):
            return bridge
        problem: object = "it returns wrong pixels"
    except (ImportError, AttributeError, TypeError, RuntimeError, ValueError) as error:
        problem = error
    logger.warning("cv_bridge is not used: %s", problem)
    return None
