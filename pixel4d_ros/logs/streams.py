# SPDX-License-Identifier: Apache-2.0
"""The topics of a log: camera, calibration, depth, odometry, plan and transforms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pixel4d_ros.logs.reader import LogError, LogReader, Topic

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
ODOMETRY = "nav_msgs/msg/Odometry"
PATH = "nav_msgs/msg/Path"
TF = "tf2_msgs/msg/TFMessage"

# Words in the names of image topics that are not camera pictures.
NOT_PICTURES = ("depth", "disparity", "label", "mask", "semantic", "segmentation", "confidence", "theora", "forecast")
TRANSPORTS = ("compressed", "compressedDepth")


@dataclass(frozen=True)
class Streams:
    """The topics of a log that pixel4d uses; None if the log has none."""

    image: Topic
    camera_info: Topic | None
    depth: Topic | None
    right_image: Topic | None
    right_camera_info: Topic | None
    odometry: Topic | None
    path: Topic | None
    tf: Topic | None
    tf_static: Topic | None

    @property
    def compressed(self) -> bool:
        """Whether the images are sensor_msgs/CompressedImage."""
        return self.image.type == COMPRESSED_IMAGE


def pick_streams(log: LogReader, camera: str | None = None) -> Streams:
    """The streams of a log. Of several cameras the most plausible: with a CameraInfo, left or front, the first by name.

    camera: an image topic or its namespace instead. Raises LogError if there is no such image.
    """
    topics = [topic for topic in log.topics.values() if topic.count]
    pictures = [t for t in topics if is_picture(t)]
    image = _named(log, pictures, camera) if camera else _most_plausible(log, pictures)
    right = next((t for t in pictures if t.name != image.name and t.name == _to_the_right(image.name)), None)
    infos = _of_type(topics, CAMERA_INFO)
    return Streams(
        image=image,
        camera_info=_camera_info(image, infos),
        depth=_depth(image, topics),
        right_image=right,
        right_camera_info=_camera_info(right, infos) if right else None,
        odometry=_preferred(_of_type(topics, ODOMETRY), ("odometry", "odom"), image),
        path=_preferred(_of_type(topics, PATH), ("planned", "plan", "trajectory"), image),
        tf=_preferred([t for t in _of_type(topics, TF) if not t.name.endswith("static")], ("tf",), image),
        tf_static=_preferred([t for t in _of_type(topics, TF) if t.name.endswith("static")], ("tf_static",), image),
    )


def is_picture(topic: Topic) -> bool:
    """Whether a topic holds camera images, not depth, labels or similar."""
    return topic.type in (IMAGE, COMPRESSED_IMAGE) and not any(word in topic.name.lower() for word in NOT_PICTURES)


def base_name(image_topic: str) -> str:
    """The image topic's name without the transport: "/a/image_raw/compressed" -> "/a/image_raw"."""
    parent, _, last = image_topic.rpartition("/")
    return parent if last in TRANSPORTS and parent else image_topic


def namespace(image_topic: str) -> str:
    """The camera's namespace: "/a/image_raw/compressed" -> "/a"."""
    return base_name(image_topic).rpartition("/")[0]


def _of_type(topics: Iterable[Topic], type_name: str) -> list[Topic]:
    return [topic for topic in topics if topic.type == type_name]


def _most_plausible(log: LogReader, pictures: list[Topic]) -> Topic:
    if not pictures:
        others = ", ".join(f"{t.name} ({t.type})" for t in log.topics.values()) or "none"
        raise LogError(
            f"{log.path} holds no camera images (sensor_msgs Image or CompressedImage); its topics are {others}"
        )
    infos = _of_type(log.topics.values(), CAMERA_INFO)

    def badness(topic: Topic) -> tuple[object, ...]:
        name = topic.name.lower()
        return (
            _camera_info(topic, infos) is None,
            any(word in name for word in ("right", "rear", "back", "side", "debug", "infra")),
            not any(word in name for word in ("left", "front")),
            not any(word in name for word in ("color", "rgb", "rect")),
            topic.type != IMAGE,
            topic.name,
        )

    return min(pictures, key=badness)


def _named(log: LogReader, pictures: list[Topic], camera: str) -> Topic:
    name = "/" + camera.strip("/")
    if name in log.topics and log.topics[name].type not in (IMAGE, COMPRESSED_IMAGE):
        raise LogError(
            f"{log.path}: topic {name} has the type {log.topics[name].type}, which is no image type:"
            f" choose one of {', '.join(t.name for t in pictures) or 'no image topics at all'}"
        )
    if name in log.topics:
        return log.topics[name]
    for topic in sorted(pictures, key=lambda t: (t.type != IMAGE, t.name)):
        if name in (base_name(topic.name), namespace(topic.name)):
            return topic
    choice = ", ".join(t.name for t in pictures) or "none"
    raise LogError(f"{log.path} has no camera {camera}: its image topics are {choice}")


def own_camera_info(log: LogReader, image: Topic) -> Topic | None:
    """The CameraInfo beside an image topic or in the nearest parent namespace."""
    return _beside(image, _of_type(log.topics.values(), CAMERA_INFO))


def _beside(image: Topic, infos: list[Topic]) -> Topic | None:
    prefix = base_name(image.name)
    by_name = {info.name: info for info in infos}
    while prefix:
        if prefix + "/camera_info" in by_name:
            return by_name[prefix + "/camera_info"]
        prefix = prefix.rpartition("/")[0]
    return None


def _camera_info(image: Topic, infos: list[Topic]) -> Topic | None:
    """The image's own CameraInfo; else the only one of the log."""
    own, by_name = _beside(image, infos), {info.name: info for info in infos}
    if own is not None:
        return own
    return infos[0] if len(infos) == 1 else by_name.get("/camera_info")


def _depth(image: Topic, topics: list[Topic]) -> Topic | None:
    """Depth in this camera's pixels: in its namespace, or beside it with a name that means registered."""
    own = namespace(image.name) + "/"
    beside = own.rstrip("/").rpartition("/")[0] + "/"
    for topic in sorted(topics, key=lambda t: (t.type != IMAGE, t.name)):
        if topic.type not in (IMAGE, COMPRESSED_IMAGE) or "depth" not in topic.name.lower():
            continue
        registered = "aligned" in topic.name or "registered" in topic.name
        if topic.name.startswith(own) or (registered and topic.name.startswith(beside)):
            return topic
    return None


def _to_the_right(name: str) -> str:
    return name.replace("left", "right").replace("Left", "Right")


def _preferred(topics: list[Topic], words: tuple[str, ...], image: Topic) -> Topic | None:
    """The topic whose name contains the earliest of the words, then the image's robot's, then that of most messages."""

    def rank(topic: Topic) -> tuple[object, ...]:
        held = [i for i, word in enumerate(words) if word in topic.name.lower()]
        same_robot = topic.name.split("/")[1] == image.name.split("/")[1]
        return (held[0] if held else len(words), not same_robot, -topic.count, topic.name)

    return min(topics, key=rank, default=None)
