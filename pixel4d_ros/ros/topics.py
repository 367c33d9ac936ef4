# SPDX-License-Identifier: Apache-2.0
"""The node's topics: names, quality of service, subscriber checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nav_msgs.msg import OccupancyGrid
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from pixel4d_ros.ros.compat import interface
from pixel4d_ros.ros.messages.splats import splat_array_type

# Only the newest image counts.
INPUT_IMAGE = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
INPUT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
TRAJECTORY = QoSProfile(depth=1)  # reliable
# Deep enough for all samples of one forecast, published back to back.
OUTPUT = QoSProfile(depth=10)
CLOUD = QoSProfile(depth=1)  # DDS keeps the history in memory, and a cloud takes up to 22 MB
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)


def overridable() -> QoSOverridingOptions:
    """The policies that parameters qos_overrides.<topic>.<publisher|subscription>.* can set."""
    return QoSOverridingOptions(OVERRIDABLE)


def subscribe(node: Node, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> Subscription:
    """A subscription with overridable quality of service."""
    return node.create_subscription(kind, topic, callback, qos, qos_overriding_options=overridable())


def offers_latched(node: Node, topic: str) -> bool:
    """Whether a publisher of the topic is transient local and reliable."""
    latched = (DurabilityPolicy.TRANSIENT_LOCAL, ReliabilityPolicy.RELIABLE)
    offered = node.get_publishers_info_by_topic(node.resolve_topic_name(topic))
    return any((p.qos_profile.durability, p.qos_profile.reliability) == latched for p in offered)


class Publishers:
    """The lifecycle publishers of a node. Raises ImportError if the package's messages are not built."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._all: list[Any] = []
        self.sequence = self._create(interface("msg", "ForecastSequence"), "~/forecast")
        self.image = self._create(Image, "~/forecast/image")
        self.jpeg = self._create(CompressedImage, "~/forecast/image/compressed")
        self.depth = self._create(Image, "~/forecast/depth")
        self.uncertainty = self._create(Image, "~/uncertainty")
        self.cloud = self._create(PointCloud2, "~/gaussians", CLOUD)
        self.moved_cloud = self._create(PointCloud2, "~/gaussians/forecast", CLOUD)
        self.motion = self._create(MarkerArray, "~/motion")
        self.occupancy = self._create(OccupancyGrid, "~/occupancy")
        self.occupancy_forecast = self._create(interface("msg", "OccupancyForecast"), "~/occupancy/forecast", CLOUD)
        self.objects = self._create(interface("msg", "PredictedObjects"), "~/objects")
        # Namespaces as image_transport and depth_image_proc expect them; the last is that of ~/uncertainty.
        self.infos = [
            self._create(CameraInfo, f"{namespace}/camera_info")
            for namespace in ("~/forecast", "~/forecast/depth", "~")
        ]
        splats = splat_array_type()
        self.splats = None if splats is None else self._create(splats, "~/splats", LATCHED)

    def _create(self, message_type: type, topic: str, qos: QoSProfile = OUTPUT) -> Any:
        made = self._node.create_lifecycle_publisher(message_type, topic, qos, qos_overriding_options=overridable())
        self._all.append(made)
        return made

    def destroy(self) -> None:
        """Destroy the publishers."""
        for publisher in self._all:
            self._node.destroy_lifecycle_publisher(publisher)

    def has_subscribers(self) -> bool:
        """Whether any topic has a subscriber."""
        return has_subscribers(*self._all)


def has_subscribers(*publishers: Any) -> bool:
    """Whether any of these has a subscriber."""
    return any(publisher.get_subscription_count() > 0 for publisher in publishers)
