# SPDX-License-Identifier: Apache-2.0
"""The node's images: cv_bridge and the package's own lines give the same pixels."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make test`")

from sensor_msgs.msg import CompressedImage, Image

from pixel4d_ros.logs.images import ENCODINGS, decode_image
from pixel4d_ros.ros.messages import images
from pixel4d_ros.ros.messages.conversions import depth_message, fill, image_message, mono_message

pytestmark = pytest.mark.ros
WIDTH, HEIGHT = 34, 22
# To cv_bridge these are numbers, no colours.
NO_COLOURS = ("8UC1", "8UC3", "8UC4", "32FC1", "32FC3")


@pytest.fixture
def real() -> Any:
    """The installed cv_bridge's converter."""
    pytest.importorskip("cv_bridge", reason="needs cv_bridge, which ROS distributions have")
    images.cv_bridge.cache_clear()
    bridge = images.cv_bridge()
    assert bridge is not None
    return bridge


def random_image(encoding: str, padding: int = 0, big_endian: bool = False) -> Image:
    """Pixels of every value, with rows that are `padding` pixels longer than the image."""
    kind, channels, _ = ENCODINGS[encoding]
    rng, shape = np.random.default_rng(5), (HEIGHT, WIDTH + padding, channels)
    numbers = rng.random(shape) if kind == "f4" else rng.integers(0, np.iinfo(kind).max, shape, endpoint=True)
    pixels = numbers.astype(np.dtype(kind).newbyteorder(">" if big_endian else "<"))
    message = Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=pixels[0].nbytes, is_bigendian=int(big_endian))
    fill(message, pixels)
    return message


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("encoding", sorted(set(ENCODINGS) - set(NO_COLOURS)))
def test_cv_bridge_gives_the_same_pixels(real: Any, encoding: str, padding: int) -> None:
    message = random_image(encoding, padding)
    try:
        bridged = real.imgmsg_to_cv2(message, "rgb8")
    except TypeError as error:
        if encoding in ("uyvy", "yuyv"):
            pytest.skip(f"this cv_bridge does not know {encoding}: {error}")
        raise
    np.testing.assert_array_equal(decode_image(message), bridged)


def test_every_16_bit_value_becomes_the_same_8_bits(real: Any) -> None:
    message = Image(height=256, width=256, encoding="mono16", step=512)
    fill(message, np.arange(65536, dtype="<u2"))
    np.testing.assert_array_equal(decode_image(message), real.imgmsg_to_cv2(message, "rgb8"))


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("big_endian", [False, True])
def test_the_node_reads_every_encoding_alike_with_cv_bridge(real: Any, encoding: str, big_endian: bool) -> None:
    message = random_image(encoding, 1, big_endian)
    np.testing.assert_array_equal(images.rgb_pixels(message), decode_image(message))


def test_the_nodes_images_are_those_that_cv_bridge_makes(real: Any) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)
    depth = np.random.default_rng(1).random((4, 6)).astype(np.float32)
    for ours, encoding, pixels in (
        (image_message(rgb, Image().header), "rgb8", rgb),
        (mono_message(rgb[..., 0], Image().header), "mono8", rgb[..., 0]),
        (depth_message(depth, Image().header), "32FC1", depth),
    ):
        np.testing.assert_array_equal(real.imgmsg_to_cv2(ours, "passthrough"), pixels)
        assert ours.encoding == encoding


class Bridge:
    """Stands for a cv_bridge that returns one picture whatever it is given."""

    def __init__(self, pixels: Any) -> None:
        self.pixels, self.asked = pixels, 0

    def imgmsg_to_cv2(self, message: Image, desired_encoding: str) -> Any:
        self.asked += 1
        if isinstance(self.pixels, Exception):
            raise self.pixels
        return self.pixels


def installed(monkeypatch: pytest.MonkeyPatch, bridge: Any) -> Any:
    """The converter that is used where cv_bridge is installed with this one."""
    module = ModuleType("cv_bridge")
    module.CvBridge = lambda: bridge  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "cv_bridge", module)
    images.cv_bridge.cache_clear()
    monkeypatch.setattr(images, "cv_bridge", images.cv_bridge.__wrapped__)
    return images.cv_bridge()


@pytest.mark.parametrize("answer", [np.zeros((1, 2, 3)), AttributeError("tostring"), ValueError("buffer too small")])
def test_a_cv_bridge_that_converts_wrongly_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    assert installed(monkeypatch, Bridge(answer)) is None
    assert "cv_bridge is not used" in caplog.text
    message = random_image("bgr8")
    np.testing.assert_array_equal(images.rgb_pixels(message), decode_image(message))


def test_what_cv_bridge_cannot_convert_is_decoded_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Bridge(np.array([[[2, 1, 0], [5, 4, 3]]]))
    assert installed(monkeypatch, bridge) is bridge
    monkeypatch.setattr(images, "cv_bridge", lambda: bridge)
    bridge.pixels = TypeError("[8UC3] is not a color format")
    message = random_image("8UC3")
    np.testing.assert_array_equal(images.rgb_pixels(message), decode_image(message))
    asked = bridge.asked
    images.rgb_pixels(random_image("rgb16", big_endian=True))
    with pytest.raises(ValueError, match="cannot be decoded"):
        images.rgb_pixels(CompressedImage(format="png", data=b"nothing"))
    with pytest.raises(ValueError, match="step 3 is too small"):
        images.rgb_pixels(Image(height=2, width=2, encoding="rgb8", step=3, data=[0] * 6))
    assert bridge.asked == asked
