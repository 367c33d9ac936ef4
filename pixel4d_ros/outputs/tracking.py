# SPDX-License-Identifier: Apache-2.0
"""Objects through time: persistent ids, and velocities smoothed over several images.

A textbook tracker in a fixed frame (odometry's): one Kalman filter per object with constant velocity and white-noise
acceleration, gating by position (Mahalanobis distance) and appearance (colour, size, class), Hungarian assignment
(scipy.optimize.linear_sum_assignment), births from what is left, deaths by the probability of existence. What is left
on a known object is a part of it, as one image often shows an object as two.
Y. Bar-Shalom, X. R. Li, T. Kirubarajan, Estimation with Applications to Tracking and Navigation, 2001, section 6.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from pixel4d_ros.geometry.rotations import FloatArray

STATE = 6  # position and velocity
BESIDE = 0.2  # of a box's length: what is so near to an object may be a piece of it, as of a lorry in parts
PIECE = 0.5  # of an object's volume: what is smaller and appears with it, on it, is a piece of it
PROBABLE = 0.5  # probability of existence from which on an object may have parts


@dataclass(frozen=True)
class Detection:
    """One object of one image, in the fixed frame (z up)."""

    scene_id: int  # of the object in the image's scene, 1..M
    center: FloatArray  # (3,) metres
    size: FloatArray  # (3,) length, width, height in metres
    yaw: float  # rad: the direction of the length about z
    center_covariance: FloatArray  # (3, 3) m^2
    velocity: FloatArray | None = None  # (3,) m/s over ground; None: not measured
    velocity_covariance: FloatArray = field(default_factory=lambda: np.eye(3))  # (3, 3) (m/s)^2
    color: FloatArray | None = None  # (3,) mean RGB, 0..1
    label: str = ""  # class; empty: unknown
    confidence: float = 0.7  # probability that there is such an object
    moving: float = 0.5  # probability that it moves


@dataclass(frozen=True)
class TrackedObject:
    """An object at the time of the last update, in the fixed frame (z up)."""

    id: int  # 1.., never given twice by one tracker
    scene_id: int  # of the detection of this update; 0: not detected in this image, the state is predicted
    label: str  # class; empty: unknown
    center: FloatArray  # (3,) metres
    size: FloatArray  # (3,) length, width, height in metres
    yaw: float  # rad
    velocity: FloatArray  # (3,) m/s
    covariance: FloatArray  # (6, 6) of x y z (m) and vx vy vz (m/s)
    existence: float  # probability that the object exists
    moving: float  # probability that it moves
    first_seen: float  # s, stamp of the first detection
    last_seen: float  # s, stamp of the last detection
    color: FloatArray | None = None  # (3,) mean RGB, 0..1
    parts: tuple[int, ...] = ()  # scene ids of this update's other detections on it: pieces of it, or its shadow


@dataclass(frozen=True)
class TrackerSettings:
    """Noise, gates and lifetimes. The defaults are for road traffic at 5 to 30 images per second."""

    acceleration: tuple[float, float, float] = (2.5, 2.5, 0.5)  # m/s^2, standard deviation of the process noise
    birth_speed: tuple[float, float, float] = (
        8.0,
        8.0,
        0.5,
    )  # m/s, standard deviation of an unmeasured velocity
    gate: float = 0.999  # share of right pairs that the position gate lets through
    color_deviation: float = 0.12  # of the mean colour between two images of one object
    size_deviation: float = 0.4  # of the logarithm of a size between two images of one object
    max_appearance: float = 12.0  # negative log likelihood of colour and size beyond which a pair is excluded
    detection_rate: float = 0.7  # probability that an existing object is detected in an image
    false_rate: float = 0.15  # likelihood of a false detection in the gate of an object
    min_existence: float = 0.05  # an object less likely than this is dropped
    coast: float = 1.0  # s without a detection after which an object is dropped
    max_gap: float = 2.0  # s between updates beyond which everything is forgotten
    state_change: float = 0.2  # 1/s, rate at which objects start and stop moving
    evidence: float = 0.5  # weight of one image's moving probability: those of successive images are correlated


class Tracker:
    """Keeps objects over images. Not thread-safe: one thread updates it."""

    def __init__(self, settings: TrackerSettings | None = None) -> None:
        self.settings = settings or TrackerSettings()
        self._objects: list[TrackedObject] = []
        self._stamp: float | None = None
        self._next_id = 1

    @property
    def objects(self) -> list[TrackedObject]:
        """The objects as of the last update, oldest first."""
        return list(self._objects)

    def clear(self) -> None:
        """Forget all objects, as after a jump of time. Ids are not given again."""
        self._objects, self._stamp = [], None

    def update(self, stamp: float, detections: Sequence[Detection]) -> list[TrackedObject]:
        """Take the detections of an image at stamp (s) and return all objects at that time, oldest first.

        A stamp before the last one or more than max_gap after it clears the tracker first. At the last stamp again, the
        detections are of the same image: objects take their scene ids from these, and nothing else changes.
        """
        if stamp == self._stamp:
            return self._relabeled(detections, stamp)
        if self._stamp is not None and not 0 <= stamp - self._stamp <= self.settings.max_gap:
            self.clear()
        seconds = 0.0 if self._stamp is None else stamp - self._stamp
        self._stamp = stamp
        predicted = [predict(o, seconds, self.settings) for o in self._objects]
        pairs = assign(predicted, detections, self.settings)
        by_object = dict(pairs)
        objects = []
        for i, o in enumerate(predicted):
            if i in by_object:
                objects.append(_detected(o, detections[by_object[i]], stamp, self.settings))
            else:
                objects.append(_missed(o, self.settings))
        self._objects = [o for o in self._with_rest(objects, detections, pairs, stamp) if self._lives(o, stamp)]
        return self.objects

    def _with_rest(
        self,
        objects: Sequence[TrackedObject],
        detections: Sequence[Detection],
        pairs: Sequence[tuple[int, int]],
        stamp: float,
    ) -> list[TrackedObject]:
        """The objects and what the detections that have no object come to: parts of the known ones, or new ones."""
        known = [replace(o, parts=()) for o in objects]
        paired = {j for _, j in pairs}
        rest = [d for j, d in enumerate(detections) if j not in paired]
        for d in sorted(rest, key=lambda d: -float(np.prod(d.size))):  # the largest piece stands for a new object
            around = [i for i, o in enumerate(known) if _may_be_part(o, d, is_new=i >= len(objects))]
            if around:
                i = min(around, key=lambda i: float(np.linalg.norm(known[i].center - d.center)))
                known[i] = replace(known[i], parts=(*known[i].parts, d.scene_id))
            else:
                known.append(self._born(d, stamp))
        return known

    def _relabeled(self, detections: Sequence[Detection], stamp: float) -> list[TrackedObject]:
        """The objects with the scene ids of another prediction from the same image, and those that it alone shows."""
        pairs = dict(assign(self._objects, detections, self.settings))
        known = [
            replace(o, scene_id=detections[pairs[i]].scene_id if i in pairs else 0) for i, o in enumerate(self._objects)
        ]
        self._objects = self._with_rest(known, detections, list(pairs.items()), stamp)
        return self.objects

    def _lives(self, o: TrackedObject, stamp: float) -> bool:
        return o.existence >= self.settings.min_existence and stamp - o.last_seen <= self.settings.coast

    def _born(self, d: Detection, stamp: float) -> TrackedObject:
        covariance = np.zeros((STATE, STATE))
        covariance[:3, :3] = d.center_covariance
        speed = np.diag(np.square(self.settings.birth_speed))
        covariance[3:, 3:] = speed if d.velocity is None else d.velocity_covariance
        velocity = np.zeros(3) if d.velocity is None else np.asarray(d.velocity, np.float64)
        number = self._next_id
        self._next_id += 1
        return TrackedObject(
            number, d.scene_id, d.label, np.asarray(d.center, np.float64), np.asarray(d.size, np.float64),
            wrap(d.yaw), velocity, covariance, d.confidence, d.moving, stamp, stamp, d.color,
        )  # fmt: skip


def predict(o: TrackedObject, seconds: float, s: TrackerSettings) -> TrackedObject:
    """The object some seconds later at constant velocity, not detected there."""
    F = np.eye(STATE)
    F[:3, 3:] = seconds * np.eye(3)
    a = np.diag(np.square(s.acceleration))
    # Piecewise constant white acceleration (Bar-Shalom, 6.3.2).
    Q = np.block([[seconds**4 / 4 * a, seconds**3 / 2 * a], [seconds**3 / 2 * a, seconds**2 * a]])
    keep = np.exp(-2 * s.state_change * seconds)
    return replace(
        o,
        scene_id=0,
        parts=(),
        center=o.center + seconds * o.velocity,
        covariance=F @ o.covariance @ F.T + Q,
        moving=0.5 + (o.moving - 0.5) * keep,
    )


def assign(
    objects: Sequence[TrackedObject], detections: Sequence[Detection], s: TrackerSettings
) -> list[tuple[int, int]]:
    """Pairs (object, detection) of the least total cost, the negative log likelihood, among those within the gates."""
    if not objects or not detections:
        return []
    from scipy.optimize import linear_sum_assignment  # takes 0.2 s, and the first forecast has nothing to assign

    cost = np.array([[pair_cost(o, d, s) for d in detections] for o in objects])
    allowed = np.isfinite(cost)
    # An excluded pair costs more than all allowed ones together, so as many as possible are made.
    excluded = 1 + 2 * np.abs(cost[allowed]).sum() if allowed.any() else 1.0
    rows, columns = linear_sum_assignment(np.where(allowed, cost, excluded))
    return [(int(i), int(j)) for i, j in zip(rows, columns) if allowed[i, j]]


def pair_cost(o: TrackedObject, d: Detection, s: TrackerSettings) -> float:
    """Negative log likelihood, up to a constant, that the detection is of the predicted object; inf beyond a gate."""
    if o.label and d.label and o.label != d.label:
        return np.inf
    S = o.covariance[:3, :3] + d.center_covariance
    offset = d.center - o.center
    distance = float(offset @ np.linalg.solve(S, offset))
    if distance > _largest_distance(s.gate):
        return np.inf
    ratios = np.log(np.maximum(d.size, 0.05) / np.maximum(o.size, 0.05))
    appearance = 0.5 * float((ratios**2).sum()) / s.size_deviation**2
    if o.color is not None and d.color is not None:
        appearance += 0.5 * float(np.square(d.color - o.color).sum()) / s.color_deviation**2
    if appearance > s.max_appearance:
        return np.inf
    return 0.5 * distance + 0.5 * float(np.linalg.slogdet(S)[1]) + appearance


@lru_cache(maxsize=8)
def _largest_distance(share: float) -> float:
    """The squared Mahalanobis distance within which this share of three normal numbers lies."""
    from scipy.special import chdtri

    return float(chdtri(3, 1 - share))


def _may_be_part(o: TrackedObject, d: Detection, is_new: bool) -> bool:
    """Whether a detection without an object is a part of this one; of one that is new as well, a small part."""
    is_small = float(np.prod(d.size)) < PIECE * float(np.prod(o.size))
    return o.existence >= PROBABLE and (is_small or not is_new) and overlap(o, d)


def overlap(o: TrackedObject, d: Detection) -> bool:
    """Whether, from above, the middle of one is in the box of the other, or beside it by less than BESIDE."""
    return _covers(o.center, o.size, o.yaw, d.center) or _covers(d.center, d.size, d.yaw, o.center)


def _covers(center: FloatArray, size: FloatArray, yaw: float, point: FloatArray) -> bool:
    x, y = (point - center)[:2]
    along, across = np.cos(yaw) * x + np.sin(yaw) * y, np.cos(yaw) * y - np.sin(yaw) * x
    margin = BESIDE * size[0]
    return bool(abs(along) <= size[0] / 2 + margin and abs(across) <= size[1] / 2 + margin)


def _detected(o: TrackedObject, d: Detection, stamp: float, s: TrackerSettings) -> TrackedObject:
    """The predicted object after a Kalman update with a detection."""
    rows = STATE if d.velocity is not None else 3
    H, R = np.eye(STATE)[:rows], np.zeros((rows, rows))
    R[:3, :3] = d.center_covariance
    measured = np.asarray(d.center, np.float64)
    if d.velocity is not None:
        R[3:, 3:] = d.velocity_covariance
        measured = np.concatenate((measured, d.velocity))
    state = np.concatenate((o.center, o.velocity))
    gain = np.linalg.solve(H @ o.covariance @ H.T + R, H @ o.covariance).T
    state = state + gain @ (measured - H @ state)
    rest = np.eye(STATE) - gain @ H
    covariance = rest @ o.covariance @ rest.T + gain @ R @ gain.T  # Joseph's form stays positive
    share = 0.3  # of the new image in size, colour and heading
    turn = wrap(d.yaw - o.yaw)
    if abs(turn) > np.pi / 2 and np.linalg.norm(state[3:5]) < 1.0:
        turn = wrap(turn + np.pi)  # which end of a standing box is its front is not known
    color = d.color if o.color is None or d.color is None else (1 - share) * o.color + share * d.color
    likely = s.detection_rate * o.existence
    return replace(
        o,
        scene_id=d.scene_id,
        label=d.label or o.label,
        center=state[:3],
        size=(1 - share) * o.size + share * np.asarray(d.size),
        yaw=wrap(o.yaw + share * turn),
        velocity=state[3:],
        covariance=(covariance + covariance.T) / 2,
        existence=min(0.999, likely / (likely + s.false_rate * (1 - o.existence))),
        moving=combine(o.moving, d.moving, s.evidence),
        last_seen=stamp,
        color=color,
    )


def _missed(o: TrackedObject, s: TrackerSettings) -> TrackedObject:
    """The predicted object, less likely for not being detected."""
    unseen = (1 - s.detection_rate) * o.existence
    return replace(o, existence=unseen / (unseen + 1 - o.existence))


def combine(prior: float, observed: float, weight: float) -> float:
    """Bayes' rule for two probabilities of one fact, the second's log odds times weight."""
    odds = _log_odds(prior) + weight * _log_odds(observed)
    return float(1 / (1 + np.exp(-np.clip(odds, -7, 7))))


def _log_odds(p: float) -> float:
    p = min(max(p, 1e-3), 1 - 1e-3)
    return float(np.log(p / (1 - p)))


def wrap(angle: float) -> float:
    """The angle in -pi..pi."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)
