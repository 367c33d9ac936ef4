# SPDX-License-Identifier: Apache-2.0
"""forecast_node: camera images, calibration, trajectory and odometry in; forecast video and Gaussian clouds out.

Callbacks store the newest message. One worker thread (pipeline.py) takes the newest image, predicts, renders and
publishes; a newer image replaces the waiting one. Lifecycle: configure loads the weights and warms up, activate
subscribes, deactivate frees the GPU; the next activate loads the weights again.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from pixel4d_ros.forecaster import DeviceError, Forecaster, WeightsError
from pixel4d_ros.geometry.camera_info import is_rectified_topic
from pixel4d_ros.ros import diagnostics, parameter_documents, parameters
from pixel4d_ros.ros.guarded_callbacks import guard_services, guarded
from pixel4d_ros.ros.inputs import ImageMessage, Inputs, TrajectoryMessage
from pixel4d_ros.ros.memory import configure_malloc, free_gpu, freeze_gc
from pixel4d_ros.ros.messages.headers import nanoseconds
from pixel4d_ros.ros.pipeline import NOT_ACTIVE, OUTPUT_FAULTS, ForecastPipeline, PipelineContext
from pixel4d_ros.ros.plans import PLAN_READERS, plan_type
from pixel4d_ros.ros.services import CandidatesService, PendingRequest
from pixel4d_ros.ros.shared_memory import set_fastdds_profile
from pixel4d_ros.ros.subscriptions import Input, InputSubscriptions, RemappingError, check_remappings
from pixel4d_ros.ros.topics import INPUT, INPUT_IMAGE, TRAJECTORY, Publishers
from pixel4d_ros.ros.transforms import transform_source
from pixel4d_ros.ros.worker import MAX_REQUESTS, LatestWorker

STAMPS_BACK_NS = 500_000_000  # a larger backward jump of image stamps means that a log starts again


class ForecastNode(LifecycleNode):
    """The lifecycle node. `load(weights, device)` creates the forecaster."""

    def __init__(self, load: Callable[[str | None, str], Any] = Forecaster.load, **options: Any) -> None:
        super().__init__("forecast_node", **options)
        guard_services(self)
        self._load = load
        self.parameters = parameter_documents.declare(self)
        self._warn_of_renamed(parameter_documents.given_names(self))
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)
        self._faults = diagnostics.Faults(self.get_logger().warning, self.get_logger().error)
        self._statistics = diagnostics.Statistics()
        self._transforms = transform_source(self, self._now_ns)
        self._inputs = Inputs()
        self._inputs_subscribed: InputSubscriptions | None = None
        self._forecaster: Any = None
        self._load_configured: Callable[[], Any]
        self._outputs: Publishers | None = None
        self._candidates: CandidatesService | None = None
        self._pipeline: ForecastPipeline | None = None
        self._worker: LatestWorker[ImageMessage, PendingRequest] | None = None
        back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jumps = self.get_clock().create_jump_callback(back, post_callback=lambda _: self._restart("the clock"))
        self._diagnosed_at_ns = 0
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # runs while simulated time is paused
        self.create_timer(self.parameters.diagnostics_period, self._on_timer, clock=steady)

    def create_subscription(self, kind: Any, topic: str, callback: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        """As a Node's; the callback, also rclpy's own of /clock, may raise."""
        return super().create_subscription(kind, topic, guarded(self, topic, callback), *args, **kw)

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights and warm up. A failure is logged in one line; the node can be configured again."""
        try:
            p = self.parameters  # a snapshot: activate uses the values of configure
            self._image_type = CompressedImage if p.image_transport == "compressed" else Image
            self._depth_type = CompressedImage if p.depth_transport == "compressed" else Image
            self._plan_type, self._read_plan = plan_type(p.trajectory_type), PLAN_READERS[p.trajectory_type]
            self._load_configured = partial(self._load, p.weights or None, p.device)
            self._warm_up()
            self._outputs = Publishers(self)
            self._candidates = CandidatesService(self, self._on_request)
            check_remappings(self, self._input_topics())
        except Exception as error:  # noqa: BLE001 (rclpy would swallow it)
            self._free()
            return self._failed("configure", error)
        self._faults.clear()
        self.get_logger().info(f"configured on {self._forecaster.device}, weights {self._forecaster.weights_hash[:12]}")
        return TransitionCallbackReturn.SUCCESS

    def _warm_up(self) -> None:
        from pixel4d_ros.compilation import announced_compilation

        self._forecaster = self._load_configured()
        with announced_compilation(self.get_logger().info):
            self._forecaster.warm_up()

    def _failed(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        """Report why a transition failed; unexpected errors with their traceback."""
        expected = isinstance(error, (WeightsError, DeviceError, ImportError, OSError, RemappingError))
        if self.context.ok():  # else the node is shutting down
            reason = str(error) if expected else "".join(traceback.format_exception(error))
            self._faults.report(transition, reason)
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._outputs is not None
        try:
            if self._forecaster is None:
                self._warm_up()
        except Exception as error:  # noqa: BLE001 (rclpy would swallow it)
            self._forget_forecaster()
            return self._failed("activate", error)
        self._faults.clear("activate")
        self._inputs, self._statistics = Inputs(self._inputs.infos), diagnostics.Statistics()
        context = PipelineContext(
            self, self._forecaster, self._outputs, self._transforms, self._faults, self._statistics
        )
        pipeline = self._pipeline = ForecastPipeline(context)
        self._worker = LatestWorker(
            lambda image: pipeline.handle(image, self.parameters),
            lambda pending: pipeline.respond(pending, self._inputs, self.parameters),
            lambda: pipeline.handle(None, self.parameters),
        )
        self._inputs_subscribed = InputSubscriptions(self, self._input_topics())
        freeze_gc()
        self.get_logger().info("active: " + ", ".join(self._inputs_subscribed.topics))
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._forget_forecaster()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._free()
        return TransitionCallbackReturn.SUCCESS

    on_error = on_shutdown

    def _input_topics(self) -> list[Input]:
        return [
            Input("image", self._image_type, self._on_image, INPUT_IMAGE, required=True),
            Input("camera_info", CameraInfo, self._on_camera_info, INPUT_IMAGE, often_latched=True, required=True),
            Input("trajectory", self._plan_type, self._on_trajectory, TRAJECTORY, often_latched=True),
            Input("odometry", Odometry, self._on_odometry, INPUT),
            Input("depth", self._depth_type, self._on_depth, INPUT),
        ]

    def _stop(self) -> None:
        """Unsubscribe and stop the worker. Waits for the current forecast; a current request is rejected."""
        if self._inputs_subscribed is not None:
            self._inputs_subscribed.destroy()
            self._inputs_subscribed = None
        if self._worker is not None and self._pipeline is not None:
            self._pipeline.cancel()
            for pending in self._worker.stop():
                pending.reject(NOT_ACTIVE)
            self._worker = self._pipeline = None
            self._inputs = Inputs(self._inputs.infos)

    def _forget_forecaster(self) -> None:
        """Free the forecaster's memory. Stop the worker first: its pipeline holds a reference."""
        self._forecaster = None
        free_gpu()

    def _free(self) -> None:
        """Free the forecaster's memory and destroy publishers and service."""
        self._forget_forecaster()
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None
        if self._candidates is not None:
            self._candidates.destroy()
            self._candidates = None

    def destroy_node(self) -> None:
        self._stop()
        super().destroy_node()

    # Callbacks: store, nothing else

    def _now_ns(self) -> int | None:
        """The time that stamps are compared with: the later of clock and newest image stamp. None while unknown.

        The robot's clock may be ahead of this machine's.
        """
        now = self.get_clock().now().nanoseconds
        return max(now, self._inputs.stamp_ns or 0) if now else None

    def _on_image(self, message: Image | CompressedImage) -> None:
        stamp, before = nanoseconds(message.header.stamp), self._inputs.stamp_ns
        if before is not None and stamp < before - STAMPS_BACK_NS and not self.get_clock().ros_time_is_active:
            self._restart("the images' stamps")
        self._inputs.stamp_ns = stamp
        self._faults.note("image stamps", self._inputs.stamps_fault(message, self.get_clock().ros_time_is_active))
        self._faults.note("image frames", self._inputs.frames_fault(message.header.frame_id))
        if self._worker is not None:
            self._inputs.keep_recent(message)
            self._inputs.image = ImageMessage(message, time.monotonic(), self._inputs)
            dropped = self._worker.offer(self._inputs.image)
            self._statistics.frame_received(dropped)
            self.get_logger().debug(f"image {stamp} received" + (", the waiting one is dropped" if dropped else ""))

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._inputs.infos.append(message)

    def _on_trajectory(self, message: Any) -> None:
        self._inputs.trajectory = TrajectoryMessage(message, self.get_clock().now().nanoseconds, self._read_plan)
        self.get_logger().debug("trajectory received")

    def _on_odometry(self, message: Odometry) -> None:
        try:
            self._inputs.odometry.add(message, self._now_ns())
            fault = self._inputs.odometry.fault
        except ValueError as error:
            fault = str(error)
        self._faults.note("odometry", fault)

    def _on_depth(self, message: Image | CompressedImage) -> None:
        self._inputs.depths.add(message, is_rectified_topic(self.resolve_topic_name("depth")))

    def _on_request(self, pending: PendingRequest) -> None:
        if self._worker is None:
            pending.reject(NOT_ACTIVE)
        elif not self._worker.submit(pending):
            pending.reject(f"{MAX_REQUESTS} requests are queued already: retry after their responses")

    def _restart(self, what: str) -> None:
        """Time jumped back: drop all state except the calibration."""
        text = f"{what} jumped back: all state is dropped, with every image that is not published yet"
        self.get_logger().warning(f"{text} (if this repeats, two publishers conflict)", throttle_duration_sec=5.0)
        self._inputs.outdated = True
        self._inputs = Inputs(self._inputs.infos)
        self._transforms.clear()
        self._faults.clear()
        if self._worker is not None and self._worker.clear():
            self._statistics.frame_dropped()

    # Parameters and diagnostics

    def _check_parameters(self, changes: list[rclpy.Parameter]) -> SetParametersResult:
        try:
            changed = parameters.updated(self.parameters, {c.name: c.value for c in changes})
            if {c.name for c in changes} & {"device", "weights"}:
                parameters.check_resources(changed)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take_parameters(self, changes: list[rclpy.Parameter]) -> None:
        self.parameters = parameters.updated(self.parameters, {c.name: c.value for c in changes})
        self._warn_of_renamed(c.name for c in changes)

    def _warn_of_renamed(self, given: Iterable[str]) -> None:
        for warning in parameter_documents.renamed(given):
            self.get_logger().warning(warning)

    def _on_timer(self) -> None:
        if self._inputs_subscribed is not None:
            self._inputs_subscribed.check()
        self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        now, p = self.get_clock().now(), self.parameters
        device = str(getattr(self._forecaster, "device", "none"))
        simulated = bool(self.get_parameter("use_sim_time").value)
        values = {
            "device": device,
            "computed by": getattr(self._forecaster, "path", "nothing"),
            "GPU memory": diagnostics.gpu_memory(device),
            "weights": getattr(self._forecaster, "weights_hash", "not loaded"),
            "clock": diagnostics.simulated_time(simulated, now.nanoseconds, self._diagnosed_at_ns),
        }
        self._diagnosed_at_ns = now.nanoseconds
        subscribed = self._outputs is not None and self._outputs.has_subscribers()
        if not subscribed:
            self._faults.clear(*OUTPUT_FAULTS)
        state, name = self._state_machine.current_state[1], self.get_fully_qualified_name().lstrip("/")
        condition = diagnostics.Condition(
            state, self._statistics, self._faults, p, now.nanoseconds, subscribed, values["clock"]
        )
        status = diagnostics.status(f"{name}: forecast", device, condition, values)
        self._diagnostics.publish(DiagnosticArray(header=Header(stamp=now.to_msg()), status=[status]))


def main(arguments: list[str] | None = None) -> int:
    """Run the node until Ctrl-C or SIGTERM (exit code 0). Exit code 1 and one line if it cannot start."""
    node, initialized = None, False
    configure_malloc()
    set_fastdds_profile()
    try:
        rclpy.init(args=arguments)
        initialized = True
        node = ForecastNode()
        if node.parameters.autostart and not _start(node):
            return int(rclpy.ok())
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError as error:
        stopped = initialized and not rclpy.ok()  # a signal during a transition, whose event cannot be published
        if node is not None and not stopped:
            raise
        if not stopped:  # rejected by rcl: an invalid name, or missing security files
            print(f"forecast_node: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
    except (ParameterException, ValueError) as error:
        print(f"forecast_node: {error}", file=sys.stderr)
        return 1
    finally:
        # Ctrl-C arrives twice under `ros2 launch`: the second must not interrupt the shutdown.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _start(node: ForecastNode) -> bool:
    """Configure and activate. Returns whether both succeeded; main ends the process otherwise."""
    steps = (node.trigger_configure, node.trigger_activate)
    return all(step() == TransitionCallbackReturn.SUCCESS for step in steps)


if __name__ == "__main__":
    sys.exit(main())
