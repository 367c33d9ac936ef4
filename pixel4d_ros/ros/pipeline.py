# SPDX-License-Identifier: Apache-2.0
"""The worker thread's work: publish forecasts of images, respond to service requests."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from threading import Event
from typing import Any, TypedDict

import numpy as np
from rclpy.lifecycle import LifecycleNode

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.forecaster import DeviceError
from pixel4d_ros.geometry.camera_info import is_rectified_topic
from pixel4d_ros.geometry.rectification import Rectifier
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.logs.images import picture_doubt
from pixel4d_ros.ros.diagnostics import NO_IMAGE, NO_ODOMETRY, OFF, Faults, Statistics
from pixel4d_ros.ros.inputs import (
    INFO_WAIT_S,
    CalibrationSource,
    Depth,
    ImageMessage,
    InputFault,
    Inputs,
    Source,
    describe,
    ego_state,
    read_depth,
    read_plan,
    read_source,
)
from pixel4d_ros.ros.messages.closest import requested_footprint
from pixel4d_ros.ros.object_tracks import ObjectTracks, TrackedScene
from pixel4d_ros.ros.parameters import Parameters
from pixel4d_ros.ros.pose_check import PoseCheck
from pixel4d_ros.ros.publishing import OccupancyError, Result, SelectedFrame, publish
from pixel4d_ros.ros.reference_budget import ReferenceBudget
from pixel4d_ros.ros.reference_candidates import ImageHistory, ReferenceCandidates
from pixel4d_ros.ros.services import PendingRequest, candidate_paths, forecast_candidates, path_distances
from pixel4d_ros.ros.standby import Standby
from pixel4d_ros.ros.topics import Publishers, has_subscribers
from pixel4d_ros.ros.trajectory import ego_motion
from pixel4d_ros.ros.transforms import EgoState, TransformSource
from pixel4d_ros.scene import DynamicGaussians
from pixel4d_ros.two_view.moving_probability import moving_count
from pixel4d_ros.two_view.reference_view import ReferenceView

NOT_ACTIVE = "the node is not active: activate it first"
OUTPUT_FAULTS = ("forecast", "occupancy")  # places whose faults require subscribers
CANDIDATES_AT_ONCE = {"cpu": 4, "cuda": 16}  # paths rendered between two checks for deactivation


@dataclass
class PipelineContext:
    """Objects that a pipeline uses; some are shared with the executor's thread."""

    node: LifecycleNode
    forecaster: Any
    outputs: Publishers
    transforms: TransformSource
    faults: Faults
    statistics: Statistics


class Measurements(TypedDict, total=False):
    """Optional inputs of Forecaster.predict besides the image."""

    depth: Depth | None
    reference: ReferenceView | None
    measure_motion: bool


@dataclass(frozen=True)
class Prediction:
    """The scene predicted from an image message, and its tracked objects."""

    image: ImageMessage
    source: Source
    tracked: TrackedScene


class CancelledError(Exception):
    """The node is being deactivated."""


class ForecastPipeline:
    """Processes one image or request at a time. Errors are reported; processing continues."""

    def __init__(self, context: PipelineContext) -> None:
        self._context = context
        self._logger = context.node.get_logger()
        self._rectifier = Rectifier()
        self._history, self._check = ImageHistory(), PoseCheck(context.forecaster.predict)
        self._budget = ReferenceBudget()
        self._tracks = ObjectTracks()
        self._standby = Standby(context.node, context.statistics)
        self._cancelled = Event()
        self._size: tuple[int, int] | None = None  # of the newest decoded image
        self._predicted: Prediction | None = None  # the newest

    def cancel(self) -> None:
        """Reject the current request as soon as possible. Called from another thread."""
        self._cancelled.set()

    def handle(self, image: ImageMessage | None, p: Parameters) -> None:
        """Forecast from one image; None: from the one that was skipped for lack of a subscriber, once there is one."""
        node, faults = self._context.node, self._context.faults
        try:
            image = image or self._standby.due(self._context.outputs.has_subscribers())
            if image is not None:
                self._forecast(image, p)
        except InputFault as fault:
            faults.report(fault.place, str(fault))
        except (DeviceError, ValueError) as error:
            faults.report("forecast", str(error))
        except Exception as error:  # noqa: BLE001 (the node continues)
            # After a shutdown of the context publishing fails: not a fault.
            if node.context.ok() and faults.report("forecast", f"{type(error).__name__}: {error}"):
                self._logger.error(traceback.format_exc())

    def respond(self, pending: PendingRequest, inputs: Inputs, p: Parameters) -> None:
        """Forecast along the paths of a request."""
        began = time.monotonic()
        try:
            pending.respond(*self._candidate_forecasts(pending.request, inputs, p))
        except CancelledError:
            pending.reject(NOT_ACTIVE)
        except (DeviceError, ValueError) as error:
            pending.reject(str(error))
        except Exception as error:  # noqa: BLE001 (the node continues)
            if self._context.node.context.ok():
                self._logger.error(traceback.format_exc())
                pending.reject(f"{type(error).__name__}: {error}")
        paths = len(pending.request.trajectories)
        self._logger.debug(f"request with {paths} paths served in {time.monotonic() - began:.3f} s")

    def _forecast(self, image: ImageMessage, p: Parameters) -> None:
        context, out = self._context, self._context.outputs
        source = self._read(image, p)
        ego = ego_state(image.inputs, context.transforms, p)
        path = self._camera_path(image.inputs, ego, source, p)
        if not out.has_subscribers():
            context.faults.clear(*OUTPUT_FAULTS)
            self._standby.skip(image)
            self._logger.debug("not computed: no subscribers")
            return
        self._standby.forget()
        self._logger.info("computing the first forecast: on a CPU this takes seconds", once=True)
        began = time.monotonic()
        result = self._result(image, source, ego, path, p)
        self._predicted = Prediction(image, source, TrackedScene(result.scene, result.tracked))
        self._note_seconds(source, time.monotonic() - began)
        if image.inputs.outdated:
            context.statistics.frame_dropped()
            self._logger.debug("not published: time jumped back meanwhile")
            return
        try:
            publish(result, out, p)
            context.faults.clear("occupancy")
        except OccupancyError as error:
            context.faults.report("occupancy", str(error))
        context.statistics.frame_published(image.received_at, source.stamp_ns)
        context.faults.clear("forecast")
        self._context.faults.note("poses", self._check.doubt(image.inputs, source, ego, p.depth_tolerance))
        seconds = time.monotonic() - image.received_at
        self._logger.debug(f"image {source.stamp_ns} forecast and published {seconds:.3f} s after reception")
        if context.statistics.published == 1:
            motion = context.statistics.motion
            self._logger.info(f"first forecast after {seconds:.2f} s, along {motion}")

    def _result(self, image: ImageMessage, source: Source, ego: EgoState, path: CameraPath, p: Parameters) -> Result:
        """Predict, track objects, and render what the subscribed outputs need."""
        out, forecaster = self._context.outputs, self._context.forecaster
        size, i = p.size_of(source.size), p.selected
        measured = self._measured(image, source, ego, p)
        samples = p.num_samples if has_subscribers(out.sequence, out.uncertainty) else 1
        predicted = forecaster.predict(
            source.rgb, source.camera.K, num_samples=samples, seed=p.seed, speed=path.speed(), **measured
        )
        self._note_reference(predicted, measured)
        tracked = self._tracks.update(predicted, source, ego, image.inputs)
        scene = tracked.scene
        if has_subscribers(out.sequence):
            forecast = forecaster.forecast_scene(scene, path, p.times, samples, size)
            selected = SelectedFrame(forecast.frames[:, i], forecast.depth[0, i])
            return Result(source, ego, path, scene, forecast, selected, tracked.objects)
        if not has_subscribers(out.image, out.jpeg, out.depth, out.uncertainty):
            return Result(source, ego, path, scene, None, None, tracked.objects)
        pose, instant = path.poses[i : i + 1], p.times[i : i + 1]
        views = [forecaster.views(scene.sample(k), pose, instant, size=size) for k in range(samples)]
        selected = SelectedFrame(np.concatenate([v.frames for v in views]), views[0].depth[0])
        return Result(source, ego, path, scene, None, selected, tracked.objects)

    def _note_reference(self, scene: DynamicGaussians, measured: Measurements) -> None:
        """Record what the comparison with a reference image found, and how long it took."""
        reference = measured["reference"]
        if reference is not None and measured["measure_motion"]:
            baseline = float(np.linalg.norm(reference.T_source_reference[:3, 3]))
            seconds = self._context.forecaster.reference_seconds
            self._context.statistics.reference_used(reference.seconds, baseline, moving_count(scene), seconds)

    def _note_seconds(self, source: Source, seconds: float) -> None:
        """Tell the budget of reference images the seconds of a forecast, if it was compared with one."""
        comparison = self._context.forecaster.reference_seconds
        if comparison:
            self._budget.took(source.stamp_ns * 1e-9, seconds - comparison, comparison)

    def _candidate_forecasts(self, request: Any, inputs: Inputs, p: Parameters) -> tuple[list[Any], str]:
        """One TrajectoryForecast per path, and their doubts. Raises ValueError, DeviceError and CancelledError."""
        image, source = self._requested_source(request, inputs, p)
        ego = ego_state(inputs, self._context.transforms, p)
        now = self._context.node.get_clock().now().nanoseconds
        poses, doubts = candidate_paths(request.trajectories, ego, source, now, p)
        footprint = requested_footprint(request, p.vehicle_footprint)
        tracked = self._candidate_scene(image, source, ego, poses, p)
        mounting = ego.camera_in_base(source.header.frame_id, source.stamp_ns)
        distances = path_distances(tracked, poses, mounting, footprint, p)
        forecaster, found = self._context.forecaster, []
        at_once = CANDIDATES_AT_ONCE["cuda" if str(forecaster.device).startswith("cuda") else "cpu"]
        for first in range(0, len(poses), at_once):
            if self._cancelled.is_set():
                raise CancelledError
            chosen = range(first, min(first + at_once, len(poses)))
            found += forecast_candidates(
                forecaster, tracked.scene, source, poses, chosen, distances, p, request.with_images
            )
        camera = source.header.frame_id
        doubts = [source.doubt, picture_doubt(source.rgb), ego.mounting_fault(camera, source.stamp_ns), *doubts]
        return found, "; ".join(filter(None, doubts))

    def _candidate_scene(
        self, image: ImageMessage | None, source: Source, ego: EgoState, poses: FloatArray, p: Parameters
    ) -> TrackedScene:
        """The scene of a node's image with its tracked objects, or that of the request's own image (None) without."""
        predicted = self._predicted
        if image is not None and predicted is not None and predicted.image.message is image.message:
            return TrackedScene(predicted.tracked.scene.sample(0), predicted.tracked.objects)
        measured = Measurements() if image is None else self._measured(image, source, ego, p)
        began = time.monotonic()
        # All candidates start at the vehicle's current speed.
        speed = CameraPath(p.times, poses[0]).speed()
        scene = self._context.forecaster.predict(
            source.rgb, source.camera.K, num_samples=1, seed=p.seed, speed=speed, **measured
        )
        if image is None:
            return TrackedScene(scene)
        self._note_reference(scene, measured)
        self._note_seconds(source, time.monotonic() - began)
        tracked = self._tracks.update(scene, source, ego, image.inputs)
        self._predicted = Prediction(image, source, tracked)
        return tracked

    def _requested_source(self, request: Any, inputs: Inputs, p: Parameters) -> tuple[ImageMessage | None, Source]:
        """The request's image (None), or the newest one of the node."""
        if len(request.image.data):
            given = CalibrationSource(request.camera_info, "the request's camera_info")
            return None, read_source(request.image, given, self._rectifier, self._rectify(p))
        image, predicted = inputs.image, self._predicted
        if image is None:
            topic = self._context.node.resolve_topic_name("image")
            raise InputFault("image", f"no image yet on {topic}: send one in `image`")
        if predicted is not None and predicted.image.message is image.message:
            return image, predicted.source
        return image, self._source(image, p)

    def _source(self, image: ImageMessage, p: Parameters) -> Source:
        """Decode an image and match it with its calibration. Raises InputFault."""
        topic = self._context.node.resolve_topic_name("camera_info")
        calibration = CalibrationSource(image.inputs.info_of(image.message, INFO_WAIT_S), topic)
        return read_source(image.message, calibration, self._rectifier, self._rectify(p))

    def _rectify(self, p: Parameters) -> bool:
        """Whether images are to be undistorted: not those of a topic that is named as rectified."""
        return p.rectify and not is_rectified_topic(self._context.node.resolve_topic_name("image"))

    def _read(self, image: ImageMessage, p: Parameters) -> Source:
        """Decode the image of a forecast and record its calibration."""
        source = self._source(image, p)
        self._context.faults.clear("image", "camera_info")
        self._context.faults.note("calibration", source.doubt)
        self._context.faults.note("picture", picture_doubt(source.rgb))
        self._context.statistics.calibration = describe(source)
        if self._size not in (None, source.size):
            self._logger.warning(f"image size changed from {self._size} to {source.size}")
        self._size = source.size
        return source

    def _measured(self, image: ImageMessage, source: Source, ego: EgoState, p: Parameters) -> Measurements:
        """Depth from a sensor, and a reference image, depending on parameters and inputs."""
        candidates = self._history.candidates(source, ego, image.inputs) if p.uses_reference else None
        depth = self._sensor_depth(image, source, p)
        reference, measure_motion = self._reference(candidates, source, p)
        described = "none" if depth is None else f"known of {(depth > 0).mean():.0%} of the pixels"
        self._context.statistics.depth = described + ("" if reference is None else ", corrected by a reference image")
        return Measurements(depth=depth, reference=reference, measure_motion=measure_motion)

    def _reference(
        self, candidates: ReferenceCandidates | None, source: Source, p: Parameters
    ) -> tuple[ReferenceView | None, bool]:
        """The reference image, if any, and whether there is time to measure motion with it.

        Where motion is not measured, the diagnostics say why.
        """
        stamp, statistics = source.stamp_ns * 1e-9, self._context.statistics
        self._budget.image(stamp, statistics.received)
        found = None if candidates is None else candidates.reference()
        refusal = "" if found is None else self._budget.refusal(stamp)
        if not p.uses_reference:
            statistics.no_reference(OFF)
        elif found is None:
            statistics.no_reference(NO_ODOMETRY if candidates is None else NO_IMAGE)
        elif refusal:
            statistics.no_reference(refusal)
        return found, not refusal

    def _sensor_depth(self, image: ImageMessage, source: Source, p: Parameters) -> Depth | None:
        """The image's depth message as an array; None if there is none, or it is unusable (reported as a fault)."""
        message, missed = image.inputs.depth_of(source.stamp_ns, p.depth_tolerance, p.depth_wait)
        try:
            depth = None if message is None else read_depth(message, source, image.inputs.depths.is_rectified)
            self._context.faults.note("depth", missed)
        except InputFault as fault:
            depth = None
            self._context.faults.report(fault.place, str(fault))
        return depth

    def _camera_path(self, inputs: Inputs, ego: EgoState, source: Source, p: Parameters) -> CameraPath:
        """The camera path at the forecast times; records the source of the motion."""
        motion = ego_motion(read_plan(inputs), ego, source.header.frame_id, source.stamp_ns, p.times)
        self._context.faults.note("mounting", ego.mounting_fault(source.header.frame_id, source.stamp_ns))
        self._context.statistics.moved_by(motion.source, motion.warning)
        self._logger.debug(f"motion: {motion.source}" + (f" ({motion.warning})" if motion.warning else ""))
        is_fault = inputs.trajectory is not None or motion.source != "standing camera"
        self._context.faults.note("motion", motion.warning if is_fault else "")
        return motion.path
