# SPDX-License-Identifier: Apache-2.0
"""Arguments of launch/forecast.launch.py, and their values from a bag. Needs neither launch nor rclpy.

`python -m pixel4d_ros.ros.launch_arguments` prints the table of docs/ros.md.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixel4d_ros.logs.reader import LogError, LogReader, Topic
from pixel4d_ros.logs.streams import COMPRESSED_IMAGE, Streams, is_picture, pick_streams

if TYPE_CHECKING:
    from pixel4d_ros.geometry.rotations import FloatArray
    from pixel4d_ros.logs.pose_track import PoseTrack

FIRST_S = 60.0  # of a bag, in which the mounting is looked for first: bags of hours are read in no time
SWITCH = ("true", "false")
OPTIONAL_SWITCH = ("", "true", "false")
TRANSPORT = ("", "raw", "compressed")


@dataclass(frozen=True)
class Argument:
    """One launch argument. parameter: the node's parameter that it sets, where it is not empty."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()
    parameter: str = ""


ARGUMENTS = (
    Argument("bag", "", "A log to play, with /clock, once the node is active. Fills the arguments left empty."),
    Argument("bag_rate", "1.0", "Speed of the log. 1.0 is real time."),
    Argument("camera", "", "Camera of the bag: an image topic or its namespace. Empty: the most plausible."),
    Argument("image_topic", "", "Camera images; with compressed ones the full name. Empty: image, or the bag's."),
    Argument("camera_info_topic", "", "Calibration of the camera. Empty: camera_info, or the bag's."),
    Argument("trajectory_topic", "", "The planned path. Empty: trajectory, or the bag's."),
    Argument("odometry_topic", "", "Pose and velocity of the vehicle. Empty: odometry, or the bag's."),
    Argument("depth_topic", "", "Depth registered to the images (optional). Empty: depth, or the bag's."),
    Argument("image_transport", "", "Type of the images.", TRANSPORT, "image_transport"),
    Argument("depth_transport", "", "Type of the depth images.", TRANSPORT, "depth.transport"),
    Argument("trajectory_type", "", "Message type of the trajectory, as nav_msgs/Path.", (), "trajectory_type"),
    Argument(
        "rectify",
        "",
        "true: undistort images with K and D; false: they are rectified, P is used.",
        OPTIONAL_SWITCH,
        "rectify",
    ),
    Argument("base_frame", "", "Frame whose poses the trajectory gives.", (), "base_frame"),
    Argument("mounting_translation", "", "Camera in base_frame, as [x, y, z] in metres.", (), "mounting.translation"),
    Argument("mounting_rotation", "", "Optical frame in base_frame, as [x, y, z, w].", (), "mounting.rotation"),
    Argument(
        "reference",
        "",
        "Object motion from two images (default: on).",
        OPTIONAL_SWITCH,
        "reference.enabled",
    ),
    Argument("motion_from_flow", "", "Deprecated: use reference.", OPTIONAL_SWITCH, "motion.from_flow"),
    Argument("weights", "", "Weights file (.safetensors).", (), "weights"),
    Argument("device", "", "auto, cpu, cuda or cuda:N.", (), "device"),
    Argument("namespace", "", "Namespace of the node and its topics."),
    Argument("cameras", "", "Names, as front,left: one node each, in namespaces of these names."),
    Argument("params_file", "", "YAML file with the node's parameters. Empty: config/forecast.yaml."),
    Argument("use_sim_time", "false", "Take the time from /clock. Always true with a bag.", SWITCH),
    Argument("autostart", "true", "Configure and activate at the start.", SWITCH),
    Argument("respawn", "false", "Start the node again when it dies.", SWITCH),
    Argument("log_level", "info", "debug, info, warn, error, or logger:=level."),
    Argument("rviz", "false", "Open RViz with config/forecast.rviz.", SWITCH),
)
TOPICS = ("image", "camera_info", "trajectory", "odometry", "depth")


@dataclass(frozen=True)
class BagInputs:
    """What a log says: values of launch arguments, and in words what each of them is."""

    values: dict[str, str]
    notes: dict[str, str]  # by argument
    cameras: tuple[str, ...]  # image topics besides the chosen one


def from_bag(path: str | Path, camera: str = "") -> BagInputs:
    """Topics, transports, base frame and mounting of a log, and whether its images are rectified.

    Raises LogError if the log does not exist, has no images, or cannot be read.
    """
    with LogReader(path) as log:
        streams = pick_streams(log, camera or None)
        topics = {
            "image": streams.image,
            "camera_info": streams.camera_info,
            "odometry": streams.odometry,
            "trajectory": streams.path,
            "depth": streams.depth,
        }
        found = {f"{name}_topic": topic.name for name, topic in topics.items() if topic is not None}
        notes = {f"{name}_topic": _described(topic) for name, topic in topics.items() if topic is not None}
        found["image_transport"] = _transport(streams.image)
        if streams.depth is not None:
            found["depth_transport"] = _transport(streams.depth)
        found["rectify"] = str(not _is_rectified(log, streams)).lower()
        others = sorted(
            t.name for t in log.topics.values() if t.count and is_picture(t) and t.name != streams.image.name
        )
        frame = next(log.messages([streams.image.name])).message.header.frame_id.strip("/")
        notes["image_topic"] += f", frame {frame or 'without a name'}"
        frames, note = _frames(log, streams, frame)
        return BagInputs(found | frames, notes | note, tuple(others))


def _described(topic: Topic) -> str:
    return f"{topic.type.replace('/msg/', '/')}, {topic.count} messages"


def _transport(topic: Topic) -> str:
    return "compressed" if topic.type == COMPRESSED_IMAGE else "raw"


def _is_rectified(log: LogReader, streams: Streams) -> bool:
    """Whether the images are rectified already, by the topic's name or by what their CameraInfo says."""
    from pixel4d_ros.geometry.camera_info import is_rectified_topic
    from pixel4d_ros.logs.calibration import read_image_camera

    try:
        return read_image_camera(log, streams.image, streams.camera_info).rectified
    except LogError:
        return is_rectified_topic(streams.image.name)


def _frames(log: LogReader, streams: Streams, frame: str) -> tuple[dict[str, str], dict[str, str]]:
    """Base frame and mounting, if odometry or tf of the log connect them with the camera; and notes."""
    from pixel4d_ros.geometry.rotations import xyzw_from_matrix

    try:
        track, mounting, assumed = _camera_track(log, streams, frame, FIRST_S)
        if streams.odometry is None and _stands(track):  # which frame is the vehicle's, tf tells when it drives
            assumed = ["not found yet"]
    except LogError:
        assumed = ["not found yet"]
    try:
        if assumed:  # what the log's start leaves open, its rest may tell
            track, mounting, assumed = _camera_track(log, streams, frame)
    except LogError as error:  # the node works without poses: its camera stands
        return {}, {"mounting": f"the parameters' own, as the log does not give it: {error}"}
    found = {
        "base_frame": track.child,
        "mounting_translation": _list(mounting[:3, 3]),
        "mounting_rotation": _list(xyzw_from_matrix(mounting[:3, :3])),
    }
    notes = {"mounting_rotation": "; ".join(assumed)} if assumed else {}
    return found, {"base_frame": f"its poses are in {track.parent}"} | notes


def _stands(track: PoseTrack) -> bool:
    """Whether the vehicle stands throughout."""
    import numpy as np

    first, last = track.stamps[0], track.stamps[-1]
    start, middle, end = track.at(np.array([first, (first + last) // 2, last]))
    return bool(np.allclose(start, middle, atol=1e-3) and np.allclose(start, end, atol=1e-3))


def _camera_track(
    log: LogReader, streams: Streams, frame: str, first_s: float | None = None
) -> tuple[PoseTrack, FloatArray, list[str]]:
    """Frames.camera_track of a log or of its start, and what it warns of. Raises LogError."""
    from pixel4d_ros.logs.transforms import read_frames

    with warnings.catch_warnings(record=True) as assumed:
        warnings.simplefilter("always")
        track, mounting = read_frames(log, streams, first_s).camera_track(frame)
    return track, mounting, [str(warning.message) for warning in assumed]


def _list(values: Any) -> str:
    return json.dumps([round(float(value), 9) for value in values])


def completed(values: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """The values completed from the bag, and lines about them. Explicit values are kept.

    Raises ValueError, including LogError, for an unusable bag or params_file.
    """
    lines: list[str] = []
    check_rate(values["bag_rate"])
    if values["params_file"] and not Path(values["params_file"]).is_file():
        raise ValueError(f"params_file:={values['params_file']}: there is no such file")
    if values["bag"]:
        found = from_bag(values["bag"], values["camera"])
        taken = {name: value for name, value in found.values.items() if not values[name]}
        values = values | taken
        lines = [f"bag {values['bag']}: taken from it are", *_taken(taken, found.notes)]
        if found.cameras:
            lines.append(f"  other cameras: {', '.join(found.cameras)} (choose with camera:=)")
        if not values["camera_info_topic"]:
            lines.append("  no CameraInfo: there is no forecast without one; name a topic with camera_info_topic:=")
        if not values["trajectory_topic"]:
            lines.append("  no plan: the camera moves on with the velocity of odometry")
        if not values["odometry_topic"]:
            lines.append("  no odometry: without a plan the camera stands")
    topics = {f"{name}_topic": values[f"{name}_topic"] or name for name in TOPICS}
    return values | topics, lines


def check_rate(text: str) -> None:
    """Raise ValueError for a bag_rate that is no positive number."""
    try:
        if 0 < float(text) < float("inf"):
            return
    except ValueError:
        pass
    raise ValueError(f"bag_rate:={text} must be a positive number, 1.0 is real time")


def misspelled(given: Iterable[str]) -> list[str]:
    """A line for each launch configuration that is no argument but almost one: `ros2 launch` ignores unknown ones.

    Others may be those of a launch file that includes this one.
    """
    known = [argument.name for argument in ARGUMENTS]
    near = {name: get_close_matches(name, known, 1, 0.8) for name in given if name not in known}
    return [
        f"{name}:= is no argument and has no effect: is {found[0]}:= meant?" for name, found in near.items() if found
    ]


def _taken(taken: dict[str, str], notes: dict[str, str]) -> list[str]:
    lines = [f"  {name}:={value}" + (f" ({notes[name]})" if name in notes else "") for name, value in taken.items()]
    return lines + [f"  mounting: {notes['mounting']}" for _ in notes.keys() & {"mounting"}]


def node_parameters(values: dict[str, str]) -> dict[str, Any]:
    """The node's parameters that the arguments set; texts such as true and [1, 2] become values."""
    set_ones = {a.parameter: values[a.name] for a in ARGUMENTS if a.parameter and values[a.name]}
    return {name: _value(name, text) for name, text in set_ones.items()}


def _value(name: str, text: str) -> Any:
    if text in SWITCH:
        return text == "true"
    if not text.startswith("["):
        return text
    try:
        return [float(value) for value in json.loads(text)]
    except (ValueError, TypeError):
        raise ValueError(f"{name} must be a list of numbers as [1.0, 0.0, 0.5], got {text}") from None


def to_markdown() -> str:
    """The table of docs/ros.md."""
    rows = [f"| `{a.name}` | {f'`{a.default}`' if a.default else ''} | {a.description} |" for a in ARGUMENTS]
    return "\n".join(["| argument | default | meaning |", "|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    print(to_markdown(), end="")
