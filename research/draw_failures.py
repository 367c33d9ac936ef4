# SPDX-License-Identifier: Apache-2.0
"""Draw known failures of the shipped weights: the one image, the forecast and what happened, as one picture.

    python research/draw_failures.py docs/failures.jpg

The worlds are synthetic ones of held-out seeds, on which `pixel4d evaluate synthetic-street:8` and
`synthetic-room:8` measure, too. The model card describes these failures.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.evaluation.compare import Picture
from pixel4d_ros.evaluation.synthetic_worlds import make_clip
from pixel4d_ros.evaluation.video import BLUE, GREY, ORANGE, sheet
from pixel4d_ros.forecaster import Forecaster

FRAMES, STEP = 14, 0.1  # a forecast of 1.3 s
SIZE = (400, 120)  # pixels of a panel, and of the worlds


@dataclass(frozen=True)
class Failure:
    """What goes wrong in which world, and in which of its frames one sees it."""

    text: str
    kind: str
    seed: int
    frame: int


FAILURES = (
    Failure("What comes near tears apart: an oncoming car that passes", "street", 900_001, 6),
    Failure("Crossing traffic is taken for standing: the white car drives into the junction", "street", 900_007, 6),
    Failure("Late frames: near cars smear", "street", 900_002, 12),
    Failure("Moving things that are no vehicles are often taken for standing: a rolling ball", "room", 900_003, 12),
    Failure("What the image does not show is a smooth guess", "room", 900_005, 12),
)


def row(forecaster: Forecaster, failure: Failure) -> Picture:
    """The source image, the forecast of one frame, and that frame."""
    clip = make_clip(failure.seed, failure.kind, FRAMES, STEP, SIZE)
    images = np.asarray(clip.images)
    time = clip.times[failure.frame : failure.frame + 1]
    forecast = forecaster.forecast(images[0], clip.K, CameraPath(clip.times, clip.poses), time).frames[0, 0]
    panels = [
        (images[0], "source image", GREY),
        (forecast, f"forecast, {time[0]:+.1f} s", BLUE),
        (images[failure.frame], "what really happened", ORANGE),
    ]
    return sheet([panels], SIZE, failure.text)


def main() -> int:
    """Draw; returns the exit status."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    forecaster, path = Forecaster.load(), Path(sys.argv[1])
    picture = np.concatenate([row(forecaster, failure) for failure in FAILURES])
    if not cv2.imwrite(str(path), picture[..., ::-1]):
        print(f"draw_failures: {path} cannot be written", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
