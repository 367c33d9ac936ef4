# SPDX-License-Identifier: Apache-2.0
"""The camera's poses in a log: from odometry, tf or a Path, transformed to the optical frame."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pixel4d_ros.geometry.optical import FORWARD_OPTICAL, OVERTURNED, optical_mounting
from pixel4d_ros.geometry.pose_buffer import TransformTree
from pixel4d_ros.geometry.rotations import FloatArray, rigid_from_xyzw
from pixel4d_ros.logs.pose_track import PoseTrack, TimedPose, pose_track
from pixel4d_ros.logs.reader import LogError, LogReader, Topic
from pixel4d_ros.logs.streams import Streams


def stamp_ns(header: Any) -> int:
    """The stamp of a std_msgs/Header in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def pose_matrix(position: Any, orientation: Any) -> FloatArray:
    """A 4x4 transform of the position (or translation) and orientation (or rotation) of a geometry_msgs message."""
    q = (orientation.x, orientation.y, orientation.z, orientation.w)
    return rigid_from_xyzw(q, (position.x, position.y, position.z))


WORLD_FRAMES = ("odom", "map", "world", "earth")


@dataclass
class Frames:
    """The transforms of a log, and the track of the base from odometry or a Path."""

    tree: TransformTree = field(default_factory=lambda: TransformTree(history_s=None))
    standing: dict[str, PoseTrack] = field(default_factory=dict)  # edges of /tf that never change, by child frame
    moving: dict[str, PoseTrack] = field(default_factory=dict)  # the other edges of /tf, by child frame
    odometry: PoseTrack | None = None
    path: PoseTrack | None = None

    def camera_track(self, camera_frame: str) -> tuple[PoseTrack, FloatArray]:
        """The moving part of the camera's pose, T_world_base over time, and the fixed rest T_base_camera.

        Odometry is preferred to tf, tf to the first poses of Path messages. A constant edge of /tf is part of the
        mounting, like those of /tf_static. A body frame in place of the optical one is corrected with a warning, see
        optical_mounting. Raises LogError if there is none.
        """
        track, mounting = self._track_and_mounting(camera_frame)
        if track.overturned:
            raise LogError(f"poses of {track.child or 'the vehicle'!r} in {track.parent!r}: {OVERTURNED}")
        mounting, warning = optical_mounting(mounting, track.child, camera_frame)
        if warning:
            warnings.warn(warning, stacklevel=2)
        return track, mounting

    def _track_and_mounting(self, camera_frame: str) -> tuple[PoseTrack, FloatArray]:
        mounts = self.tree.chain(camera_frame, None)
        top = next(reversed(mounts))
        track = self.odometry
        if track is None and top in self.moving:
            return self.moving[top], mounts[top]
        track = track or self.path
        if track is None:
            at_rest = next((frame for frame in reversed(mounts) if frame in self.standing), None)
            if at_rest is None:
                raise LogError(
                    "the log has no odometry, no tf of the camera and no Path: the camera's poses are unknown"
                )
            return self.standing[at_rest], mounts[at_rest]
        base = track.child or self._base(mounts)  # a Path does not name the frame whose poses it holds
        track = replace(track, child=base)
        mounting = self.tree.lookup_static(base, camera_frame)
        if mounting is not None:
            return track, mounting
        warnings.warn(
            f"no tf_static from {base} to {camera_frame or 'the camera'}: it is assumed to look forward from there",
            stacklevel=2,
        )
        return track, FORWARD_OPTICAL

    def _base(self, mounts: dict[str, FloatArray]) -> str:
        """The highest frame that the camera is fixed to, below those that stand still in the world."""
        known = [frame for frame in mounts if frame not in WORLD_FRAMES]
        return known[-1] if known else next(reversed(mounts))


def read_frames(log: LogReader, streams: Streams, first_s: float | None = None) -> Frames:
    """All transforms of a log, in one pass over its small messages; invalid poses are skipped with a warning.

    first_s: only those of so many seconds of the log, and without its Path messages if it has odometry.
    """
    path = None if first_s is not None and streams.odometry else streams.path
    names = [topic.name for topic in (streams.odometry, path, streams.tf, streams.tf_static) if topic is not None]
    end_ns = log.end_ns if first_s is None else log.start_ns + int(first_s * 1e9)
    found: dict[tuple[str, str, str], list[TimedPose]] = defaultdict(list)  # by topic, parent and child
    errors: dict[str, list[str]] = defaultdict(list)  # by topic
    speeds: list[float] = []  # of odometry's twists, m/s
    for logged in log.messages(names):
        if logged.time_ns > end_ns:
            break
        try:
            for parent, child, stamp, pose in _poses_in(logged.message):
                found[logged.topic, parent, child].append((stamp, logged.time_ns, pose))
        except ValueError as error:
            errors[logged.topic].append(str(error))
        if hasattr(logged.message, "twist"):
            v = logged.message.twist.twist.linear
            speeds.append(float(np.linalg.norm((v.x, v.y, v.z))))
    for topic, found_errors in errors.items():
        warnings.warn(f"{log.path}: {len(found_errors)} messages left out, {topic}: {found_errors[0]}", stacklevel=2)
    frames = Frames()
    _warn_of_two_parents(log, found)
    _add_transforms(frames, log, streams, found)
    frames.odometry = _main_track(log, streams.odometry, found, speeds)
    frames.path = _main_track(log, streams.path, found)
    return frames


def _add_transforms(
    frames: Frames, log: LogReader, streams: Streams, found: Mapping[tuple[str, str, str], list[TimedPose]]
) -> None:
    """Add the edges of /tf and /tf_static; a warning says which contradict each other."""
    for (topic, parent, child), poses in found.items():
        if topic not in {tf.name for tf in (streams.tf, streams.tf_static) if tf is not None}:
            continue
        try:
            frames.tree.check_new(parent, child)
        except ValueError as error:
            warnings.warn(f"{log.path}: {topic}: {parent} -> {child} is ignored: {error}", stacklevel=2)
            continue
        if streams.tf_static and topic == streams.tf_static.name:
            for _, _, pose in poses:
                if conflict := frames.tree.static_conflict(parent, child, pose):
                    warnings.warn(f"{log.path}: {topic}: {conflict}; the last is used", stacklevel=2)
                frames.tree.add_static(parent, child, pose)
        else:
            _add_edge(frames, f"{log.path}: {topic}", parent, child, poses)
    for child in filter(frames.tree.is_static, frames.moving):
        warnings.warn(
            f"{log.path}: {child!r} moves by tf, but tf_static gives it a fixed pose, which is used: is a static"
            " transform left over?",
            stacklevel=2,
        )


def _main_track(
    log: LogReader,
    topic: Topic | None,
    found: Mapping[tuple[str, str, str], list[TimedPose]],
    speeds: Sequence[float] = (),
) -> PoseTrack | None:
    """The poses of a topic of odometry or plans; of several frames those of the most messages, with a warning."""
    tracks = {key: poses for key, poses in found.items() if topic is not None and key[0] == topic.name}
    if not tracks:
        return None
    (name, parent, child), poses = max(tracks.items(), key=lambda track: len(track[1]))
    if len(tracks) > 1:
        said = ", ".join(f"{c or 'a vehicle'} in {p!r}" for _, p, c in tracks)
        warnings.warn(
            f"{log.path}: {name} holds poses of several frames ({said}); those of {child or 'the vehicle'} in"
            f" {parent!r} are used: do two publishers share the topic?",
            stacklevel=3,
        )
    return pose_track(f"{log.path}: {name}", parent, child, poses, speeds)


def _warn_of_two_parents(log: LogReader, found: Mapping[tuple[str, str, str], object]) -> None:
    """A frame has one parent (REP 105); where two programs publish others, the last one found counts."""
    parents: dict[tuple[str, str], set[str]] = defaultdict(set)
    for topic, parent, child in found:
        if topic.rpartition("/")[2].startswith("tf"):
            parents[topic, child].add(parent)
    for (topic, child), names in parents.items():
        if len(names) > 1:
            said = " and ".join(map(repr, sorted(names)))
            warnings.warn(
                f"{log.path}: {topic} gives {child!r} the parents {said}; only one can be right", stacklevel=2
            )


def _poses_in(message: Any) -> Iterator[tuple[str, str, int, FloatArray]]:
    """Parent, child, stamp (ns) and pose of each transform in a TFMessage, Odometry or Path. Raises ValueError."""
    if hasattr(message, "transforms"):
        for t in message.transforms:
            pose = pose_matrix(t.transform.translation, t.transform.rotation)
            yield t.header.frame_id.strip("/"), t.child_frame_id.strip("/"), stamp_ns(t.header), pose
    elif hasattr(message, "poses"):
        for first in message.poses[:1]:  # the first pose of a plan is the current pose of the base
            stamp = stamp_ns(first.header) or stamp_ns(message.header)
            pose = pose_matrix(first.pose.position, first.pose.orientation)
            yield message.header.frame_id.strip("/"), "", stamp, pose
    else:
        pose = pose_matrix(message.pose.pose.position, message.pose.pose.orientation)
        yield message.header.frame_id.strip("/"), message.child_frame_id.strip("/"), stamp_ns(message.header), pose


def _add_edge(frames: Frames, name: str, parent: str, child: str, poses: list[TimedPose]) -> None:
    """Add an edge of /tf; a constant one counts as a mounting."""
    track = pose_track(name, parent, child, poses)
    if all(np.allclose(pose, poses[0][2], atol=1e-6) for _, _, pose in poses):
        frames.standing[child] = track
        if frames.tree.lookup_static(parent, child) is None:
            frames.tree.add_static(parent, child, poses[0][2])
        return
    frames.tree.add_track(parent, child, track.poses)
    frames.moving[child] = track
