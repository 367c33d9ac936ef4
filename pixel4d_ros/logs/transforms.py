"""Where a log's camera was: poses from odometry, tf or a Path, carried to the camera's optical frame."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.geometry.rotations import FloatArray, rigid, rigid_inverse
from pixel4d_ros.logs.reader import LogError, LogReader
from pixel4d_ros.logs.streams import Streams

# Optical frame in a body frame (REP-103): z forward, x right, y down in x forward, y left, z up.
FORWARD_OPTICAL = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def stamp_ns(header: Any) -> int:
    """The stamp of a std_msgs/Header in nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def seconds(ns: NDArray[np.int64]) -> FloatArray:
    """Nanoseconds as float64 seconds."""
    return ns.astype(np.float64) * 1e-9


def pose_matrix(position: Any, orientation: Any) -> FloatArray:
    """A 4x4 transform of the position (or translation) and orientation (or rotation) of a geometry_msgs message."""
    xyz, q = (position.x, position.y, position.z), (orientation.w, orientation.x, orientation.y, orientation.z)
    if not np.isfinite([*xyz, *q]).all() or np.linalg.norm(q) < 1e-6:
        raise ValueError("a pose holds NaN, Inf or a zero quaternion")
    return rigid(np.asarray(q) / np.linalg.norm(q), xyz)


@dataclass
class PoseTrack:
    """Poses T_parent_child over time; a static transform is a track of one pose."""

    parent: str
    child: str
    stamps: list[int] = field(default_factory=list)  # ns
    poses: list[FloatArray] = field(default_factory=list)

    def add(self, stamp: int, pose: FloatArray) -> None:
        """Append a pose; one that is not later than the last is ignored (repeated tf, a looping bag)."""
        if not self.stamps or stamp > self.stamps[-1]:
            self.stamps.append(stamp)
            self.poses.append(pose)

    def at(self, stamps: np.ndarray) -> FloatArray:
        """Poses (n, 4, 4) at stamps (n,) ns, by slerp and linear translation; held or continued beyond the ends."""
        start = self.stamps[0]
        path = CameraPath(seconds(np.asarray(self.stamps, np.int64) - start), np.stack(self.poses))
        return path.at(seconds(np.asarray(stamps, np.int64) - start))

    def covers(self, stamps: np.ndarray, slack_ns: int) -> np.ndarray:
        """Which stamps (n,) lie within the track, or at most slack_ns beyond its ends."""
        return (stamps >= self.stamps[0] - slack_ns) & (stamps <= self.stamps[-1] + slack_ns)


@dataclass
class Frames:
    """The transforms of a log: tf edges by child frame, and the track of the base that odometry or a Path tells."""

    static: dict[str, PoseTrack] = field(default_factory=dict)
    dynamic: dict[str, PoseTrack] = field(default_factory=dict)
    odometry: PoseTrack | None = None
    path: PoseTrack | None = None

    def camera_track(self, camera_frame: str) -> tuple[PoseTrack, FloatArray]:
        """The moving part of the camera's pose, T_world_base over time, and the fixed rest T_base_camera.

        Odometry goes before tf, tf before the first poses of Path messages. Raises LogError when there is none.
        """
        mounts = self._ancestors(camera_frame)
        top = next(reversed(mounts))
        track = self.odometry
        if track is None and top in self.dynamic:
            return self.dynamic[top], mounts[top]
        track = track or self.path
        if track is None:
            raise LogError("the log has no odometry, no tf of the camera and no Path: the camera's poses are unknown")
        base = track.child or top  # a Path does not say whose poses it holds
        track = replace(track, child=base)
        above_base = self._ancestors(base)
        common = next((frame for frame in above_base if frame in mounts), None)
        if common is not None:
            return track, rigid_inverse(above_base[common]) @ mounts[common]
        warnings.warn(
            f"no tf_static from {base} to {camera_frame or 'the camera'}: it is taken to look forward from there",
            stacklevel=2,
        )
        return track, FORWARD_OPTICAL

    def _ancestors(self, frame: str) -> dict[str, FloatArray]:
        """T_ancestor_frame of the frame itself and those it hangs on by static transforms, nearest first."""
        chain = {frame: np.eye(4)}
        while frame in self.static and self.static[frame].parent not in chain:  # a broken tree may be a circle
            pose = self.static[frame].poses[0] @ chain[frame]
            frame = self.static[frame].parent
            chain[frame] = pose
        return chain


def read_frames(log: LogReader, streams: Streams) -> Frames:
    """All transforms of a log, read in one pass over its small messages. Raises LogError on invalid poses."""
    chosen = (streams.odometry, streams.path, streams.tf, streams.tf_static)
    names = [topic.name for topic in chosen if topic is not None]
    moving: dict[str, PoseTrack] = {}
    frames = Frames(dynamic=moving)
    counts: dict[str, int] = defaultdict(int)
    for logged in log.messages(names):
        message = logged.message
        try:
            if streams.odometry and logged.topic == streams.odometry.name:
                parent, child = message.header.frame_id.strip("/"), message.child_frame_id.strip("/")
                frames.odometry = frames.odometry or PoseTrack(parent, child)
                stamp = stamp_ns(message.header) or logged.time_ns
                frames.odometry.add(stamp, pose_matrix(message.pose.pose.position, message.pose.pose.orientation))
            elif streams.path and logged.topic == streams.path.name:
                _add_plan(frames, message)
            else:
                tracks = frames.static if streams.tf_static and logged.topic == streams.tf_static.name else moving
                _add_transforms(tracks, message.transforms)
        except ValueError as error:
            counts[f"{logged.topic}: {error}"] += 1
    for what, count in counts.items():
        warnings.warn(f"{log.path}: {count} messages left out, {what}", stacklevel=2)
    return frames


def _add_plan(frames: Frames, path: Any) -> None:
    """The first pose of a plan is where the base is now."""
    if not path.poses:
        return
    first = path.poses[0]
    frames.path = frames.path or PoseTrack(path.header.frame_id.strip("/"), "")
    stamp = stamp_ns(first.header) or stamp_ns(path.header)
    frames.path.add(stamp, pose_matrix(first.pose.position, first.pose.orientation))


def _add_transforms(tracks: dict[str, PoseTrack], transforms: Iterable[Any]) -> None:
    for t in transforms:
        child, parent = t.child_frame_id.strip("/"), t.header.frame_id.strip("/")
        pose = pose_matrix(t.transform.translation, t.transform.rotation)
        tracks.setdefault(child, PoseTrack(parent, child)).add(stamp_ns(t.header), pose)
