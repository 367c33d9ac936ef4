"""What the worker's thread does: images become forecasts that are published, candidate paths become answers."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from rclpy.lifecycle import LifecycleNode

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.forecaster import DeviceError
from pixel4d_ros.geometry.rectification import Rectifier
from pixel4d_ros.ros.diagnostics import FROM_ONE_IMAGE, Faults, Statistics
from pixel4d_ros.ros.inputs import (
    CalibrationSource,
    Depth,
    Frame,
    InputFault,
    Inputs,
    Source,
    depth_of,
    describe,
    read_plan,
    read_source,
    surroundings,
)
from pixel4d_ros.ros.messages.closest import requested_footprint
from pixel4d_ros.ros.parameters import Parameters
from pixel4d_ros.ros.publishing import OccupancyError, Result, SelectedFrame, publish
from pixel4d_ros.ros.reference_candidates import EarlierViews
from pixel4d_ros.ros.services import PendingRequest, candidate_paths, forecast_candidates
from pixel4d_ros.ros.topics import Publishers, has_subscribers
from pixel4d_ros.ros.trajectory import ego_motion
from pixel4d_ros.ros.transforms import EgoState, TransformSource
from pixel4d_ros.scene import DynamicGaussians
from pixel4d_ros.two_view.reference_view import ReferenceView
from pixel4d_ros.two_view.triangulation import depth_from_motion

DEPTH_POLL_S = 0.002


@dataclass
class PipelineContext:
    """What an engine works with; the executor's thread uses some of it too."""

    node: LifecycleNode
    forecaster: Any
    outputs: Publishers
    frames: TransformSource
    faults: Faults
    statistics: Statistics


class Measurements(TypedDict, total=False):
    """What a Forecaster is told beside an image."""

    depth: Depth | None
    reference: ReferenceView | None


@dataclass(frozen=True)
class Prediction:
    """What was predicted from a frame, and what was read of that."""

    frame: Frame
    source: Source
    scene: DynamicGaussians


class ForecastPipeline:
    """Works on one frame or question at a time; whatever goes wrong is said, and the next gets its chance."""

    def __init__(self, tools: PipelineContext) -> None:
        self._tools = tools
        self._rectifier = Rectifier()
        self._earlier = EarlierViews()
        self._size: tuple[int, int] | None = None  # of the newest image read
        self._predicted: Prediction | None = None  # the newest

    def handle(self, frame: Frame, p: Parameters) -> None:
        """Forecast from one frame."""
        node, faults = self._tools.node, self._tools.faults
        try:
            self._forecast(frame, p)
        except InputFault as fault:
            faults.report(fault.place, str(fault))
        except (DeviceError, ValueError) as error:
            faults.report("forecast", str(error))
        except Exception as error:  # noqa: BLE001 (the node goes on)
            # A context that was shut down meanwhile cannot publish: that is the end, not a fault.
            if node.context.ok() and faults.report("forecast", f"{type(error).__name__}: {error}"):
                node.get_logger().error(traceback.format_exc())

    def answer(self, question: PendingRequest, inputs: Inputs, p: Parameters) -> None:
        """Forecast along candidate paths."""
        try:
            question.answer(self._answer(question.request, inputs, p))
        except (DeviceError, ValueError) as error:
            question.refuse(str(error))
        except Exception as error:  # noqa: BLE001 (the node goes on)
            if self._tools.node.context.ok():
                self._tools.node.get_logger().error(traceback.format_exc())
                question.refuse(f"{type(error).__name__}: {error}")

    def _forecast(self, frame: Frame, p: Parameters) -> None:
        tools, out = self._tools, self._tools.outputs
        source = self._read(frame, p)
        near = surroundings(frame.inputs, tools.frames, p)
        path = self._camera_path(frame.inputs, near, source, p)
        if not out.wanted():
            tools.statistics.frame_skipped()
            return
        result = self._result(source, near, path, self._measured(frame, source, near, p), p)
        self._predicted = Prediction(frame, source, result.scene)
        if frame.inputs.outdated:
            return
        try:
            publish(result, out, p)
            tools.faults.clear("occupancy")
        except OccupancyError as error:
            tools.faults.report("occupancy", str(error))
        tools.statistics.frame_published(frame.received_at, source.stamp_ns)
        tools.faults.clear("forecast")

    def _result(
        self, source: Source, near: EgoState, path: CameraPath, measured: Measurements, p: Parameters
    ) -> Result:
        """Predict, and render as much as somebody subscribes to."""
        out, forecaster = self._tools.outputs, self._tools.forecaster
        size, i = p.size_of(source.size), p.selected
        K = source.camera.K
        if has_subscribers(out.sequence):
            forecast = forecaster.forecast(
                source.rgb, K, path, p.times, num_samples=p.num_samples, seed=p.seed, size=size, **measured
            )
            selected = SelectedFrame(forecast.frames[:, i], forecast.depth[0, i])
            return Result(source, near, path, forecast.scene, forecast, selected)
        samples = p.num_samples if has_subscribers(out.uncertainty) else 1
        scene = forecaster.predict(source.rgb, K, num_samples=samples, seed=p.seed, speed=path.speed(), **measured)
        if not has_subscribers(out.image, out.jpeg, out.depth, out.uncertainty):
            return Result(source, near, path, scene, None, None)
        pose, instant = path.poses[i : i + 1], p.times[i : i + 1]
        views = [forecaster.views(scene.sample(k), pose, instant, size=size) for k in range(samples)]
        selected = SelectedFrame(np.concatenate([v.frames for v in views]), views[0].depth[0])
        return Result(source, near, path, scene, None, selected)

    def _answer(self, request: Any, inputs: Inputs, p: Parameters) -> list[Any]:
        """One TrajectoryForecast per path. Raises ValueError and DeviceError for what cannot be answered."""
        frame, source, scene = self._asked_about(request, inputs, p)
        near = surroundings(inputs, self._tools.frames, p)
        now = self._tools.node.get_clock().now().nanoseconds
        poses = candidate_paths(request.trajectories, near, source, now, p)
        if scene is None:
            measured = Measurements() if frame is None else self._measured(frame, source, near, p)
            # Candidates start alike, from the speed that the vehicle has.
            speed = CameraPath(p.times, poses[0]).speed()
            scene = self._tools.forecaster.predict(
                source.rgb, source.camera.K, num_samples=1, seed=p.seed, speed=speed, **measured
            )
            if frame is not None:
                self._predicted = Prediction(frame, source, scene)
        mounting = near.camera_in_base(source.header.frame_id, source.stamp_ns)
        footprint = requested_footprint(request, p.vehicle_footprint)
        return forecast_candidates(
            self._tools.forecaster, scene, source, poses, mounting, p, request.with_images, footprint
        )

    def _asked_about(
        self, request: Any, inputs: Inputs, p: Parameters
    ) -> tuple[Frame | None, Source, DynamicGaussians | None]:
        """The request's image, or the newest frame; what was predicted from that one need not be once more."""
        if len(request.image.data):
            given = CalibrationSource(request.camera_info, "the request's camera_info")
            return None, read_source(request.image, given, self._rectifier, p.rectify), None
        frame, known = inputs.frame, self._predicted
        if frame is None:
            topic = self._tools.node.resolve_topic_name("image")
            raise InputFault("image", f"no image yet on {topic}: send one in `image`")
        if known is not None and known.frame is frame:
            return frame, known.source, known.scene.sample(0)
        return frame, self._source(frame, p), None

    def _source(self, frame: Frame, p: Parameters) -> Source:
        """Decode an image and match it with its calibration. Raises InputFault."""
        calibration = CalibrationSource(frame.inputs.info, self._tools.node.resolve_topic_name("camera_info"))
        return read_source(frame.message, calibration, self._rectifier, p.rectify)

    def _read(self, frame: Frame, p: Parameters) -> Source:
        """The source, and what it says about the inputs."""
        source = self._source(frame, p)
        self._tools.faults.clear("image", "camera_info")
        self._tools.statistics.calibration = describe(source)
        if self._size not in (None, source.size):
            self._tools.node.get_logger().warning(f"image size changed from {self._size} to {source.size}")
        self._size = source.size
        return source

    def _measured(self, frame: Frame, source: Source, near: EgoState, p: Parameters) -> Measurements:
        """The image's depth, else that from motion if it is wanted, and likewise what moved since an earlier image."""
        statistics, past = self._tools.statistics, None
        if p.depth_from_motion or p.motion_from_flow:
            past = self._earlier.past(source, near, frame.inputs)
        depth, how = self._sensor_depth(frame, source, p), ""
        before = past.for_depth() if depth is None and past is not None and p.depth_from_motion else None
        if before is not None:
            depth = depth_from_motion(self._tools.forecaster, source.rgb, source.camera.K, before)
            how = ", from motion"
        earlier = past.for_motion() if past is not None and p.motion_from_flow else None
        share = 0.0 if depth is None else (depth > 0).mean()
        statistics.depth = "none" if depth is None else f"known of {share:.0%} of the pixels{how}"
        statistics.objects = FROM_ONE_IMAGE if earlier is None else f"and by the flow of {earlier.seconds:.2f} s"
        return Measurements(depth=depth, reference=earlier)

    def _sensor_depth(self, frame: Frame, source: Source, p: Parameters) -> Depth | None:
        """The depth that came with the image; None, and where something is wrong a fault, when there is none to use."""
        end = time.monotonic() + (p.depth_wait if frame.inputs.depths else 0.0)
        try:
            while (depth := depth_of(source, frame.inputs.depths, p.depth_tolerance)) is None:
                if time.monotonic() >= end:
                    break
                time.sleep(DEPTH_POLL_S)
            self._tools.faults.clear("depth")
        except InputFault as fault:
            depth = None
            self._tools.faults.report(fault.place, str(fault))
        return depth

    def _camera_path(self, inputs: Inputs, near: EgoState, source: Source, p: Parameters) -> CameraPath:
        """Where the camera will be at the forecast times; notes which motion that is."""
        motion = ego_motion(read_plan(inputs), near, source.header.frame_id, source.stamp_ns, p.times)
        self._tools.statistics.moved_by(motion.source, motion.warning)
        if inputs.trajectory is not None and motion.warning:
            self._tools.faults.report("motion", f"{motion.warning}; following {motion.source}")
        else:
            self._tools.faults.clear("motion")
        return motion.path
