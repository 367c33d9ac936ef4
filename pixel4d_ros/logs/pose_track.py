# SPDX-License-Identifier: Apache-2.0
"""The poses of one frame in another over a log, and what is odd about them.

Units, clocks and sources that are mixed up are found by comparing poses with each other, with the velocities that
odometry gives, and stamps with the times of logging.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.geometry.interpolation import FASTEST, step_speeds
from pixel4d_ros.geometry.jumps import JumpsError, without_jumps
from pixel4d_ros.geometry.optical import is_overturned
from pixel4d_ros.geometry.pose_buffer import PoseBuffer
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.logs.reader import LogError

TimedPose = tuple[int, int, FloatArray]  # stamp and log time in ns, T_parent_child
MANY = 0.25  # share of a log's poses: fewer are no mistake of all
PAUSE_S, PAUSE_STEPS = 0.5, 5.0  # between messages: seconds, and times the usual step
CLOCK_SCATTER_S = 0.3  # of stamps against log times: more than a recorder's delays
SPEED_RATIO, SPEED_APART = 1.5, 1.0  # between a twist's speed and that of the poses: factor, and m/s


def seconds(ns: NDArray[np.int64]) -> FloatArray:
    """Nanoseconds as float64 seconds."""
    return ns.astype(np.float64) * 1e-9


@dataclass
class PoseTrack:
    """Poses T_parent_child over a whole log."""

    parent: str
    child: str
    poses: PoseBuffer = field(default_factory=lambda: PoseBuffer(history_s=None))
    lag_ns: int = 0  # between stamps and log times
    overturned: bool = False  # many of the poses have the vehicle on its side or back

    def add(self, stamp: int, pose: FloatArray) -> None:
        """Insert a pose by its stamp; of two with the same stamp the first is kept (repeated tf)."""
        self.poses.add(stamp, pose)

    @property
    def stamps(self) -> NDArray[np.int64]:
        """The first and the last stamp (2,), ns."""
        first, last = self.poses.oldest, self.poses.newest
        return np.array([at[0] for at in (first, last) if at is not None], np.int64)

    def at(self, stamps: NDArray[np.int64]) -> FloatArray:
        """Poses (n, 4, 4) at stamps (n,) ns, by slerp and linear translation, extrapolated beyond the ends."""
        return self.poses.at_stamps(stamps)

    def covers(self, stamps: NDArray[np.int64], slack_ns: int) -> NDArray[np.bool_]:
        """Which stamps (n,) are within the track and in none of its gaps, or at most slack_ns beyond."""
        return self.poses.covers(stamps, slack_ns)


def pose_track(
    name: str, parent: str, child: str, poses: Sequence[TimedPose], speeds: Sequence[float] = ()
) -> PoseTrack:
    """Poses sorted by stamp; by log time if no message has a stamp (simulators begin at 0). Jumps are removed.

    name: of log and topic, for warnings. speeds: of the messages' twists, m/s. Raises LogError for a wrong unit.
    """
    stamped = any(stamp for stamp, _, _ in poses)
    by_time = {(stamp if stamped else logged): pose for stamp, logged, pose in reversed(poses)}
    stamps = np.array(sorted(by_time), np.int64)
    found = np.stack([by_time[ns] for ns in stamps.tolist()])
    what = f"{child or 'the vehicle'} in {parent!r}"
    if stamped:
        _warn_of_stamps(name, what, poses, by_time)
    joined = plausible_poses(name, what, seconds(stamps - stamps[0]), found)
    _warn_of_speed(name, what, seconds(stamps - stamps[0]), joined, speeds)
    lag = int(np.median([logged - stamp for stamp, logged, _ in poses])) if stamped else 0
    overturned = is_overturned(joined, child).mean() > MANY
    track = PoseTrack(parent, child, lag_ns=lag, overturned=bool(overturned))
    for stamp, pose in zip(stamps.tolist(), joined):
        track.add(stamp, pose)
    return track


def clock_scatter(stamps: NDArray[np.int64], logged: NDArray[np.int64]) -> float:
    """Seconds by which stamps (T,), ns, fail to advance as log times (T,), ns; 0 for a few.

    A constant delay, another rate (a log that was replayed slowly) and pauses of both the stamps and the messages (a
    simulation that was stopped for a while, logged by the wall clock) are no failure.
    """
    if len(stamps) < 10:
        return 0.0
    x, y = seconds(stamps - stamps[0]), seconds(logged - logged[0])
    steps, usual = np.diff(y), float(np.median(np.diff(y)))
    paused = (steps > max(PAUSE_S, PAUSE_STEPS * usual)) & (np.diff(x) < steps / 2)
    y[1:] -= np.cumsum(np.where(paused, steps - usual, 0.0))
    x = x - x.mean()
    rate = float(x @ y / max(x @ x, 1e-12))
    return float(np.percentile(np.abs(y - y.mean() - rate * x), 90))


def warn_of_scatter(name: str, stamps: NDArray[np.int64], logged: NDArray[np.int64]) -> None:
    """Warn where stamps do not advance as the time of logging does."""
    scatter = clock_scatter(stamps, logged)
    if scatter > CLOCK_SCATTER_S:
        warnings.warn(
            f"{name}: the stamps are up to {scatter:.1f} s off the times at which the messages were logged: do they go"
            " back, or lack fractions of a second? Have the driver stamp each message with the time of its measurement",
            stacklevel=3,
        )


def _warn_of_stamps(name: str, what: str, poses: Sequence[TimedPose], by_time: dict[int, FloatArray]) -> None:
    repeated = sum(not np.array_equal(pose, by_time[stamp]) for stamp, _, pose in poses)
    if repeated > MANY * len(poses):
        warnings.warn(
            f"{name}: {repeated} of {len(poses)} poses of {what} repeat the stamp of another one and are left out: are"
            " fractions of seconds missing?",
            stacklevel=3,
        )
    warn_of_scatter(name, *(np.array([pose[i] for pose in poses], np.int64) for i in (0, 1)))


def plausible_poses(name: str, what: str, times: FloatArray, poses: FloatArray) -> FloatArray:
    """Poses (T, 4, 4) at times (T,), s, without jumps; a warning says what is odd. Raises LogError for a wrong unit.

    Where times do not increase the poses are returned as they are: a Clip refuses them.
    """
    if not (np.diff(times) > 0).all():
        return poses
    speed = float(np.median(step_speeds(times, poses))) if len(times) > 1 else 0.0
    if speed > FASTEST:
        raise LogError(f"{name}: {what} moves at {speed:.3g} m/s: positions must be in metres, stamps in seconds")
    try:
        joined, jumps = without_jumps(times, poses)
    except JumpsError as error:
        warnings.warn(
            f"{name}: {what} does not move evenly ({error}); its poses are used as they are. Do several publishers, or"
            " several clocks, share the topic?",
            stacklevel=3,
        )
        return poses
    if len(jumps):
        warnings.warn(
            f"{name}: {what} jumps {len(jumps)} times, first {times[jumps[0]] - times[0]:.1f} s after its start"
            " (relocalisation?): the poses after a jump are moved to continue those before",
            stacklevel=3,
        )
    return joined


def _warn_of_speed(name: str, what: str, times: FloatArray, poses: FloatArray, speeds: Sequence[float]) -> None:
    """Warn where the speed of the twists is not that of the poses; twists that are zero throughout are not filled."""
    given = float(np.mean(speeds)) if len(speeds) else 0.0  # a mean, as that of the poses: vehicles stop at times
    if len(times) < 3 or not np.any(speeds):
        return
    driven = float(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).sum() / times[-1])
    low, high = sorted((given, driven))
    if high > SPEED_RATIO * low and high - low > SPEED_APART:
        warnings.warn(
            f"{name}: {what} moves at {driven:.3g} m/s by its poses, at {given:.3g} m/s by its twists: are both in"
            " metres and seconds? The poses are used",
            stacklevel=3,
        )
