# SPDX-License-Identifier: Apache-2.0
"""Track predicted objects through a clip, and score ids and predicted paths against labelled boxes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.id_metrics import IdScore, TrackedFrame, match_objects, score_ids
from pixel4d_ros.evaluation.labelled_objects import labelled_objects
from pixel4d_ros.evaluation.path_metrics import PathSample, PathScore, score_paths
from pixel4d_ros.evaluation.tables import Table
from pixel4d_ros.evaluation.windows import cut
from pixel4d_ros.outputs.maneuvers import predicted_paths
from pixel4d_ros.outputs.tracked_scene import detections_of
from pixel4d_ros.outputs.tracking import TrackedObject, Tracker
from pixel4d_ros.scene import DynamicGaussians

FUTURE = 13  # images of a predicted path


def track_clip(predict: Callable[[Clip], DynamicGaussians], clip: Clip) -> tuple[IdScore, PathScore | None]:
    """Predict and track the objects of every image of a clip, and score ids and paths of those that move.

    predict is called with windows of two frames. The clip's world must have z up, as odometry frames do. Raises
    ValueError without labelled boxes.
    """
    if clip.boxes is None:
        raise ValueError(f"{clip.name} has no labelled boxes to compare ids with: put NAME.boxes.json beside the log")
    tracker, frames = Tracker(), []
    tracked: list[dict[int, TrackedObject]] = []
    for t in tqdm(range(len(clip) - 1), "track", unit="image", leave=False):
        window = cut(clip, np.array([t, t + 1]))
        scene = predict(window)
        found = tracker.update(float(clip.times[t]), detections_of(scene, clip.poses[t]))
        seen = [o for o in found if o.scene_id]
        tracked.append({o.id: o for o in seen})
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
    matches = match_objects(frames)
    samples = [
        _path_sample(clip, t, track, tracked[t][own]) for t, pairs in enumerate(matches) for track, own in pairs.items()
    ]
    return score_ids(frames, matches), score_paths([sample for sample in samples if sample is not None])


def _path_sample(clip: Clip, t: int, track: int, o: TrackedObject) -> PathSample | None:
    """The paths of the object of image t and the way of its label; None where the label ends within FUTURE images."""
    assert clip.boxes is not None
    places = [
        clip.poses[k, :3, :3] @ box.T_camera_box[:3, 3] + clip.poses[k, :3, 3]
        for k in range(t, min(t + FUTURE + 1, len(clip)))
        for box in clip.boxes[k]
        if box.track == track
    ]
    if len(places) <= FUTURE:
        return None
    paths = predicted_paths(o, clip.times[t + 1 : t + FUTURE + 1] - clip.times[t])
    return PathSample(
        np.stack([path.poses[:, :2, 3] for path in paths]) - o.center[:2],
        np.array([path.probability for path in paths]),
        (np.array(places[1:]) - places[0])[:, :2],
    )


def ids_table(name: str, score: IdScore) -> Table:
    """The score as a table."""
    total = score.matched + score.missed
    return [name, ""], [
        ["identity switches", str(score.switches)],
        ["labelled objects tracked in two or more images", str(score.objects)],
        ["of these, kept one id, %", f"{100 * score.lasting_share:.0f}" if score.objects else ""],
        [f"tracked of {total} labelled moving objects in all images, %", f"{100 * score.matched / max(1, total):.0f}"],
    ]
