# SPDX-License-Identifier: Apache-2.0
"""Forecast source frames of a clip along the true camera path and compare with the true frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera, CameraPath, unproject
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.alignment import image_scale, scaled_translation, source_poses
from pixel4d_ros.evaluation.baselines import on_flat_ground, without_motion
from pixel4d_ros.evaluation.depth_metrics import Boundaries, DepthErrors, boundaries, depth_errors
from pixel4d_ros.evaluation.labelled_objects import LEAST_SHARE, PEOPLE, LabelledObject, labelled_objects, share_inside
from pixel4d_ros.evaluation.metrics import psnr, ssim
from pixel4d_ros.evaluation.motion_metrics import MotionScore, score_motion
from pixel4d_ros.evaluation.pose_search import find_poses
from pixel4d_ros.evaluation.protocol import Protocol
from pixel4d_ros.evaluation.windows import moving_masks
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.reference_view import ReferenceView

if TYPE_CHECKING:
    from pixel4d_ros.forecaster import Forecaster
    from pixel4d_ros.scene import DynamicGaussians

Video = NDArray[np.uint8]  # (T, H, W, 3) RGB


@dataclass(frozen=True)
class Setting:
    """Settings of an evaluation beside the protocol, determined once per clip."""

    align: str = "given"  # one of protocol.ALIGNMENTS
    scale: float = 1.0  # of the camera paths, with clip-scale
    camera_height: float | None = None  # metres above flat ground; None: there is no such ground
    perceptual: Callable[[Video, Video], FloatArray] | None = None  # LPIPS (T,) of two videos
    video_features: Callable[[Video], FloatArray] | None = None  # (D,) of a video, for FVD
    flip: Callable[[Video, Video], FloatArray] | None = None  # FLIP (T,) of two videos, NaN where it was not computed
    reference: Callable[[Clip], ReferenceView | None] = lambda window: None  # that the network is given of a source


@dataclass(frozen=True)
class VideoScore:
    """One video against what really happened, frame by frame; inside and outside moving objects of the true frame."""

    psnr: FloatArray  # (T,) dB
    ssim: FloatArray  # (T,)
    inside: FloatArray | None = (
        None  # (T,) dB; NaN in frames where less than LEAST_SHARE moves; None: no labels of motion
    )
    outside: FloatArray | None = None  # (T,) dB
    lpips: FloatArray | None = None  # (T,)
    flip: FloatArray | None = None  # (T,) NaN where it was not computed
    features: FloatArray | None = None  # (D,) of the whole video


@dataclass(frozen=True)
class BoxShare:
    """Of what lies in a labelled object's outline, the shares inside its 3D box, 0..1; NaN where there is nothing."""

    gaussians: float
    sensor: float  # of the sensor's points: what a perfect depth map reaches, for outlines show some background too


@dataclass(frozen=True)
class SourceScore:
    """The scores of one source: sampled futures and the baselines, T frames of which frame 0 is the source image."""

    stamp: float  # s, of the source image
    times: FloatArray  # (T,) s after the source image
    futures: tuple[VideoScore, ...]
    still: VideoScore  # the same scene with its motion switched off
    repeat: VideoScore  # the source image, repeated
    plane: VideoScore | None  # the source image on flat ground; None where there is none
    truth_features: FloatArray | None
    depth: DepthErrors | None  # frame 0 against the sensor, in metres; None without sensor depth
    scaled_depth: DepthErrors | None  # the same after the usual median scaling
    boundaries: Boundaries | None  # of frame 0; None without dense depth
    box_shares: tuple[BoxShare, ...]  # of the labelled vehicles
    motion: MotionScore | None  # None without labels of motion
    scale: float  # what the camera path's translation was multiplied with
    milliseconds: float  # wall time of the forecast


@dataclass(frozen=True)
class ScoredWindow:
    """A scored window with its videos, for pictures of them."""

    score: SourceScore
    window: Clip
    forecast: Video
    depth: NDArray[np.float32] = field(repr=False)  # (H, W) metres, of frame 0


def score_window(forecaster: Forecaster, window: Clip, protocol: Protocol, setting: Setting) -> ScoredWindow | None:
    """Forecast frame 0 of window along its poses and score every frame of all futures and baselines.

    None when one scale per image is asked for and cannot be found, for want of sensor depth in the source image.
    """
    times, truth = window.times - window.times[0], np.asarray(window.images)
    size = truth.shape[2], truth.shape[1]
    started = time.perf_counter()
    # As Forecaster.forecast does; without a metric scale the speed is not known.
    speed = CameraPath(times, source_poses(window)).speed() if window.metric else None
    reference = setting.reference(window)
    scene = forecaster.predict(truth[0], window.K, protocol.samples, protocol.seed, None, speed, reference)
    searched = time.perf_counter()
    path = _camera_path(forecaster, scene, window, setting)
    if path is None:
        return None
    poses, scale = path
    searched = time.perf_counter() - searched
    views = [forecaster.views(scene.sample(k), poses, times, window.K, size) for k in range(protocol.samples)]
    milliseconds = 1000 * (time.perf_counter() - started - searched)
    still = views[0].frames
    if bool((scene.object_ids > 0).any()):
        still = forecaster.render(without_motion(scene), poses, times, window.K, size)
    moving = moving_masks(window)
    plane = None
    if setting.camera_height is not None:
        plane = on_flat_ground(truth[0], window.K, poses, setting.camera_height)

    def score(frames: Video) -> VideoScore:
        return score_video(frames, truth, moving, protocol, setting)

    depth, sensor = views[0].depth[0], None if window.depth is None else window.depth[0]
    rows, columns = protocol.scored(*size)
    labelled = labelled_objects(window)
    height = setting.camera_height
    found = SourceScore(
        stamp=float(window.times[0]),
        times=times,
        futures=tuple(score(view.frames) for view in views),
        still=score(still),
        repeat=score(np.broadcast_to(truth[0], truth.shape)),
        plane=None if plane is None else score(plane),
        truth_features=setting.video_features and setting.video_features(truth[:, rows, columns]),
        depth=None if sensor is None else depth_errors(depth, sensor),
        scaled_depth=None if sensor is None else depth_errors(depth, sensor, median_scaled=True),
        boundaries=None if sensor is None else boundaries(depth, sensor),
        box_shares=box_shares(scene, window, labelled or ()),
        motion=None if moving is None else score_motion(scene, window, moving[0], height),
        scale=scale,
        milliseconds=milliseconds,
    )
    return ScoredWindow(found, window, views[0].frames, depth)


def box_shares(scene: DynamicGaussians, window: Clip, labelled: Sequence[LabelledObject]) -> tuple[BoxShare, ...]:
    """Per labelled vehicle the shares inside its box of the Gaussians, and of the sensor's points, in its outline."""
    height, width = window.images.shape[1:3]
    pixels = scene.pixels(Camera(window.K, width, height)).cpu().numpy()
    means = scene.means.detach().cpu().double().numpy()[pixels >= 0]
    pixels = pixels[pixels >= 0]
    shares = []
    for thing in labelled:
        if thing.box is not None and thing.box.label not in PEOPLE:
            points = np.empty((0, 3))
            if window.depth is not None:
                v, u = np.nonzero(thing.mask & (window.depth[0] > 0))
                points = unproject(np.stack((u, v), -1), window.depth[0][v, u], window.K)
            own = means[thing.mask.reshape(-1)[pixels]]
            shares.append(BoxShare(share_inside(own, thing.box), share_inside(points, thing.box)))
    return tuple(shares)


def score_video(
    frames: Video, truth: Video, moving: NDArray[np.bool_] | None, protocol: Protocol, setting: Setting
) -> VideoScore:
    """Scores of frames (T, H, W, 3) against the true ones, on the pixels that the protocol scores."""
    rows, columns = protocol.scored(truth.shape[2], truth.shape[1])
    a, b = (np.ascontiguousarray(video[:, rows, columns]) for video in (frames, truth))
    inside = outside = None
    if moving is not None:
        masks = moving[:, rows, columns]
        enough = masks.sum((1, 2)) >= LEAST_SHARE * masks[0].size
        inside = np.array([psnr(x, y, m) if e else np.nan for x, y, m, e in zip(a, b, masks, enough)])
        outside = np.array([psnr(x, y, ~m) for x, y, m in zip(a, b, masks)])
    return VideoScore(
        psnr=np.array([psnr(x, y) for x, y in zip(a, b)]),
        ssim=np.array([ssim(x, y) for x, y in zip(a, b)]),
        inside=inside,
        outside=outside,
        lpips=setting.perceptual and setting.perceptual(a, b),
        flip=setting.flip and setting.flip(a, b),
        features=setting.video_features and setting.video_features(a),
    )


def score_windows(
    forecaster: Forecaster, windows: Iterable[Clip], protocol: Protocol, setting: Setting | None = None
) -> Iterator[ScoredWindow]:
    """Score window after window, holding one at a time. Windows without a score are left out."""
    for window in windows:
        scored = score_window(forecaster, window, protocol, setting or Setting())
        if scored is not None:
            yield scored


def _camera_path(
    forecaster: Forecaster, scene: DynamicGaussians, window: Clip, setting: Setting
) -> tuple[FloatArray, float] | None:
    """T_source_camera (T, 4, 4) as the setting's alignment asks for, and what its translations were multiplied with."""
    poses = source_poses(window)
    if setting.align == "poses":
        return find_poses(forecaster, scene, window, poses), 1.0
    scale = image_scale(forecaster, scene, window) if setting.align == "image-scale" else setting.scale
    return (scaled_translation(poses, scale), scale) if np.isfinite(scale) else None
