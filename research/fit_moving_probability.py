# SPDX-License-Identifier: Apache-2.0
"""Fit the probability that an object moves (two_view/moving_probability.py) on labelled logs and synthetic streets.

Prints the parameters, and of a cross-validation the Brier score and a reliability table: for candidates and predicted
objects, and for instances. Instances are the network's, whose decoder of instances must be trained. Of logs with
incomplete boxes only what moves is used; in clips without boxes that have a second camera, what stands and moves is
measured by it; in other logs without boxes nothing may move.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.box_labels import labelled
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.open import open_clips
from pixel4d_ros.evaluation import synthetic_worlds
from pixel4d_ros.evaluation.calibration import Event, brier_score, reliability
from pixel4d_ros.evaluation.motion_metrics import moving_ids
from pixel4d_ros.evaluation.windows import cut, reference_view
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.scene import DynamicGaussians
from pixel4d_ros.training.motion_labels import label_motion
from pixel4d_ros.training.stereo_depth import stereo_depth
from pixel4d_ros.two_view.flow import Mask, flow_size
from pixel4d_ros.two_view.instance_motion import judged_instances
from pixel4d_ros.two_view.moving_patches import candidates
from pixel4d_ros.two_view.moving_probability import LIKELY
from pixel4d_ros.two_view.object_motion import SeenMaps
from pixel4d_ros.two_view.predicted_motion import corrected_velocity
from pixel4d_ros.two_view.reference_view import ReferenceView
from pixel4d_ros.two_view.rigid_flow import Map
from pixel4d_ros.two_view.two_images import FARTHEST, TwoImages

MOVES, STANDS = 0.5, 0.15  # shares of moving pixels from which on an object moves, and below which it stands
PRIOR = 0.3  # precision of the Gaussian prior of the parameters, of features of unit variance
DISTURBANCES = 2  # of each image's depth: the network has seen most logs with labels, and knows their depth too well
ROUGH, FIELD, SCALE = 25.0, 0.25, 0.15  # pixels; standard deviations of log depth, of a smooth field and of its mean
MILD = 0.5  # of that, on instances, whose distance is known better
BLUR = 4.0  # pixels, of every other disturbed depth: objects that the network has not seen are blurs
BLOCK = 40  # images of a log that cross-validation leaves out at once
STREET_GROUPS = 3
LEAST_KNOWN = 0.2  # share of an object of which it must be known whether it moves
UNSEEN = -4.0  # log ratio below which the flow cannot show that an instance moves: such movers are left out
KINDS = CANDIDATE, PREDICTED, INSTANCE = "candidates", "predicted objects", "instances"


@dataclass(frozen=True)
class Example:
    """One candidate, predicted object or instance."""

    features: FloatArray  # (7,) 1, those of the evidence, and whether the network found it; of an instance (8,)
    kind: str  # one of KINDS
    moves: bool
    group: str  # what cross-validation leaves out at once
    weight: float


@dataclass(frozen=True)
class Truth:
    """What moves in an image."""

    moving: Mask  # (H, W)
    known: Mask  # (H, W): where that is known

    def resized(self, width: int, height: int) -> Truth:
        """The same for width x height pixels."""

        def nearest(mask: Mask) -> Mask:
            return np.asarray(cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0)

        return Truth(nearest(self.moving), nearest(self.known))


def disturbed(depth: Map, rng: np.random.Generator, amount: float = 1.0) -> Map:
    """Depth (h, w) with the errors that it has in places that the network was not trained on, times an amount."""
    field = cv2.GaussianBlur(rng.normal(size=depth.shape).astype(np.float32), (0, 0), ROUGH)
    field *= amount * FIELD / field.std()
    inverse = 1 / np.maximum(depth, np.float32(0.1))
    if rng.random() < 0.5 * amount:
        inverse = cv2.GaussianBlur(inverse, (0, 0), BLUR)
    return np.asarray(
        np.where(depth > 0.8 * FARTHEST, FARTHEST, np.exp(field + amount * SCALE * rng.normal()) / inverse), np.float32
    )


@dataclass(frozen=True)
class SourceImage:
    """A window's source image beside its reference image, and what is true there."""

    pair: TwoImages
    scene: DynamicGaussians
    seen: SeenMaps
    truth: Truth  # h x w
    complete: bool  # whether everything that moves is known
    group: str

    def example(self, mask: Mask, features: FloatArray, kind: str) -> Iterator[Example]:
        """The example of a mask (h, w), if it is known whether it moves."""
        known = mask & self.truth.known
        if known.sum() < LEAST_KNOWN * mask.sum():
            return
        share = float(self.truth.moving[known].mean())
        if share > MOVES or (share < STANDS and self.complete):
            weight = 1.0 if kind == PREDICTED else 1 / (1 + DISTURBANCES)
            yield Example(np.append(1.0, features), kind, share > MOVES, self.group, weight)


def examples(
    forecaster: Forecaster, window: Clip, reference: ReferenceView, truth: Truth, group: str
) -> Iterator[Example]:
    """The candidates, instances and predicted objects of a window's source image."""
    image = np.asarray(window.images[0])
    step = window.poses[1][:3, 3] - window.poses[0][:3, 3]
    speed = float(np.linalg.norm(step) / (window.times[1] - window.times[0]))
    source_camera = Camera(window.K, image.shape[1], image.shape[0])
    scene = forecaster.predictor.predict(torch.from_numpy(image), source_camera, 1, 0, speed=speed)  # no lead vehicles
    camera = source_camera.resized(*flow_size(image.shape[1], image.shape[0]))
    seen = SeenMaps.of(scene, scene.pixels(camera), camera)
    depth = seen.depth
    views = reference.views
    flow, *longer = forecaster.measured_flow(image, views)
    source = SourceImage(
        TwoImages.of(flow, reference, camera, depth),
        scene,
        seen,
        truth.resized(camera.width, camera.height),
        window.boxes_complete,
        group,
    )
    rng = np.random.default_rng(int(1000 * window.times[0]) % 2**32)
    disturbances = (TwoImages.of(flow, reference, camera, disturbed(depth, rng)) for _ in range(DISTURBANCES))
    for pair in (source.pair, *disturbances):
        yield from of_candidates(source, pair)
    beside = [source.pair]
    if reference.older is not None and reference.older.is_near:  # by it instances are judged, too
        older = reference.older
        beside.append(TwoImages.of(longer[0], older, camera, depth))
    for pair in beside:
        others = (replace(pair, depth=disturbed(depth, rng, MILD)) for _ in range(DISTURBANCES))
        for one in (pair, *others):
            yield from of_instances(source, one)
    yield from of_predicted(source)


def of_candidates(source: SourceImage, pair: TwoImages) -> Iterator[Example]:
    """Moving patches outside the instances, also where the network predicts motion: instances are judged apart."""
    for patch, _, evidence in candidates(pair, source.seen.instance_ids):
        yield from source.example(patch, np.append(evidence, False), CANDIDATE)


def of_instances(source: SourceImage, pair: TwoImages) -> Iterator[Example]:
    """Vehicles and people, but those that move without showing it."""
    for instance in judged_instances(pair, source.seen.instance_ids):
        if instance.features is not None:
            for example in source.example(instance.pixels, instance.features, INSTANCE):
                if instance.features[0] > UNSEEN or not example.moves:
                    yield example


def of_predicted(source: SourceImage) -> Iterator[Example]:
    """Objects that the network predicts to move."""
    pair, ids = source.pair, source.seen.object_ids
    for k in sorted(moving_ids(source.scene) & set(np.unique(ids).tolist())):
        mask = ids == k
        is_seen, _, evidence = corrected_velocity(pair.images, mask, source.seen.velocities[k])
        if is_seen:
            yield from source.example(mask, np.append(evidence, True), PREDICTED)


def of_log(forecaster: Forecaster, path: Path, images: int) -> Iterator[Example]:
    """Examples of some images of a log, evenly spread."""
    clip = labelled(next(iter(open_clips(path))), path)
    measured = _measured(clip) if clip.boxes is None and clip.stereo is not None else None
    for t in range(2, len(clip) - 2, max(1, len(clip) // images)):
        window = cut(clip, np.array([t, t + 1]))
        reference, moving = reference_view(clip, window), window.moving_mask(0)
        if reference is not None:
            all_pixels = np.ones(window.images.shape[1:3], bool)
            truth = Truth(~all_pixels if moving is None else moving, all_pixels)
            if measured is not None:
                truth = Truth(measured[t] > 0, measured[t] >= 0)
            yield from examples(forecaster, window, reference, truth, f"{path.stem} {t // BLOCK}")


def _measured(clip: Clip) -> NDArray[np.int8]:
    """What moves (1..) and stands (0) in a clip with a second camera, whose depth tells it; -1 unknown: (T, h, w)."""
    clip = clip.in_memory()
    depth = stereo_depth(clip)
    assert depth is not None
    return label_motion(replace(clip, depth=depth.astype(np.float32))).ids


def of_street(forecaster: Forecaster, seed: int) -> Iterator[Example]:
    """Examples of a synthetic street."""
    size = (416, 128)
    clip = synthetic_worlds.make_clip(seed, "street", 2, 0.1, size)
    moving = clip.moving_mask(0)
    assert moving is not None
    reference = synthetic_worlds.reference_view(seed, "street", size)
    truth = Truth(moving, np.ones_like(moving))
    yield from examples(forecaster, clip, reference, truth, f"streets {seed % STREET_GROUPS}")


def fit(found: list[Example]) -> FloatArray:
    """Parameters (k,) of Example.features: the most likely logistic model, by Newton's method with a Gaussian prior."""
    X, y, weight = (np.array(x, float) for x in zip(*((e.features, e.moves, e.weight) for e in found)))
    spread = np.append(1.0, X[:, 1:].std(0) + 1e-6)
    Z, w = X / spread, np.zeros(X.shape[1])
    prior = np.diag([1e-2] + [PRIOR] * (len(w) - 1))
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(Z @ w, -30, 30)))
        curvature = (Z * (weight * p * (1 - p))[:, None]).T @ Z + prior
        w = w + np.linalg.solve(curvature, Z.T @ (weight * (y - p)) - prior @ w)
    return np.asarray(w / spread)


def cross_validated(found: list[Example]) -> list[Event]:
    """Each example with the probability of a model that was fitted without its group."""
    events = []
    for group in sorted({e.group for e in found}):
        w = fit([e for e in found if e.group != group])
        events += [Event(float(1 / (1 + np.exp(-e.features @ w))), e.moves) for e in found if e.group == group]
    return events


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", type=Path, nargs="*", help="logs with boxes beside them, or without movers")
    parser.add_argument("--images", type=int, default=25, help="of each log, about (default: 25)")
    parser.add_argument("--streets", type=int, default=30, help="synthetic streets (default: 30)")
    parser.add_argument("--seed", type=int, default=900101, help="of the first street (default: 900101)")
    args = parser.parse_args()
    forecaster, found = Forecaster.load(device="cpu"), []
    for path in args.logs:
        found += reported(path.stem, list(of_log(forecaster, path, args.images)))
    seeds = range(args.seed, args.seed + args.streets)
    found += reported("streets", [e for seed in seeds for e in of_street(forecaster, seed)])
    names = ", ".join(path.stem for path in args.logs)
    print(f"fitted on {names} and {args.streets} streets, {date.today()}")
    network = [e.moves for e in found if e.kind == PREDICTED]
    # One success and one failure more than seen, so that no probability is 0 or 1 (Laplace).
    print(f"one_image={(sum(network) + 1) / (len(network) + 2):.2f}")
    judged = [e for e in found if e.kind == INSTANCE]
    w = summarized([e for e in found if e.kind != INSTANCE])
    weights = ", ".join(f"{x:.2f}" for x in w[1:-1])
    print(f"bias={w[0]:.2f}, weights=({weights}), network={w[-1]:.2f}")
    if not judged:
        print("no instances: the network's decoder of instances is not trained")
        return
    print(f"instance=({', '.join(f'{x:.2f}' for x in summarized(judged))})")


def summarized(found: list[Example]) -> FloatArray:
    """The fitted parameters (k,); prints how good their probabilities are by cross-validation."""
    events = cross_validated(found)
    print(f"{len(found)} objects, cross-validated: Brier score {brier_score(events):.3f}; ", end="")
    likely = [e.happened for e in events if e.probability >= LIKELY]
    print(f"of probabilities of {LIKELY} and more, {sum(likely)} of {len(likely)} move; ", end="")
    print(f"{sum(e.happened for e in events) - sum(likely)} movers are missed")
    for b in reliability(events):
        print(f"  probability {b.probability:.2f}: {b.frequency:.2f} of {b.count} move")
    return fit(found)


def reported(name: str, found: list[Example]) -> list[Example]:
    """Print how many examples a source has, and return them."""
    for kind in KINDS:
        moves = [e.moves for e in found if e.kind == kind]
        print(f"{name}: {len(moves)} {kind}, {sum(moves)} of them move", flush=True)
    return found


if __name__ == "__main__":
    main()
