"""Track the predicted objects of a clip image by image and score whether their ids last, against labelled boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.alignment import source_poses
from pixel4d_ros.evaluation.id_metrics import IdScore, TrackedFrame, score_ids
from pixel4d_ros.evaluation.labelled_objects import labelled_objects
from pixel4d_ros.evaluation.windows import earlier_view
from pixel4d_ros.outputs.tracked_scene import detections_of
from pixel4d_ros.outputs.tracking import Tracker

if TYPE_CHECKING:
    from pixel4d_ros.forecaster import Forecaster


def track_clip(forecaster: Forecaster, clip: Clip, two_images: bool, seed: int = 0) -> IdScore:
    """Predict every image of a clip, from an earlier one too if two_images, and score the ids of what moves.

    The clip's world must have z up, as odometry frames do. Raises ValueError without labelled boxes.
    """
    if clip.boxes is None:
        raise ValueError(f"{clip.name} has no labelled boxes to compare ids with: put NAME.boxes.json beside the log")
    tracker, frames = Tracker(), []
    for t in tqdm(range(len(clip)), "track", unit="image", leave=False):
        window = clip.part(t, min(t + 2, len(clip))).in_memory()
        reference = earlier_view(clip, window) if two_images else None
        speed = CameraPath(window.times - window.times[0], source_poses(window)).speed()
        scene = forecaster.predict(window.images[0], clip.K, 1, seed, None, speed, reference)
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


def describe_ids(name: str, score: IdScore) -> str:
    """The score in a sentence."""
    total = score.matched + score.missed
    lasting = f"{score.lasting} of {score.objects} objects kept one id" if score.objects else "no object was seen twice"
    return (
        f"{name}: {score.switches} identity switches, {lasting}; "
        f"{score.matched} of {total} labelled moving objects in all images were tracked"
    )
