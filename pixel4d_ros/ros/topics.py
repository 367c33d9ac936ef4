"""The node's topics: quality of service, who listens, and how a forecast becomes messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from pixel4d_ros.camera import Camera
from pixel4d_ros.forecaster import Forecast
from pixel4d_ros.ros.compat import interface
from pixel4d_ros.ros.conversions import camera_info_message, duration_message, image_message, pose_message
from pixel4d_ros.ros.pointcloud import pointcloud_message, thinned
from pixel4d_ros.rotations import FloatArray
from pixel4d_ros.scene import DynamicGaussians

# Images lose nothing by being dropped: only the newest counts.
INPUT_IMAGE = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
INPUT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
TRAJECTORY = QoSProfile(depth=1)  # reliable
# Deep enough for all samples of one forecast, which go out back to back.
OUTPUT = QoSProfile(depth=10)
CLOUD = QoSProfile(depth=1)  # DDS keeps the history in memory, and a cloud takes up to 22 MB


def overridable() -> QoSOverridingOptions:
    """History, depth and reliability can be set by parameters qos_overrides.<topic>.<publisher|subscription>.*"""
    return QoSOverridingOptions.with_default_policies()


def subscribe(node: Node, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> Subscription:
    """A subscription whose quality of service parameters can override."""
    return node.create_subscription(kind, topic, callback, qos, qos_overriding_options=overridable())


class Publishers:
    """The lifecycle publishers of a node. Raises ImportError when the package's messages are not built."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self.sequence = self._create(interface("msg", "ForecastSequence"), "~/forecast")
        self.image = self._create(Image, "~/forecast/image")
        self.cloud = self._create(PointCloud2, "~/gaussians", CLOUD)
        self.moved_cloud = self._create(PointCloud2, "~/gaussians/forecast", CLOUD)

    def _create(self, message_type: type, topic: str, qos: QoSProfile = OUTPUT) -> Any:
        return self._node.create_lifecycle_publisher(message_type, topic, qos, qos_overriding_options=overridable())

    def destroy(self) -> None:
        """Take the topics down."""
        for publisher in (self.sequence, self.image, self.cloud, self.moved_cloud):
            self._node.destroy_lifecycle_publisher(publisher)

    def wanted(self) -> bool:
        """Whether anybody subscribes to anything."""
        return any(map(listened, (self.sequence, self.image, self.cloud, self.moved_cloud)))

    def publish_sequences(self, forecast: Forecast, camera: Camera, header: Header) -> None:
        """One ForecastSequence per sampled future."""
        for k, (frames, confidence) in enumerate(zip(forecast.frames, forecast.confidence)):
            views = CameraViews(camera, forecast.times, forecast.T_source_camera, confidence, frames)
            self.sequence.publish(sequence_message(views, header, k, len(forecast.frames)))

    def publish_image(self, rgb: NDArray[np.uint8], header: Header) -> None:
        """The selected forecast frame."""
        self.image.publish(image_message(rgb, header))

    def publish_clouds(
        self, scene: DynamicGaussians, seconds: float, min_opacity: float, max_points: int, header: Header
    ) -> None:
        """The scene now, and as it will be after some seconds; each only where somebody subscribes."""
        if not (listened(self.cloud) or listened(self.moved_cloud)):
            return
        scene = thinned(scene, min_opacity, max_points)
        if listened(self.cloud):
            self.cloud.publish(pointcloud_message(scene, header))
        if listened(self.moved_cloud):
            self.moved_cloud.publish(pointcloud_message(scene.at(seconds), header))


@dataclass(frozen=True)
class CameraViews:
    """What a ForecastSequence holds: T views along a path."""

    camera: Camera
    times: FloatArray  # (T,) s
    T_source_camera: FloatArray  # (T, 4, 4)
    confidence: NDArray[np.float32]  # (T,)
    frames: Iterable[NDArray[np.uint8]] = ()  # (H, W, 3) each


def sequence_message(views: CameraViews, header: Header, sample_index: int = 0, sample_count: int = 1) -> Any:
    """A ForecastSequence."""
    message = interface("msg", "ForecastSequence")(
        header=header,
        camera_info=camera_info_message(views.camera, header),
        time_from_start=[duration_message(t) for t in views.times],
        camera_poses=[pose_message(T) for T in views.T_source_camera],
        images=[image_message(frame, header) for frame in views.frames],
        sample_index=sample_index,
        sample_count=sample_count,
    )
    message.confidence.frombytes(np.ascontiguousarray(views.confidence, np.float32).tobytes())
    return message


def listened(publisher: Any) -> bool:
    """Whether somebody subscribes."""
    return bool(publisher.get_subscription_count() > 0)
