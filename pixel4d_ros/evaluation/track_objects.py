# SPDX-License-Identifier: Apache-2.0
"""Track predicted objects through a clip, and score how long their ids last against labelled boxes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.id_metrics import IdScore, TrackedFrame, score_ids
from pixel4d_ros.evaluation.labelled_objects import labelled_objects
from pixel4d_ros.evaluation.tables import Table
from pixel4d_ros.evaluation.windows import cut
from pixel4d_ros.outputs.tracked_scene import detections_of
from pixel4d_ros.outputs.tracking import Tracker
from pixel4d_ros.scene import DynamicGaussians


def track_clip(predict: Callable[[Clip], DynamicGaussians], clip: Clip) -> IdScore:
    """Predict and track the objects of every image of a clip, and score the ids of those that move.

    predict is called with windows of two frames. The clip's world must have z up, as odometry frames do. Raises
    ValueError without labelled boxes.
    """
    if clip.boxes is None:
        raise ValueError(f"{clip.name} has no labelled boxes to compare ids with: put NAME.boxes.json beside the log")
    tracker, frames = Tracker(), []
    for t in tqdm(range(len(clip) - 1), "track", unit="image", leave=False):
        window = cut(clip, np.array([t, t + 1]))
        scene = predict(window)
        found = tracker.update(float(clip.times[t]), detections_of(scene, clip.poses[t]))
        seen = [o for o in found if o.scene_id]
        labelled = [thing for thing in labelled_objects(window) or [] if thing.moving and thing.box is not None]
        places = np.array([thing.center for thing in labelled]).reshape(-1, 3)
        frames.append(
            TrackedFrame(
                np.array([thing.box.track for thing in labelled if thing.box is not None], np.int64),
                places @ clip.poses[t, :3, :3].T + clip.poses[t, :3, 3],
                np.array([o.id for o in seen], np.int64),
                np.array([o.center for o in seen]).reshape(-1, 3),
            )
        )
    return score_ids(frames)


def ids_table(name: str, score: IdScore) -> Table:
    """The score as a table."""
    total = score.matched + score.missed
    return [name, ""], [
        ["identity switches", str(score.switches)],
        ["labelled objects tracked in two or more images", str(score.objects)],
        ["of these, kept one id, %", f"{100 * score.lasting_share:.0f}" if score.objects else ""],
        [f"tracked of {total} labelled moving objects in all images, %", f"{100 * score.matched / max(1, total):.0f}"],
    ]
