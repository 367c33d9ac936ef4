# SPDX-License-Identifier: Apache-2.0
"""Compressed images and depth: their format counts, and what is damaged or too large is refused before decoding."""

from __future__ import annotations

import resource
import struct
import time
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from pixel4d_ros.datasets.image_files import DatasetError, decode_rgb, depth_doubt
from pixel4d_ros.logs.images import decode_depth, decode_image

RNG = np.random.default_rng(0)
RGB = cv2.resize(RNG.integers(0, 255, (4, 6, 3), np.uint8), (48, 32), interpolation=cv2.INTER_CUBIC)


def compressed(form: str, data: bytes) -> Any:
    return SimpleNamespace(format=form, data=data)


def encode(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    """What OpenCV writes, which takes three channels for blue, green, red."""
    return cv2.imencode(suffix, pixels)[1].tobytes()


def close(a: np.ndarray, b: np.ndarray, tolerance: float = 4) -> bool:
    return bool(np.abs(a.astype(float) - b).mean() < tolerance)


def mosaic(pattern: str) -> np.ndarray:
    """RGB as a sensor with that pattern of filters sees it, row by row."""
    out = np.zeros(RGB.shape[:2], np.uint8)
    for k, letter in enumerate(pattern):
        out[k // 2 :: 2, k % 2 :: 2] = RGB[k // 2 :: 2, k % 2 :: 2, "rgb".index(letter)]
    return out


@pytest.mark.parametrize(
    ("form", "channels"),
    [
        ("rgb8; jpeg compressed bgr8", "rgb"),
        ("bgr8; jpeg compressed bgr8", "rgb"),
        ("rgb8; jpeg compressed rgb8", "bgr"),  # image_transport: red and blue are swapped in the file
        ("bgr8; png compressed rgb8", "bgr"),
        ("jpeg", "rgb"),
        ("", "rgb"),
    ],
)
def test_the_order_of_channels_is_the_one_that_image_transport_means(form: str, channels: str) -> None:
    stored = RGB[..., ::-1] if channels == "rgb" else RGB
    suffix = ".png" if "png" in form else ".jpg"
    assert close(decode_image(compressed(form, encode(stored, suffix))), RGB)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_compressed_bayer_patterns_become_colours(pattern: str, suffix: str) -> None:
    message = compressed(f"bayer_{pattern}8; {suffix[1:]} compressed ", encode(mosaic(pattern), suffix))
    assert close(decode_image(message)[4:-4, 4:-4], RGB[4:-4, 4:-4], 12)
    wide = compressed(f"bayer_{pattern}16; png compressed ", encode(mosaic(pattern).astype(np.uint16) * 256))
    assert close(decode_image(wide)[4:-4, 4:-4], RGB[4:-4, 4:-4], 12)
    # A driver that converts to colours first, and one that stores the pattern as grey in three channels.
    coloured = compressed(f"bayer_{pattern}8; jpeg compressed bgr8", encode(RGB[..., ::-1]))
    assert close(decode_image(coloured), RGB)
    grey = compressed(f"bayer_{pattern}8; png compressed bgr8", encode(np.repeat(mosaic(pattern)[..., None], 3, 2)))
    assert close(decode_image(grey)[4:-4, 4:-4], RGB[4:-4, 4:-4], 12)


def test_raw_bayer_patterns_of_16_bits_become_colours() -> None:
    data = (mosaic("rggb").astype("<u2") * 256).tobytes()
    raw = SimpleNamespace(height=32, width=48, encoding="bayer_rggb16", is_bigendian=0, step=96, data=data)
    assert close(decode_image(raw)[4:-4, 4:-4], RGB[4:-4, 4:-4], 12)


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with EXIF data that tell viewers to turn it."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def test_the_orientation_in_exif_data_is_ignored() -> None:
    turned = with_orientation(encode(RGB[..., ::-1], ".jpg"), 6)
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (48, 32)  # a viewer turns it
    assert close(decode_image(compressed("jpeg", turned)), RGB)
    assert close(decode_rgb(turned, "a.jpg"), RGB)


def chunk(kind: bytes, data: bytes, claimed: int | None = None) -> bytes:
    """A chunk of a PNG; claimed: another length than that of the data."""
    length = len(data) if claimed is None else claimed
    return struct.pack(">I", length) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG that claims a size, with next to no data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    rows = zlib.compress(bytes(64 * (1 + 3 * 64)))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_size_limits_hold_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg = bytearray(encode(RGB, ".jpg"))
    frame = jpeg.find(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60000, 60000)

    def never(*_: object) -> None:
        raise AssertionError("decoded all the same")

    monkeypatch.setattr(cv2, "imdecode", never)
    for data in (png_header(30000, 30000), bytes(jpeg)):
        with pytest.raises(ValueError, match="more than 8192 pixels along a side"):
            decode_image(compressed("rgb8; png compressed bgr8", data))
        with pytest.raises(ValueError, match="more than 8192 pixels along a side"):
            decode_depth(compressed("16UC1; compressedDepth png", bytes(12) + data))
        with pytest.raises(DatasetError, match="more than 8192 pixels along a side"):
            decode_rgb(data, "a.png")


def test_pixels_and_bytes_are_limited_not_only_sides() -> None:
    with pytest.raises(ValueError, match="8000x8000: more than 50 Mpixel"):
        decode_image(compressed("", png_header(8000, 8000)))
    with pytest.raises(ValueError, match="6000x6000 with 64 bits a pixel: more than 200 MB"):
        decode_image(compressed("", png_header(6000, 6000, bits=16, colour=6)))
    black = np.zeros((6000, 6000), np.uint8)
    assert decode_image(compressed("", encode(black))).shape == (6000, 6000, 3)
    jpeg = bytearray(encode(RGB, ".jpg"))
    frame = jpeg.find(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 8000, 8000)
    with pytest.raises(ValueError, match="8000x8000: more than 50 Mpixel"):
        decode_image(compressed("", bytes(jpeg)))
    # A TIFF of four doubles a pixel: 64 bits, and four channels, stored as tags 258 and 277.
    tiff = encode(np.zeros((3000, 3000, 4)), ".tiff")
    with pytest.raises(ValueError, match="3000x3000 with 256 bits a pixel: more than 200 MB"):
        decode_image(compressed("", tiff))


def test_a_chunk_that_claims_gigabytes_takes_no_memory() -> None:
    """OpenCV allocates what the length of a chunk says, before it reads the chunk."""
    small = encode(RGB[..., ::-1])
    for claimed in (1 << 30, 0x7FFFFFFF, 0xFFFFFFFF):
        bomb = small.replace(small[33:41], struct.pack(">I", claimed) + b"IDAT")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ValueError, match="damaged"):
            decode_image(compressed("png", bomb))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_compressed_comments_and_profiles_are_not_unpacked() -> None:
    """Each of these chunks of 7 kB would unpack to 7 MB: 56 s for a file of 3.6 MB, now 3 ms."""
    small = encode(RGB[..., ::-1])
    comment = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(7 << 20), 9))
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(7 << 20), 9))
    bomb = small[:33] + profile + 200 * comment + small[33:]
    began = time.process_time()
    assert np.array_equal(decode_image(compressed("png", bomb)), RGB)
    assert time.process_time() - began < 2


def test_a_jpeg_of_many_scans_is_refused() -> None:
    jpeg = cv2.imencode(".jpg", RGB, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    scan = jpeg[jpeg.rfind(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match="JPEG of more than 100 scans"):
        decode_image(compressed("jpeg", jpeg[:-2] + 100 * scan + jpeg[-2:]))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.99])
def test_truncated_files_are_refused(suffix: str, kept: float) -> None:
    data = encode(RNG.integers(0, 255, (64, 64, 3), np.uint8), suffix)
    torn = data[: int(kept * len(data))]
    with pytest.raises(ValueError, match=r"cannot be decoded: damaged"):
        decode_image(compressed("jpeg", torn))
    with pytest.raises(DatasetError, match=r"a\.jpg is no whole image .* damaged"):
        decode_rgb(torn, "a.jpg")


def test_padding_after_the_end_is_no_damage() -> None:
    for suffix in (".jpg", ".png"):
        padded = encode(RGB[..., ::-1], suffix) + bytes(100)
        assert close(decode_image(compressed("jpeg", padded)), RGB)
    progressive = cv2.imencode(".jpg", RGB[..., ::-1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert close(decode_image(compressed("jpeg", progressive)), RGB)


@pytest.mark.parametrize("form", ["16UC1; png compressed ", "16UC1; compressedDepth png", "32FC1; compressedDepth png"])
def test_a_depth_image_is_no_picture(form: str) -> None:
    with pytest.raises(ValueError, match="is a depth image: `image` needs colours"):
        decode_image(compressed(form, encode(np.full((8, 8), 1000, np.uint16))))


@pytest.mark.parametrize("form", ["mono8; png compressed ", "8UC1; png compressed", "mono8; jpeg compressed "])
def test_depth_of_8_bits_is_refused(form: str) -> None:
    suffix = ".jpg" if "jpeg" in form else ".png"
    with pytest.raises(ValueError, match=r"holds 8 bits in 1 channel\(s\), which is no depth: publish 16UC1"):
        decode_depth(compressed(form, encode(np.full((8, 8), 10, np.uint8), suffix)))


@pytest.mark.parametrize("form", ["16UC1; compressedDepth rvl", "32FC1; compressedDepth RVL"])
def test_rvl_depth_is_named(form: str) -> None:
    with pytest.raises(ValueError, match=r"depth compressed as RVL .* is not supported: set .* to png"):
        decode_depth(compressed(form, bytes(100)))


@pytest.mark.parametrize(
    ("encoding", "channels", "size"),
    [("yuyv", 2, (3, 4)), ("uyvy", 2, (5, 1))],
)
def test_sizes_that_an_encoding_does_not_allow_are_refused(encoding: str, channels: int, size: tuple[int, int]) -> None:
    width, height = size
    step = width * channels
    raw = SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=0, step=step, data=bytes(height * step)
    )
    with pytest.raises(ValueError, match=f"{width}x{height} pixels cannot be {encoding}"):
        decode_image(raw)


def test_every_format_is_measured_before_it_is_decoded() -> None:
    """OpenCV itself would decode images of a thousand million pixels."""
    for suffix in (".png", ".jpg", ".webp", ".bmp", ".tiff"):
        data = encode(RGB[..., ::-1], suffix)
        assert close(decode_image(compressed("", data)), RGB, 12), suffix
        with pytest.raises(ValueError, match="damaged"):
            decode_image(compressed("", data[: len(data) // 2]))
    row = np.zeros((2, 8200), np.uint8)
    for suffix in (".png", ".jpg", ".webp", ".bmp", ".tiff"):
        with pytest.raises(ValueError, match="8200x2: more than 8192 pixels"):
            decode_image(compressed("", encode(row, suffix)))
    for suffix in (".jp2", ".ppm"):
        with pytest.raises(ValueError, match="JPEG, PNG, WebP, BMP and TIFF are read"):
            decode_image(compressed("", encode(RGB, suffix)))


def test_packets_of_a_video_are_named() -> None:
    with pytest.raises(ValueError, match=r"'h264'.* is a packet of a video, .* republish it as jpeg or raw"):
        decode_image(compressed("h264", b"\0\0\0\1gB"))


def test_float_depth_in_millimetres_is_refused() -> None:
    metres = np.linspace(0.4, 12, 32 * 48, dtype=np.float32).reshape(32, 48)
    metres[0] = np.inf  # the sky, of simulators

    def image(depth: np.ndarray) -> Any:
        fields = {"encoding": "32FC1", "is_bigendian": 0, "height": 32, "width": 48, "step": 192}
        return SimpleNamespace(**fields, data=depth.tobytes())

    np.testing.assert_allclose(decode_depth(image(metres))[1:], metres[1:])
    with pytest.raises(ValueError, match=r"32FC1 begins at \d+: it must be in metres"):
        decode_depth(image(metres * 1000))


def test_depth_in_place_of_a_picture_is_doubted(tmp_path: Path) -> None:
    """As grey, a room looks foggy."""
    for name, pixels in (("depth", np.full((8, 8), 30_000, np.uint16)), ("grey", np.full((8, 8), 100, np.uint8))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels)
    assert "one channel of 16 bits: is it depth" in depth_doubt(tmp_path / "depth.png")
    assert depth_doubt(tmp_path / "grey.png") == ""
