# SPDX-License-Identifier: Apache-2.0
"""Fit the probability that an object moves (two_view/moving_probability.py) on labelled logs and synthetic streets.

Prints the parameters and their Brier score. The logs' boxes must be complete, or the logs show nothing that moves.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import cv2
import numpy as np

from pixel4d_ros.datasets.box_labels import labelled
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.open import open_clips
from pixel4d_ros.evaluation import synthetic_worlds
from pixel4d_ros.evaluation.calibration import Event, brier_score
from pixel4d_ros.evaluation.motion_metrics import moving_ids
from pixel4d_ros.evaluation.windows import cut, reference_view
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.flow import Mask, flow_size
from pixel4d_ros.two_view.motion_evidence import Evidence, photometric_evidence
from pixel4d_ros.two_view.moving_probability import Calibration
from pixel4d_ros.two_view.object_motion import FARTHEST, TwoImages, candidates, fitted, object_pixels
from pixel4d_ros.two_view.reference_view import ReferenceView

PRIOR = 0.1  # precision of the parameters' Gaussian prior
LEAST_SHARE = 0.5  # of an object's pixels that move in a label: it moves


@dataclass(frozen=True)
class Example:
    """One candidate or predicted object."""

    evidence: Evidence
    network: bool  # the network found it
    moves: bool


def examples(forecaster: Forecaster, window: Clip, reference: ReferenceView, moving: Mask) -> Iterator[Example]:
    """The candidates and predicted objects of a window's source image; moving (H, W) are the truly moving pixels."""
    image = np.asarray(window.images[0])
    step = window.poses[1][:3, 3] - window.poses[0][:3, 3]
    speed = float(np.linalg.norm(step) / (window.times[1] - window.times[0]))
    scene = forecaster.predict(image, window.K, speed=speed)
    assert scene.camera is not None
    camera = scene.camera.resized(*flow_size(image.shape[1], image.shape[0]))
    places = scene.pixels(camera)
    pair = TwoImages.of(image, reference, camera, scene.seen_depth(camera, places, FARTHEST))
    ids = object_pixels(scene, places, camera)
    truth = cv2.resize(moving.astype(np.uint8), (camera.width, camera.height), interpolation=cv2.INTER_NEAREST) > 0

    def example(mask: Mask, velocity: FloatArray, network: bool) -> Example:
        evidence = photometric_evidence(pair.images, mask, velocity * pair.seconds)
        return Example(evidence, network, bool(truth[mask].mean() > LEAST_SHARE))

    for patch, fit in candidates(pair, ids):
        if window.boxes is not None and patch[:, [0, -1]].any():
            continue  # boxes of what is mostly outside the image are missing
        yield example(patch, fit.velocity, False)
    velocities = scene.per_object(scene.velocities).double().cpu().numpy()
    for k in sorted(moving_ids(scene) & set(np.unique(ids).tolist())):
        fit_of = fitted(pair, ids == k, velocities[k], np.full(3, 0.3 + 0.05 * float(np.linalg.norm(velocities[k]))))
        if fit_of is not None:
            yield example(ids == k, fit_of.velocity, True)


def of_log(forecaster: Forecaster, path: Path, stride: int) -> Iterator[Example]:
    """Examples of every stride-th image of a log; without labels nothing moves in it."""
    clip = labelled(next(iter(open_clips(path))), path)
    for t in range(2, len(clip) - 2, stride):
        window = cut(clip, np.array([t, t + 1]))
        reference, moving = reference_view(clip, window), window.moving_mask(0)
        if reference is not None:
            still = np.zeros(window.images.shape[1:3], bool)
            yield from examples(forecaster, window, reference, still if moving is None else moving)


def of_street(forecaster: Forecaster, seed: int) -> Iterator[Example]:
    """Examples of a synthetic street."""
    size = (416, 128)
    clip = synthetic_worlds.make_clip(seed, "street", 2, 0.1, size)
    moving = clip.moving_mask(0)
    assert moving is not None
    yield from examples(forecaster, clip, synthetic_worlds.reference_view(seed, "street", size), moving)


def fit(found: list[Example]) -> FloatArray:
    """(bias, ratio, whole, network) of the most likely logistic model, by Newton's method with a Gaussian prior."""
    X = np.array([(1.0, e.evidence.log_ratio, e.evidence.whole_log_ratio, e.network) for e in found])
    y = np.array([e.moves for e in found], float)
    w = np.zeros(4)
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(X @ w, -30, 30)))
        w = w + np.linalg.solve((X * (p * (1 - p))[:, None]).T @ X + PRIOR * np.eye(4), X.T @ (y - p) - PRIOR * w)
    return w


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", type=Path, nargs="*", help="logs with complete boxes beside them, or without movers")
    parser.add_argument("--images", type=int, default=30, help="of each log (default: 30)")
    parser.add_argument("--streets", type=int, default=20, help="synthetic streets (default: 20)")
    parser.add_argument("--seed", type=int, default=900101, help="of the first street (default: 900101)")
    args = parser.parse_args()
    forecaster, found = Forecaster.load(device="cpu"), []
    for path in args.logs:
        length = len(next(iter(open_clips(path))))
        own = list(of_log(forecaster, path, max(1, length // args.images)))
        report(path.stem, own)
        found += own
    streets = [e for seed in range(args.seed, args.seed + args.streets) for e in of_street(forecaster, seed)]
    report("streets", streets)
    found += streets
    w = fit(found)
    bias, ratio, whole, network_bias = (float(x) for x in w)
    fitted_to = Calibration(0.5, bias, ratio, whole, network_bias, source="")
    p = [fitted_to.with_reference(e.evidence, e.network) for e in found]
    network = [e.moves for e in found if e.network]
    # One success and one failure more than seen, so that no probability is 0 or 1 (Laplace).
    one_image = (sum(network) + 1) / (len(network) + 2)
    print(f"one_image={one_image:.2f}, bias={w[0]:.2f}, ratio={w[1]:.2f}, whole={w[2]:.2f}, network={w[3]:.2f}")
    brier = brier_score([Event(float(q), e.moves) for q, e in zip(p, found)])
    names = ", ".join(path.stem for path in args.logs)
    print(f"{len(found)} objects of {names} and {args.streets} streets, {date.today()}; Brier score {brier:.3f}")


def report(name: str, found: list[Example]) -> None:
    """Print how many examples a source has."""
    for network in (False, True):
        own = [e for e in found if e.network == network]
        moves, stands = (
            sorted((round(e.evidence.log_ratio, 2), round(e.evidence.whole_log_ratio, 2)) for e in own if e.moves == m)
            for m in (True, False)
        )
        kind = "predicted objects" if network else "candidates"
        print(f"{name}, {kind}: log ratios of those that move {moves}, that stand {stands}", flush=True)


if __name__ == "__main__":
    main()
