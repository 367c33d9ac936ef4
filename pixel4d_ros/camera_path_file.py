# SPDX-License-Identifier: Apache-2.0
"""Camera paths from text files; common mistakes are recognised."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import numpy as np

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.geometry.interpolation import FASTEST, step_speeds
from pixel4d_ros.geometry.jumps import ROUGH_JUMP_M, find_jumps
from pixel4d_ros.geometry.rotations import FloatArray, rigid_from_xyzw, rotation_vector

logger = logging.getLogger(__name__)
COLUMNS = ("t", "x", "y", "z", "qx", "qy", "qz", "qw")
OTHER_NAMES = {
    "time": "t",
    "time_s": "t",
    "timestamp": "t",
    "stamp": "t",
    "tx": "x",
    "ty": "y",
    "tz": "z",
}
EXPECTED = f"expected lines of {' '.join(COLUMNS)}"
EPOCH_S = 1e8  # times beyond this many seconds are dates
LONGEST_STEP_S = 10.0  # between two poses: larger values mean another unit than seconds
FARTHEST_TURN = np.radians(60)  # of the camera at t = 0
FARTHEST_AWAY = np.radians(90)  # within the horizon: from there on, a path is suspicious
NEAR_START_M, BACKWARDS_M = 0.5, 1.0  # of the start, and of the way back: from there on, a path is suspicious
SLOW_S, SLOW_SHARE, SLOW_MPS = 60.0, 0.01, 0.1  # of a path: duration, share of it within the horizon, and speed
FEW, FRAME_MPS = 5, 2.0  # poses a second apart, and their speed, as where times are numbers of frames
PARTS, LEAST_MOVE_M = 4, 0.3  # of the horizon, and of the motion in each
STRAIGHT, ACROSS = np.radians(30), np.radians(45)  # between camera and motion, at the begin and the end of a bend
SIDEWAYS = 0.2  # forward over sideways distance, below which a path is suspicious
FARTHEST_START_M = 10.0  # of the camera at t = 0 from the source camera, which is the origin of its own frame


def read_camera_path(file: Path, horizon: float) -> CameraPath:
    """A camera path from lines `t x y z qx qy qz qw` (spaces, commas or semicolons; # starts a comment), or JSON.

    Times are seconds after the source image, or dates, which count from the first. Poses are T_source_camera: metres in
    the optical frame of the source camera, quaternions in the order of ROS. A header, or a comment before the first
    row, may name the columns in any order.
    horizon: time, s, that the path must cover. Raises ValueError with cause and cure.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"camera path {file} cannot be read ({error}): {EXPECTED}") from error
    try:
        table = _table(text)
        return _path(table, horizon)
    except ValueError as error:
        raise ValueError(f"camera path {file}: {error}") from error


def _table(text: str) -> FloatArray:
    """Rows (T, 8) in the order of COLUMNS."""
    if text.lstrip().startswith("["):
        try:
            table = np.array(json.loads(text), np.float64)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{error}; {EXPECTED}, or JSON of such rows") from error
    else:
        table = _rows(text)
    if table.ndim != 2 or table.shape[1] != len(COLUMNS):
        raise ValueError(f"has shape {table.shape}: {EXPECTED}")
    if not np.isfinite(table).all():
        raise ValueError(f"contains NaN or Inf: {EXPECTED}")
    return table


def _rows(text: str) -> FloatArray:
    names: list[str] | None = None
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        content, _, comment = line.partition("#")
        content = content.strip()
        if not content:
            if not rows and names is None:
                names = _column_names(comment)
            continue
        if ";" in content and "," in content:
            raise ValueError(f"line {number} holds semicolons and commas: write decimal points, as in 0.5, not 0,5")
        words = [word for word in re.split(r"[\s,;]+", content) if word]
        if not rows and not _is_number(words[0]):
            names = _column_names(content)
            if names is None:
                raise ValueError(
                    f"line {number} names the columns {' '.join(words)}: {' '.join(COLUMNS)} were expected"
                )
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            raise ValueError(f"line {number} is {content[:60]!r}: {EXPECTED}") from None
        if len(words) != len(COLUMNS):
            raise ValueError(f"line {number} has {len(words)} numbers, {len(COLUMNS)} were expected: {EXPECTED}")
    table = np.array(rows, np.float64).reshape(-1, len(COLUMNS))
    if not rows:
        raise ValueError(f"is empty: {EXPECTED}")
    return table if names is None else table[:, [names.index(name) for name in COLUMNS]]


def _column_names(text: str) -> list[str] | None:
    """The columns that a header names, in its order; None if it does not name all of COLUMNS. Units are left out."""
    words = re.sub(r"\[[^\]]*\]|\([^)]*\)", " ", text.lower().lstrip("# ")).replace(",", " ").replace(";", " ").split()
    names = [OTHER_NAMES.get(word, word) for word in words]
    return names if sorted(names) == sorted(COLUMNS) else None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _path(table: FloatArray, horizon: float) -> CameraPath:
    times = table[:, 0]
    steps = np.diff(times)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0)) + 2
        raise ValueError(f"the times must increase, but pose {row} is at {times[row - 1]:g} after {times[row - 2]:g}")
    if len(steps) and np.median(steps) > LONGEST_STEP_S:
        raise ValueError(
            f"{np.median(steps):g} s lie between two poses: times must be seconds; divide milliseconds by 1000,"
            " nanoseconds by 1e9"
        )
    if times[0] > EPOCH_S:
        times = times - times[0]
    path = CameraPath(times, rigid_from_xyzw(table[:, 4:], table[:, 1:4]))
    if horizon > 0 and times[-1] < horizon - 1e-6:
        raise ValueError(
            f"ends at {times[-1]:g} s, but the forecast extends to {horizon:g} s: add poses, or lower --steps or --step"
        )
    if times[0] > (steps[0] if len(steps) else 0) + 1e-6:
        raise ValueError(f"begins at {times[0]:g} s, but the source image is at 0 s: add the pose at that time")
    start = path.at(0.0)[0, :3, 3]
    if np.linalg.norm(start) > FARTHEST_START_M:
        raise ValueError(
            f"the camera is at {np.round(start, 2).tolist()} m at 0 s, but the frame is the source camera's own: give"
            " poses relative to that of the source image, in its optical frame"
        )
    if np.linalg.norm(rotation_vector(path.at(0.0)[0, :3, :3])) > FARTHEST_TURN:
        raise ValueError(
            "the camera at 0 s does not look where the source camera does: write quaternions as qx qy qz qw (0 0 0 1 at"
            " the source image), in its optical frame"
        )
    speeds = step_speeds(path.times, path.poses)
    if (speeds > FASTEST).any():
        raise ValueError(f"the camera moves at {speeds.max():.3g} m/s: positions must be metres, times seconds")
    _warn_of_doubts(path, horizon)
    return path


def warn_of_turn(turned: float, horizon: float) -> None:
    """Warn of a camera that turns by so many radians within the horizon, s: away from all that the image shows."""
    if turned > FARTHEST_AWAY:
        degrees = np.degrees(turned)
        logger.warning("the camera turns by %.0f degrees within %g s: are angles in radians?", degrees, horizon)


def _motion_angles(path: CameraPath, horizon: float) -> list[float]:
    """Angles (rad) between the camera's axis and its motion, in a few parts of the horizon in which it moves."""
    poses = path.at(np.linspace(0, horizon, PARTS + 1))
    moves = np.einsum("tji,tj->ti", poses[1:, :3, :3], np.diff(poses[:, :3, 3], axis=0))
    return [float(np.arctan2(abs(x), z)) for x, y, z in moves if np.hypot(x, z) > LEAST_MOVE_M]


def _warn_of_doubts(path: CameraPath, horizon: float) -> None:
    """Warn of a path that is followed although it is odd."""
    start, end = path.at(0.0)[0], path.at(horizon)[0]
    warn_of_turn(float(np.linalg.norm(rotation_vector(start[:3, :3].T @ end[:3, :3]))), horizon)
    start = start[:3, 3]
    jumps = find_jumps(path.times, path.poses, ROUGH_JUMP_M)
    if len(jumps):
        logger.warning("the camera path jumps after %g s: is it one drive, in one frame?", path.times[jumps[0]])
    if np.linalg.norm(start) > NEAR_START_M:
        logger.warning(
            "the camera path begins %.1f m away from the source camera: poses must be relative to that of the image",
            float(np.linalg.norm(start)),
        )
    first, *_, last = _motion_angles(path, horizon) or [0.0, 0.0]
    if first < STRAIGHT and last > ACROSS:
        logger.warning(
            "the camera path bends, and at its end the camera looks %.0f degrees off its motion: do the quaternions"
            " turn with the path (the wrong way, or not at all)?",
            np.degrees(last),
        )
    moved = end[:3, 3] - start
    duration, way = float(path.times[-1] - path.times[0]), np.linalg.norm(np.diff(path.poses[:, :3, 3], axis=0), axis=1)
    if duration > max(SLOW_S, horizon / SLOW_SHARE) and 1.0 < way.sum() < SLOW_MPS * duration:
        logger.warning(
            "the camera path lasts %.0f s, of which %.2g s are forecast, and moves at %.2g m/s: are its times seconds?",
            *(duration, horizon, way.sum() / duration),
        )
    if len(path.times) > FEW and (np.diff(path.times) == 1).all() and 1.0 < way.sum() < FRAME_MPS * duration:
        logger.warning(
            "the camera path has a pose a second and moves at %.2g m/s: are its times numbers of frames, not seconds?",
            way.sum() / duration,
        )
    if moved[2] < -BACKWARDS_M:
        logger.warning(
            "the camera path leads backwards: unless the camera reverses, z must point forward (optical frame)"
        )
    if abs(moved[2]) < SIDEWAYS * np.linalg.norm(moved[:2]) and np.linalg.norm(moved) > 1:
        logger.warning("the camera path leads sideways: poses must be in the optical frame, z forward, x right, y down")
