# SPDX-License-Identifier: Apache-2.0
"""What the forecast of moving objects lacks: parts of the prediction replaced by the truth, one after another.

    python research/oracle_ablation.py [COUNT]      # of synthetic streets (default: 8); prints a Markdown table

The streets are those of `pixel4d evaluate synthetic-street:COUNT`, whose masks, motion and depth are known exactly.
The last row bounds any network: one image does not show the rest.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.intervals import Interval, known
from pixel4d_ros.evaluation.protocol import Protocol
from pixel4d_ros.evaluation.results import Evaluation
from pixel4d_ros.evaluation.runner import evaluate_worlds
from pixel4d_ros.evaluation.synthetic_worlds import WorldSet, make_clip
from pixel4d_ros.evaluation.tables import table
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.scene import DynamicGaussians, Motion

SAMPLES = 8
FARTHER = 3.0  # times farther or nearer than the object in its pixel, and a Gaussian is not part of that
ROWS: dict[str, tuple[str, ...] | None] = {  # true parts besides the motion of objects; None: none at all
    "as predicted": None,
    "true motion of the objects found": (),
    "and their depth, by one factor each": ("distance",),
    "and the depth of each of their pixels": ("depth",),
    "true masks and motion": ("masks",),
    "and the depth of the objects, by one factor each": ("masks", "distance"),
    "and the depth of each of their pixels, too": ("masks", "depth"),
}


@dataclass(frozen=True)
class Truth:
    """What is true of a scene's Gaussians, by the pixel that each is seen in."""

    ids: Tensor  # (N,) of the object there, 0 where nothing moves
    factors: Tensor  # (N,) true over predicted depth; 1 where that is not known, or something else lies there
    motions: Tensor  # (M + 1, 4, 3) of the objects
    seen: Tensor  # (N,) bool: of the visible layer

    @staticmethod
    def of(scene: DynamicGaussians, clip: Clip) -> Truth:
        """The truth of a clip's first frame, which the scene is predicted from."""
        assert clip.depth is not None and clip.object_ids is not None and clip.object_motions is not None
        camera = Camera(clip.K, clip.images.shape[2], clip.images.shape[1])
        places, seen = replace(scene, observed=None).pixels(camera), scene.pixels(camera) >= 0
        ids, depth = (torch.as_tensor(maps[0]).flatten()[places] for maps in (clip.object_ids, clip.depth))
        factors = depth / scene.means[:, 2]
        there = (places >= 0) & (factors > 1 / FARTHER) & (factors < FARTHER)
        motions = torch.as_tensor(clip.object_motions[0])
        return Truth(torch.where(there, ids.long(), 0), torch.where(there, factors, 1.0), motions, seen)


class OracleForecaster(Forecaster):
    """A forecaster with parts of a clip's first frame replaced by the truth, see ROWS."""

    def __init__(self, forecaster: Forecaster, clip: Clip, parts: Collection[str] | None) -> None:
        super().__init__(forecaster.predictor)
        self.clip, self.parts = clip, parts

    def predict(self, *args: Any, **options: Any) -> DynamicGaussians:
        """The predicted scene with those parts as they are."""
        scene = super().predict(*args, **options)
        return scene if self.parts is None else with_truth(scene, Truth.of(scene, self.clip), self.parts)


def with_truth(scene: DynamicGaussians, truth: Truth, parts: Collection[str]) -> DynamicGaussians:
    """A scene whose objects move as they really do, with more parts replaced by the truth; without other futures."""
    ids = truth.ids if "masks" in parts else scene.object_ids
    scene = replace(scene, object_ids=ids, futures=())
    found = sorted(set(ids[(ids > 0) & truth.seen].tolist()))
    owners = {k: _owner(truth, ids == k) for k in found}
    if "distance" in parts or "depth" in parts:
        factors = torch.where(ids > 0, truth.factors, 1.0)
        if "distance" in parts:
            for k in owners:
                factors[ids == k] = truth.factors[(ids == k) & truth.seen].median()
        scene = replace(scene, means=scene.means * factors[:, None], scales=scene.scales * factors[:, None])
    motions = torch.zeros(int(ids.max()) + 1, 4, 3)
    for k, owner in owners.items():
        motions[k] = truth.motions[owner]
    fields = vars(Motion(*motions[ids].unbind(1)))
    scene = replace(scene, **fields, centroids=scene.means.new_zeros(len(motions), 3), moving_probability=None)
    return replace(scene, centroids=scene.per_object(scene.means))


def _owner(truth: Truth, members: Tensor) -> int:
    """The true object that most of an object's visible Gaussians belong to."""
    return int(truth.ids[members & truth.seen].mode().values)


def measure(forecaster: Forecaster, seed: int) -> list[Evaluation]:
    """One street for each of ROWS; with several futures where nothing is replaced."""
    worlds, protocol = WorldSet("street", 1, seed), Protocol()
    clip = make_clip(seed, worlds.kind, protocol.frames, protocol.step, worlds.size)
    return [
        evaluate_worlds(
            OracleForecaster(forecaster, clip, parts), worlds, Protocol(samples=SAMPLES if parts is None else 1)
        )
        for parts in ROWS.values()
    ]


def cell(intervals: list[Interval | None]) -> str:
    """Mean over streets and its interval; streets without an answer are left out."""
    found = known([math.nan if interval is None else interval.mean for interval in intervals], seed=0)
    return "" if found is None else f"{found.mean:.2f} ({found.low:.2f} .. {found.high:.2f})"


def main() -> int:
    """Print the table; returns the exit status."""
    try:
        streets = WorldSet("street", int(sys.argv[1]) if len(sys.argv) > 1 else 8)
    except ValueError:
        print(__doc__)
        return 2
    forecaster = Forecaster.load(device="cpu")
    found = zip(*(measure(forecaster, seed) for seed in tqdm(streets.seeds, "streets", unit="street")))
    rows = [
        [name, cell([f.inside_gain for f in row]), cell([f.best_inside_gain for f in row])]
        for name, row in zip(ROWS, found)
    ]
    title = "inside moving objects: gain over motion off, dB"
    print(f"{streets.name}; weights {forecaster.weights_hash[:12]}; in parentheses 95 % intervals over streets\n")
    print(table(("", title, f"best of {SAMPLES} futures over the first, dB"), rows, markdown=True))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
