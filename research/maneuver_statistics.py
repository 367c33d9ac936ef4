# SPDX-License-Identifier: Apache-2.0
"""How labelled objects leave constant velocity: the numbers behind outputs/maneuvers.py's ACCELERATION.

python research/maneuver_statistics.py ../shared/logs/*/*.mcap

For each moment of each labelled track that moves, the velocity is integrated over the horizon and compared with
constant velocity. The difference d is that of a constant acceleration 2 d / horizon^2.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pixel4d_ros.datasets.box_labels import box_file, labelled
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.outputs.maneuvers import ACCELERATION, MIN_SPEED, SIGMAS

GAP = 0.15  # s, largest step between two labels of a track


def tracks(clip: Clip) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Times (n,) and velocities (n, 3) over ground, in the clip's world, of each labelled track."""
    found = defaultdict(list)
    for t, pose, boxes in zip(clip.times, clip.poses, clip.boxes or (), strict=True):
        for box in boxes:
            if box.velocity is not None:
                found[box.track].append((t, pose[:3, :3] @ box.velocity))
    for rows in found.values():
        yield np.array([t for t, _ in rows]), np.array([v for _, v in rows])


def accelerations(clip: Clip, horizon: float) -> FloatArray:
    """Mean accelerations (N, 2) in m/s^2 over the horizon (s), along and across the direction of travel.

    Starts follow each other by half the horizon; tracks with gaps and objects slower than MIN_SPEED are left out.
    """
    down = clip.poses[:, :3, 1].mean(0) if len(clip) else np.array([0.0, 0.0, 1.0])
    rows = []
    for times, velocities in tracks(clip):
        step = max(1, round(horizon / 2 / max(float(np.median(np.diff(times))), 1e-3))) if len(times) > 1 else 1
        for first in range(0, len(times), step):
            last = int(np.searchsorted(times, times[first] + horizon - GAP / 4))
            some, speed = slice(first, last + 1), float(np.linalg.norm(velocities[first]))
            if last >= len(times) or np.diff(times[some]).max(initial=0) > GAP or speed < MIN_SPEED:
                continue
            difference = np.trapezoid(velocities[some] - velocities[first], times[some], axis=0)
            ahead = velocities[first] / speed
            across = np.cross(ahead, down)
            seconds = times[last] - times[first]
            rows.append(2 / seconds**2 * np.array([difference @ ahead, difference @ across]))
    return np.reshape(rows, (-1, 2))


def main() -> None:
    """Print a table for the labelled ones of the logs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--horizon", type=float, default=1.3, help="s (default: 1.3)")
    args = parser.parse_args()
    logs = [log for log in args.logs if box_file(log, log.stem)]
    if not logs:
        parser.error("none of these logs has a .boxes.json beside it")
    found = [accelerations(labelled(read_clip(log), log), args.horizon) for log in logs]
    every = np.concatenate(found)
    print(f"{len(logs)} logs, {len(every)} starts, {args.horizon:g} s\n\n| | along | across |\n|---|---|---|")
    for name, values in (
        ("root mean square, m/s²", np.sqrt((every**2).mean(0))),
        ("95th percentile, m/s²", np.percentile(np.abs(every), 95, axis=0)),
        ("within the outer paths", (np.abs(every) <= SIGMAS * np.array(ACCELERATION)).mean(0)),
    ):
        print(f"| {name} | {values[0]:.2f} | {values[1]:.2f} |")


if __name__ == "__main__":
    main()
