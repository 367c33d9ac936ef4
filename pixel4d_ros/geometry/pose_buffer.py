# SPDX-License-Identifier: Apache-2.0
"""Poses of a moving frame over time, and a tree of frames. Stamps are integer nanoseconds. No ROS."""

from __future__ import annotations

from bisect import bisect_left
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.geometry.interpolation import poses_along
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse, rotation_vector

HISTORY_S = 10.0  # how long a live buffer keeps poses
MOST_POSES = 10_000  # that a live buffer keeps: a kilohertz of them
MOST_FRAMES = 10_000  # of a tree: names that are made up anew, again and again, would fill the memory
RESTART_S = 0.5  # a live source whose stamps go back by this much has restarted
# Between two poses, s, and times the usual step: over more, a moving frame's pose is not known.
GAP_S, GAP_STEPS = 1.0, 5.0
STANDING_M, STANDING_RAD = 0.05, 0.02  # over a gap: less is no motion
SAME_STATIC = 0.01  # of the elements of two static transforms that are one: 0.6 degrees, 1 cm
BASELINE_S = 0.05  # smallest interval of extrapolation and differences: shorter ones are mostly noise


class PoseBuffer:
    """Poses T_parent_child (4, 4) by stamp, in order of stamps. One thread adds, others may read."""

    def __init__(self, history_s: float | None = HISTORY_S, restart_s: float | None = None) -> None:
        """Poses history_s older than the newest, and more than MOST_POSES, are dropped; None keeps all, as a log needs.

        A pose restart_s or more before the newest one clears the buffer, as when a log is replayed; None: it is
        inserted by its stamp.
        """
        self._lock = Lock()
        self._history_s, self._restart_s = history_s, restart_s
        self._stamps: list[int] = []
        self._poses: list[FloatArray] = []

    def __len__(self) -> int:
        return len(self._stamps)

    def add(self, stamp_ns: int, pose: FloatArray) -> bool:
        """Insert a pose by its stamp; of two with the same stamp the first is kept. Returns whether it restarted."""
        with self._lock:
            newest = self._stamps[-1] if self._stamps else stamp_ns
            restarted = self._restart_s is not None and stamp_ns <= newest - round(self._restart_s * 1e9)
            if restarted:
                self._stamps.clear()
                self._poses.clear()
            place = bisect_left(self._stamps, stamp_ns)
            if place < len(self._stamps) and self._stamps[place] == stamp_ns:
                return restarted
            self._stamps.insert(place, stamp_ns)
            self._poses.insert(place, pose)
            if self._history_s is not None:
                old = bisect_left(self._stamps, self._stamps[-1] - round(self._history_s * 1e9))
                old = max(old, len(self._stamps) - MOST_POSES)
                del self._stamps[:old], self._poses[:old]
        return restarted

    @property
    def newest(self) -> tuple[int, FloatArray] | None:
        """Stamp and pose of the latest; None of an empty buffer."""
        with self._lock:
            return (self._stamps[-1], self._poses[-1]) if self._stamps else None

    @property
    def oldest(self) -> tuple[int, FloatArray] | None:
        """Stamp and pose of the earliest; None of an empty buffer."""
        with self._lock:
            return (self._stamps[0], self._poses[0]) if self._stamps else None

    def at(self, stamp_ns: int, tolerance_s: float) -> FloatArray | None:
        """The pose (4, 4) at a time: interpolated, or extrapolated by at most tolerance_s; None beyond that.

        None, too, between poses that are more than GAP_S and twice tolerance_s apart. A single pose has no velocity, so
        it is valid within BASELINE_S only.
        """
        times, poses = self._around(stamp_ns)
        tolerance_s = tolerance_s if len(times) > 1 else min(tolerance_s, BASELINE_S)
        if not times or not -tolerance_s <= times[-1] or not times[0] <= tolerance_s:
            return None
        if times[0] < 0 < times[-1] and times[-1] - times[0] > max(GAP_S, 2 * tolerance_s):
            return None
        return np.asarray(poses_along([(np.array(times), np.stack(poses))], np.zeros((1, 1)))[0, 0])

    def at_stamps(self, stamps: NDArray[np.int64]) -> FloatArray:
        """Poses (n, 4, 4) at stamps (n,): slerp and linear translation, constant twist beyond the ends.

        A buffer of one pose gives that pose at all times; an empty one raises ValueError.
        """
        with self._lock:
            own, poses = np.asarray(self._stamps, np.int64), list(self._poses)
        if not poses:
            raise ValueError("no poses are known")
        places = (np.asarray(stamps, np.int64) - own[0]) * 1e-9
        return np.asarray(poses_along([((own - own[0]) * 1e-9, np.stack(poses))], places[None])[0])

    def since(self, stamp_ns: int) -> tuple[FloatArray, FloatArray]:
        """Times (n,), s after the first, and poses (n, 4, 4) from a stamp on."""
        with self._lock:
            first = bisect_left(self._stamps, stamp_ns)
            stamps, poses = self._stamps[first:], self._poses[first:]
        seconds = np.array([(stamp - stamps[0]) * 1e-9 for stamp in stamps], np.float64)
        return seconds, np.array(poses, np.float64).reshape(-1, 4, 4)

    def covers(self, stamps: NDArray[np.int64], slack_ns: int) -> NDArray[np.bool_]:
        """Which stamps (n,) are at most slack_ns off a pose, or between two without a gap in which the frame moves."""
        with self._lock:
            own, poses = np.asarray(self._stamps, np.int64), np.array(self._poses, np.float64).reshape(-1, 4, 4)
        if not len(own):
            return np.zeros(len(stamps), bool)
        later = np.searchsorted(own, stamps)
        before, after = own[np.maximum(later - 1, 0)], own[np.minimum(later, len(own) - 1)]
        near: NDArray[np.bool_] = np.minimum(np.abs(stamps - before), np.abs(after - stamps)) <= slack_ns
        between = (later > 0) & (later < len(own))
        seconds, steps = np.diff(own) * 1e-9, rigid_inverse(poses[:-1]) @ poses[1:]
        gaps = seconds > max(GAP_S, GAP_STEPS * float(np.median(seconds))) if len(seconds) else np.zeros(0, bool)
        gaps &= (np.linalg.norm(steps[:, :3, 3], axis=1) > STANDING_M) | (
            np.linalg.norm(rotation_vector(steps[:, :3, :3]), axis=1) > STANDING_RAD
        )
        in_gap = np.append(gaps, False)[np.clip(later - 1, 0, len(gaps))]
        return np.asarray(near | (between & ~in_gap))

    def _around(self, stamp_ns: int) -> tuple[list[float], list[FloatArray]]:
        """The two poses for inter- or extrapolation; times are seconds relative to stamp_ns."""
        with self._lock:
            stamps, poses = list(self._stamps), list(self._poses)
        if not poses:
            return [], []
        later = bisect_left(stamps, stamp_ns)
        if later == len(stamps):  # after the newest
            older = [i for i in range(later - 1) if stamps[-1] - stamps[i] >= BASELINE_S * 1e9]
            chosen = [*older[-1:], later - 1]
        elif later == 0:  # at or before the oldest
            newer = [i for i in range(1, len(stamps)) if stamps[i] - stamps[0] >= BASELINE_S * 1e9]
            chosen = [0, *newer[:1]]
        else:
            chosen = [later - 1, later]
        return [(stamps[i] - stamp_ns) * 1e-9 for i in chosen], [poses[i] for i in chosen]


class TransformTree:
    """A transform tree: frames with their parents and poses; static transforms are valid at all times."""

    tolerance_s = 0.5

    def __init__(self, history_s: float | None = HISTORY_S, restart_s: float | None = None) -> None:
        self._history_s, self._restart_s = history_s, restart_s
        self._static: dict[str, tuple[str, FloatArray]] = {}
        self._moving: dict[str, tuple[str, PoseBuffer]] = {}

    def add_static(self, parent: str, child: str, pose: FloatArray) -> None:
        """Set a static T_parent_child."""
        self._static[child] = (parent, pose)

    def add(self, parent: str, child: str, stamp_ns: int, pose: FloatArray) -> bool:
        """Add a T_parent_child of a moving child, as PoseBuffer.add."""
        return self.moving(parent, child).add(stamp_ns, pose)

    def add_track(self, parent: str, child: str, poses: PoseBuffer) -> None:
        """Set all poses of a moving child."""
        self._moving[child] = (parent, poses)

    def moving(self, parent: str, child: str) -> PoseBuffer:
        """The poses of a moving child; a new parent clears them."""
        entry = self._moving.get(child)
        if entry is None or entry[0] != parent:
            entry = self._moving[child] = (parent, PoseBuffer(self._history_s, self._restart_s))
        return entry[1]

    def lookup(self, target: str, source: str, stamp_ns: int) -> FloatArray | None:
        """T_target_source (4, 4) at a time; None if the tree does not connect the two at that time."""
        return _between(self.chain(target, stamp_ns), self.chain(source, stamp_ns))

    def lookup_static(self, target: str, source: str) -> FloatArray | None:
        """T_target_source (4, 4) from static transforms only."""
        return _between(self.chain(target, None), self.chain(source, None))

    def chain(self, frame: str, stamp_ns: int | None) -> dict[str, FloatArray]:
        """T_ancestor_frame of the frame itself and of its ancestors known at a time (None: the static ones)."""
        chain, pose = {frame: np.eye(4)}, np.eye(4)
        while (step := self._step(frame, stamp_ns)) is not None and step[0] not in chain:  # a broken tree may loop
            frame, pose = step[0], step[1] @ pose
            chain[frame] = pose
        return chain

    def parent(self, child: str) -> str | None:
        """The parent of a frame; None where it has none."""
        known = self._static.get(child) or self._moving.get(child)
        return None if known is None else known[0]

    def static_conflict(self, parent: str, child: str, pose: FloatArray) -> str:
        """Says where a static transform differs from the one known for its child; else empty."""
        known = self._static.get(child)
        if known is None or (known[0] == parent and np.allclose(known[1], pose, atol=SAME_STATIC)):
            return ""
        off = "another parent" if known[0] != parent else "another pose"
        return f"{child!r} has {off} in an earlier static transform (from {known[0]!r}): only one can be right"

    def is_static(self, child: str) -> bool:
        """Whether a static transform gives the frame's pose."""
        return child in self._static

    def check_new(self, parent: str, child: str) -> None:
        """Raise ValueError if the child is the parent or one of its ancestors, or a frame more than MOST_FRAMES."""
        before = self.parent(child)
        if before == parent:
            return
        if before is None and len(self._static) + len(self._moving) >= MOST_FRAMES:
            raise ValueError(f"tf has {MOST_FRAMES} frames already: does a publisher make up names?")
        path: dict[str, None] = {}
        frame: str | None = parent
        while frame is not None and frame not in path:
            path[frame] = None
            frame = self.parent(frame)
        if child in path:
            way = list(path)
            loop = " -> ".join([*way[way.index(child) :: -1], child])
            raise ValueError(f"it closes a loop ({loop}); each frame has one parent, which others lead to")

    def has_frame(self, frame: str) -> bool:
        """Whether any transform names the frame."""
        edges = [*self._static.items(), *self._moving.items()]
        return any(frame in (child, parent) for child, (parent, _) in edges)

    def clear(self) -> None:
        """Drop all but static transforms."""
        self._moving.clear()

    def _step(self, frame: str, stamp_ns: int | None) -> tuple[str, FloatArray] | None:
        """Parent of a frame and T_parent_frame; None if it has none at that time."""
        if frame in self._static:
            return self._static[frame]
        if stamp_ns is None or frame not in self._moving:
            return None
        parent, buffer = self._moving[frame]
        pose = buffer.at(stamp_ns, self.tolerance_s)
        return None if pose is None else (parent, pose)


def _between(target: dict[str, FloatArray], source: dict[str, FloatArray]) -> FloatArray | None:
    """T_target_source of two chains that meet in a common ancestor."""
    common = next((frame for frame in target if frame in source), None)
    return None if common is None else rigid_inverse(target[common]) @ source[common]
