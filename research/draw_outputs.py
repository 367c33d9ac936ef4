# SPDX-License-Identifier: Apache-2.0
"""Draw what the node published for one image: boxes, forecast, depth, uncertainty and occupancy, as one PNG.

    python research/draw_outputs.py LOG RECORDING OUT.png [NUMBER]

LOG is what the node was shown, RECORDING what `pixel4d record --topics '/forecast_node/*'` wrote of it. NUMBER counts
the source images of which everything was recorded (default: the one with most moving objects). For docs/outputs.png:

    pixel4d demo --samples 4 --rate 0.2
    python research/draw_outputs.py out/demo/street.mcap out/demo/forecast.mcap docs/outputs.png
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pixel4d_ros.datasets.driving_log import image_messages
from pixel4d_ros.evaluation.compare import Picture
from pixel4d_ros.evaluation.video import BACKGROUND, CAPTION, GREY, MARGIN, WHITE, paste, write_text
from pixel4d_ros.evaluation.windows import resize_image
from pixel4d_ros.geometry.rotations import FloatArray, rigid
from pixel4d_ros.logs.images import decode_image
from pixel4d_ros.logs.reader import LogReader
from pixel4d_ros.logs.streams import pick_streams
from pixel4d_ros.logs.transforms import stamp_ns

NODE = "/forecast_node"
TOPICS = {
    name: f"{NODE}/{topic}"
    for name, topic in {
        "forecast": "forecast",
        "depth": "forecast/depth",
        "uncertainty": "uncertainty",
        "motion": "motion",
        "occupancy": "occupancy",
    }.items()
}
WIDTH = 480  # pixels of a panel
NEAR, FAR = 3.0, 60.0  # metres, the range of the depth's colours
CUBE, ARROW = 1, 0  # visualization_msgs/Marker
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
EDGES = [(a, b) for a in range(8) for b in range(a) if bin(a ^ b).count("1") == 1]
UNKNOWN_GREY, FREE_GREY = 60, 170


def read_outputs(path: str) -> list[dict[str, Any]]:
    """Messages by name, for each source image of which all topics were recorded."""
    by_stamp: dict[int, dict[str, Any]] = defaultdict(dict)
    with LogReader(path) as log:
        for name, topic in TOPICS.items():
            for logged in log.messages([topic]):
                message = logged.message
                head = message.markers[0].header if name == "motion" else message.header
                by_stamp[stamp_ns(head)].setdefault(name, message)  # of several samples the first
    return [found for _, found in sorted(by_stamp.items()) if len(found) == len(TOPICS)]


def source_image(path: str, stamp: int) -> Picture:
    """The log's image with this stamp, ns."""
    with LogReader(path) as log:
        for time, message in image_messages(log, pick_streams(log).image.name):
            if time == stamp:
                return decode_image(message)
    raise ValueError(f"{path} has no image of {stamp} ns: pass the log that was replayed")


def cubes(motion: Any) -> list[Any]:
    """The boxes among the markers."""
    return [marker for marker in motion.markers if marker.type == CUBE]


def draw_motion(image: Picture, K: FloatArray, motion: Any) -> Picture:
    """Boxes, and arrows of the way in one second, over the source image; K (3, 3) is that of an image of this size."""
    scale = 2 * WIDTH / image.shape[1]
    canvas = resize_image(image, (2 * WIDTH, round(scale * image.shape[0])))
    K = np.diag([scale, scale, 1.0]) @ K
    for marker in motion.markers:
        colour = tuple(int(255 * getattr(marker.color, channel)) for channel in "rgb")
        if marker.type == CUBE:
            p, q, s = marker.pose.position, marker.pose.orientation, marker.scale
            T = rigid([q.w, q.x, q.y, q.z], [p.x, p.y, p.z])
            corners = (CORNERS * [s.x, s.y, s.z]) @ T[:3, :3].T + T[:3, 3]
            draw_lines(canvas, K, ((corners[a], corners[b]) for a, b in EDGES), colour)
        elif marker.type == ARROW and marker.ns == "velocities":
            start, end = (np.array([p.x, p.y, p.z]) for p in marker.points)
            draw_lines(canvas, K, [(start, end)], colour, 5)
    return canvas


def draw_lines(
    canvas: Picture,
    K: FloatArray,
    lines: Iterable[tuple[FloatArray, FloatArray]],
    colour: tuple[int, ...],
    thickness: int = 2,
) -> None:
    """Lines between points (3,) in the camera's frame, where both ends are before the camera."""
    for ends in lines:
        points = np.stack(ends)
        if (points[:, 2] < 0.5).any():
            continue
        pixels = (points / points[:, 2:]) @ K[:2].T
        (a, b), (c, d) = pixels.round().astype(int).clip(-5000, 5000).tolist()
        cv2.line(canvas, (a, b), (c, d), colour, thickness, cv2.LINE_AA)


def coloured(values: FloatArray, colours: int) -> Picture:
    """Values (H, W) 0..1 in the colours of an OpenCV colour map."""
    levels = (255 * np.asarray(values)).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, colours)[..., ::-1])


def depth_picture(message: Any) -> Picture:
    """32FC1 metres: near is yellow, far and nothing dark."""
    depth = np.frombuffer(bytes(message.data), "<f4").reshape(message.height, message.width)
    nearness = np.log(FAR / np.clip(depth, NEAR, FAR)) / np.log(FAR / NEAR)
    return coloured(nearness, cv2.COLORMAP_INFERNO)


def uncertainty_picture(message: Any) -> tuple[Picture, int]:
    """mono8, stretched to the whole range; and its largest value."""
    values = np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.width)
    most = int(values.max())
    return coloured(values / max(most, 1), cv2.COLORMAP_VIRIDIS), most


def occupancy_picture(grid: Any, side: int) -> tuple[Picture, float]:
    """The known part of the grid (side, side, 3) and its width in metres.

    x is right, y up; free is light, unknown dark, obstacles orange, the vehicle, in the middle of the grid, a ring.
    """
    cells = np.asarray(grid.data, np.int8).reshape(grid.info.height, grid.info.width)
    centre = np.array(cells.shape) // 2
    known = np.vstack([np.argwhere(cells >= 0), [centre]])
    low, high = known.min(0) - 4, known.max(0) + 5
    count = int((high - low).max())
    low = ((low + high - count) // 2).clip(0, np.maximum(np.array(cells.shape) - count, 0))
    part = cells[low[0] : low[0] + count, low[1] : low[1] + count][::-1]
    grey = np.where(part < 0, UNKNOWN_GREY, FREE_GREY).astype(np.float64)
    share = part.clip(0, 100)[..., None] / 100
    picture = (1 - share) * grey[..., None] + share * np.array([255.0, 120, 0])
    canvas = cv2.resize(picture.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST)
    x, y = ((centre - low)[::-1] * side / len(part)).round().astype(int).tolist()
    cv2.circle(canvas, (x, side - y), 8, WHITE, 2, cv2.LINE_AA)
    return canvas, len(part) * grid.info.resolution


def draw(image: Picture, outputs: dict[str, Any]) -> Picture:
    """All panels."""
    forecast = outputs["forecast"]
    K = np.array(forecast.camera_info.k).reshape(3, 3)
    grid = outputs["occupancy"]
    ahead = 1e-9 * (stamp_of(grid.info.map_load_time) - stamp_ns(forecast.header))
    times = np.array([t.sec + 1e-9 * t.nanosec for t in forecast.time_from_start])
    selected = int(np.abs(times - ahead).argmin())
    uncertainty, most = uncertainty_picture(outputs["uncertainty"])
    panels = [
        ("source image, ~/motion: boxes, the way in 1 s", draw_motion(image, K, outputs["motion"])),
        (f"~/forecast/image, {ahead:+.1f} s", decode_image(forecast.images[selected])),
        (f"~/forecast/depth, {NEAR:g} m yellow, {FAR:g} m black", depth_picture(outputs["depth"])),
        (f"~/uncertainty, at most {most} of 255 (yellow)", uncertainty),
    ]
    height = round(WIDTH * image.shape[0] / image.shape[1])
    side = 4 * (height + CAPTION) + 3 * MARGIN - CAPTION
    canvas = np.full((side + CAPTION + 2 * MARGIN, WIDTH + side + 3 * MARGIN, 3), BACKGROUND, np.uint8)
    for i, (caption, picture) in enumerate(panels):
        corner = MARGIN, MARGIN + CAPTION + i * (height + CAPTION + MARGIN)
        write_text(canvas, caption, corner, GREY)
        paste(canvas, picture, corner, (WIDTH, height))
    corner = 2 * MARGIN + WIDTH, MARGIN + CAPTION
    seen_from_above, metres = occupancy_picture(grid, side)
    write_text(canvas, f"~/occupancy, {ahead:+.1f} s, {metres:.0f} m wide; ring: the vehicle now", corner, GREY)
    paste(canvas, seen_from_above, corner, (side, side))
    return canvas


def stamp_of(time: Any) -> int:
    """builtin_interfaces/Time in ns."""
    return int(time.sec) * 10**9 + int(time.nanosec)


def main() -> int:
    """Draw; returns the exit status."""
    if len(sys.argv) not in (4, 5):
        print(__doc__)
        return 2
    log, recording, out = sys.argv[1:4]
    outputs = read_outputs(recording)
    if not outputs:
        print(f"{recording} holds no image with all of {', '.join(TOPICS.values())}", file=sys.stderr)
        return 1
    busiest = max(range(len(outputs)), key=lambda i: len(cubes(outputs[i]["motion"])))
    number = int(sys.argv[4]) if len(sys.argv) == 5 else busiest
    chosen = outputs[number]
    image = source_image(log, stamp_ns(chosen["forecast"].header))
    cv2.imwrite(out, cv2.cvtColor(draw(image, chosen), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{out}: image {number} of {len(outputs)}, {Path(out).stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
