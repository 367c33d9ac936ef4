# SPDX-License-Identifier: Apache-2.0
"""Publish a forecast; messages without subscribers are not built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from pixel4d_ros.camera import Camera, CameraPath
from pixel4d_ros.forecaster import Forecast
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.outputs.moving_objects import moving_objects
from pixel4d_ros.outputs.occupancy import occupancy_maps
from pixel4d_ros.outputs.tracked_scene import detections_of, track_ids
from pixel4d_ros.outputs.tracking import TrackedObject, Tracker
from pixel4d_ros.ros.compat import interface
from pixel4d_ros.ros.inputs import Source
from pixel4d_ros.ros.messages import conversions as c
from pixel4d_ros.ros.messages.headers import duration_message
from pixel4d_ros.ros.messages.markers import motion_markers
from pixel4d_ros.ros.messages.objects import predicted_objects_message
from pixel4d_ros.ros.messages.pointcloud import pointcloud_message, subsample
from pixel4d_ros.ros.messages.splats import LEAST_OPACITY, splat_array_bytes
from pixel4d_ros.ros.parameters import Parameters
from pixel4d_ros.ros.topics import Publishers, has_subscribers
from pixel4d_ros.ros.transforms import EgoState
from pixel4d_ros.scene import DynamicGaussians


class OccupancyError(ValueError):
    """An occupancy grid cannot be computed."""


@dataclass(frozen=True)
class CameraViews:
    """Content of a ForecastSequence: T views along a path."""

    camera: Camera
    times: FloatArray  # (T,) s
    T_source_camera: FloatArray  # (T, 4, 4)
    confidence: NDArray[np.float32]  # (T,)
    frames: Iterable[NDArray[np.uint8]] = ()  # (H, W, 3) each


@dataclass(frozen=True)
class SelectedFrame:
    """The forecast at the selected step."""

    frames: NDArray[np.uint8]  # (S, H, W, 3) of the sampled futures
    depth: NDArray[np.float32]  # (H, W) metres, of the most likely future


@dataclass(frozen=True)
class Result:
    """The forecast from one image."""

    source: Source
    ego: EgoState
    path: CameraPath  # at the forecast times
    scene: DynamicGaussians
    forecast: Forecast | None  # all frames, if subscribed
    selected: SelectedFrame | None
    tracked: Sequence[TrackedObject] = ()  # in odometry's frame; empty without odometry

    @property
    def track_ids(self) -> dict[int, int]:
        """Track id by object id of the scene; empty where objects are not tracked."""
        return track_ids(self.tracked)


def sequence_message(views: CameraViews, header: Header) -> Any:
    """A ForecastSequence."""
    return next(sequence_messages([views], header))


def sequence_messages(all_views: Sequence[CameraViews], header: Header) -> Iterator[Any]:
    """A ForecastSequence for each of the paths or futures, which share camera and times."""
    kind, times = interface("msg", "ForecastSequence"), all_views[0].times
    camera_info = c.camera_info_message(all_views[0].camera, header)
    durations = [duration_message(t) for t in times]
    poses = c.pose_messages(np.concatenate([views.T_source_camera for views in all_views]))
    for k, views in enumerate(all_views):
        message = kind(
            header=header,
            camera_info=camera_info,
            time_from_start=durations,
            camera_poses=poses[k * len(times) : (k + 1) * len(times)],
            images=[c.image_message(frame, header) for frame in views.frames],
            sample_count=1,
        )
        message.confidence.frombytes(np.ascontiguousarray(views.confidence, np.float32).tobytes())
        yield message


def publish(result: Result, out: Publishers, p: Parameters) -> None:
    """Publish all subscribed outputs. Raises OccupancyError, after the others, for a grid without odometry."""
    if result.forecast is not None:
        _publish_sequences(result.forecast, result.source, out, p)
    if result.selected is not None:
        _publish_images(result.selected, result.source.header, out, p)
    _publish_clouds(result, out, p)
    if has_subscribers(out.motion):
        up = _mounting(result)[2, :3]  # z of the base, in the camera's frame
        ids = result.track_ids
        objects = [
            replace(o, object_id=ids.get(o.object_id, o.object_id)) for o in moving_objects(result.scene, up, p.times)
        ]
        out.motion.publish(motion_markers(objects, result.path.poses, result.source.header))
    if has_subscribers(*out.infos):
        _publish_camera_info(result, out, p)
    if has_subscribers(out.objects):
        _publish_objects(result, out, p)
    if has_subscribers(out.occupancy, out.occupancy_forecast):
        _publish_occupancy(result, out, p)


def uncertainty_image(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Standard deviation of the colours over S samples (S, H, W, 3), as (H, W); 255 is half the range, the maximum."""
    spread: NDArray[np.float32] = frames.std(0, dtype=np.float32).mean(-1)
    levels: NDArray[np.uint8] = np.rint((2 * spread).clip(0, 255)).astype(np.uint8)
    return levels


def _mounting(result: Result) -> FloatArray:
    """T_base_camera."""
    return result.ego.camera_in_base(result.source.header.frame_id, result.source.stamp_ns)


def _publish_sequences(forecast: Forecast, source: Source, out: Publishers, p: Parameters) -> None:
    """One ForecastSequence per sampled future."""
    camera, count = source.camera.resized(*p.size_of(source.size)), len(forecast.frames)
    futures = [
        CameraViews(camera, forecast.times, forecast.T_source_camera, confidence, frames)
        for frames, confidence in zip(forecast.frames, forecast.confidence)
    ]
    for k, message in enumerate(sequence_messages(futures, source.header)):
        message.sample_index, message.sample_count = k, count
        out.sequence.publish(message)


def _publish_images(selected: SelectedFrame, header: Header, out: Publishers, p: Parameters) -> None:
    if has_subscribers(out.image):
        out.image.publish(c.image_message(selected.frames[0], header))
    if has_subscribers(out.jpeg):
        out.jpeg.publish(c.jpeg_message(selected.frames[0], p.jpeg_quality, header))
    if has_subscribers(out.depth):
        out.depth.publish(c.depth_message(selected.depth, header))
    if has_subscribers(out.uncertainty):
        out.uncertainty.publish(c.mono_message(uncertainty_image(selected.frames), header))


def _publish_clouds(result: Result, out: Publishers, p: Parameters) -> None:
    """The scene now and at the selected step."""
    scene, header = result.scene, result.source.header
    if out.splats is not None and has_subscribers(out.splats):
        splats = subsample(scene, max(p.min_opacity, LEAST_OPACITY), p.max_splats)
        # RVizSplat draws a new message in the order sent until it has sorted it: send far Gaussians first.
        splats = splats.select(splats.means[:, 2].argsort(descending=True))
        out.splats.publish(splat_array_bytes(*in_odometry(splats, result.ego, result.source)))
    if not has_subscribers(out.cloud, out.moved_cloud):
        return
    scene, compact = subsample(scene, p.min_opacity, p.max_cloud_points), p.cloud_format == "compact"
    if has_subscribers(out.cloud):
        out.cloud.publish(pointcloud_message(scene, header, result.track_ids, compact))
    if has_subscribers(out.moved_cloud):
        moved = scene.at(p.times[p.selected])
        out.moved_cloud.publish(pointcloud_message(moved, header, result.track_ids, compact))


def in_odometry(scene: DynamicGaussians, ego: EgoState, source: Source) -> tuple[DynamicGaussians, Header]:
    """The scene and its header, in odometry's frame, or in the camera's frame without odometry."""
    base, header = _base_in_odometry(ego, source.stamp_ns), source.header
    if base is None:
        return scene, header
    T_odometry_camera = base @ ego.camera_in_base(header.frame_id, source.stamp_ns)
    return scene.transformed(T_odometry_camera), Header(stamp=header.stamp, frame_id=ego.odometry.frame)


def _publish_camera_info(result: Result, out: Publishers, p: Parameters) -> None:
    """The calibration of the image topics, with their stamp and frame."""
    source = result.source
    info = c.camera_info_message(source.camera.resized(*p.size_of(source.size)), source.header)
    for publisher in out.infos:
        if has_subscribers(publisher):
            publisher.publish(info)


def _publish_objects(result: Result, out: Publishers, p: Parameters) -> None:
    """Tracked objects in odometry's frame; without odometry those of this image, in the base's."""
    ego, source = result.ego, result.source
    base, frame = _base_in_odometry(ego, source.stamp_ns), ego.odometry.frame
    if base is None:
        base, frame = np.eye(4), ego.base
    tracked = result.tracked
    if not tracked:  # ids are those of the clouds
        found = Tracker().update(0.0, detections_of(result.scene, base @ _mounting(result)))
        tracked = [replace(o, id=o.scene_id) for o in found]
    header = Header(stamp=source.header.stamp, frame_id=frame)
    out.objects.publish(predicted_objects_message(tracked, p.times, header))


def _publish_occupancy(result: Result, out: Publishers, p: Parameters) -> None:
    """A grid per frame asked for and one message of all frames, in odometry's frame."""
    ego, stamp_ns = result.ego, result.source.stamp_ns
    base = _base_in_odometry(ego, stamp_ns)
    if base is None:
        raise OccupancyError("the grid is in odometry's frame, and there is no odometry at the image's time")
    header = Header(stamp=result.source.header.stamp, frame_id=ego.odometry.frame)
    all_steps = has_subscribers(out.occupancy_forecast)
    steps = range(p.steps) if all_steps else p.occupancy_frames
    seconds = [float(p.times[i]) for i in steps]
    made = occupancy_maps(result.scene, seconds, base, _mounting(result), p.map_extent)
    grids = {i: c.grid_message(m, stamp_ns + round(t * 1e9), header) for i, t, m in zip(steps, seconds, made)}
    if has_subscribers(out.occupancy):
        for i in p.occupancy_frames:
            out.occupancy.publish(grids[i])
    if all_steps:
        durations = [duration_message(t) for t in seconds]
        kind = interface("msg", "OccupancyForecast")
        out.occupancy_forecast.publish(kind(header=header, time_from_start=durations, grids=list(grids.values())))


def _base_in_odometry(ego: EgoState, stamp_ns: int) -> FloatArray | None:
    """T_odometry_base at a time, None without odometry."""
    return ego.base_in(ego.odometry.frame, stamp_ns) if ego.odometry.frame else None
