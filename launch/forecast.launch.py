# SPDX-License-Identifier: Apache-2.0
"""Starts the forecast node, or one per camera, and if asked a driving log to feed it and RViz to look at it.

ros2 launch pixel4d_ros forecast.launch.py bag:=drive.mcap
ros2 launch pixel4d_ros forecast.launch.py image_topic:=/camera/image_raw camera_info_topic:=/camera/camera_info
ros2 launch pixel4d_ros forecast.launch.py cameras:=front,left odometry_topic:=/odom trajectory_topic:=/plan
ros2 launch pixel4d_ros forecast.launch.py --show-args
"""

from __future__ import annotations

import atexit
import importlib.util
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessIO
from launch.events.process import ProcessExited, ProcessIO
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition

from pixel4d_ros.ros.launch_arguments import ARGUMENTS, TOPICS, completed, misspelled, node_parameters
from pixel4d_ros.ros.shared_memory import set_fastdds_profile

NODE = "forecast_node"
ACTIVE = b"]: active: "  # what the node says then
STOP_TIMEOUT_S = "15"  # to finish a forecast after Ctrl-C: launch's own 5 s are short on a busy CPU


def arguments() -> list[DeclareLaunchArgument]:
    """The launch arguments, as ros/launch_arguments.py lists them."""
    return [
        DeclareLaunchArgument(a.name, default_value=a.default, description=a.description, choices=a.choices or None)
        for a in ARGUMENTS
    ]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    return LaunchDescription([*arguments(), OpaqueFunction(function=_actions)])


def _actions(context: LaunchContext) -> list[Action]:
    """What is started, once the arguments have their values. Raises ValueError for arguments that cannot work."""
    set_fastdds_profile()  # for the player of a log too
    given = {name: LaunchConfiguration(name).perform(context) for name in (a.name for a in arguments())}
    values, lines = completed(given)
    lines = [*misspelled(context.launch_configurations), *lines]
    sim_time = values["use_sim_time"] == "true" or bool(values["bag"])
    rviz = _rviz(values, sim_time) if values["rviz"] == "true" else []  # refused before anything is started
    cameras = [values | {"namespace": namespace} for namespace in _namespaces(values)]
    nodes = [_forecast_node(of_camera, sim_time) for of_camera in cameras]
    actions: list[Action] = [*(LogInfo(msg=line) for line in lines), *nodes, *rviz]
    if values["bag"]:
        actions = [*_player(cameras[0], nodes[0]), *actions]
    return actions


def _rviz(values: dict[str, str], sim_time: bool) -> list[Action]:
    """RViz on the topics of the first camera. Raises ValueError where rviz2 is not installed."""
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        raise ValueError("rviz:=true needs rviz2: sudo apt install ros-jazzy-rviz2, or leave rviz out") from None
    first = values | {"namespace": _namespaces(values)[0]}
    missing = "RViz does without the source image: it needs compressed_image_transport for that"
    notes: list[Action] = [] if _rviz_shows(values["image_topic"]) else [LogInfo(msg=missing)]
    options = {"arguments": ["-d", str(_rviz_config(first))], "parameters": [{"use_sim_time": sim_time}]}
    return [*notes, Node(package="rviz2", executable="rviz2", **options)]


def _namespaces(values: dict[str, str]) -> list[str]:
    """The namespace of each node: one per camera, below that of the launch."""
    names = [name.strip() for name in values["cameras"].split(",") if name.strip()]
    if len(set(names)) < len(names):
        raise ValueError(f"cameras:={values['cameras']} names one twice")
    above = values["namespace"].strip("/")
    return [f"{above}/{name}".lstrip("/") for name in names] or [values["namespace"]]


def _forecast_node(values: dict[str, str], sim_time: bool) -> LifecycleNode:
    overrides = {"use_sim_time": sim_time, "autostart": values["autostart"] == "true", **node_parameters(values)}
    default = Path(get_package_share_directory("pixel4d_ros")) / "config" / "forecast.yaml"
    return LifecycleNode(
        package="pixel4d_ros",
        executable=NODE,
        name=NODE,
        namespace=values["namespace"],
        parameters=[values["params_file"] or str(default), str(_parameter_file(values["namespace"], overrides))],
        remappings=[(topic, values[f"{topic}_topic"]) for topic in TOPICS],
        arguments=["--ros-args", "--log-level", _log_level(values)],
        respawn=values["respawn"] == "true",
        respawn_delay=2.0,
        # A player without the node would wait for it for minutes. Other cameras' nodes go on.
        on_exit=_end_launch if (values["bag"] or not values["cameras"]) and values["respawn"] == "false" else None,
        sigterm_timeout=STOP_TIMEOUT_S,
        output="screen",
        emulate_tty=True,
    )


def _parameter_file(namespace: str, values: dict[str, Any]) -> Path:
    """A file of parameters for the node in a namespace, until the launch has ended. launch_ros would leave its own."""
    node = "/".join(["", *filter(None, namespace.split("/")), NODE])
    return _temporary(yaml.safe_dump({node: {"ros__parameters": values}}), ".yaml")


def _temporary(text: str, suffix: str) -> Path:
    """A file that is removed when the launch has ended."""
    with tempfile.NamedTemporaryFile("w", prefix="forecast_", suffix=suffix, delete=False) as file:
        file.write(text)
    path = Path(file.name)
    atexit.register(path.unlink, missing_ok=True)
    return path


def _log_level(values: dict[str, str]) -> str:
    """The level, for debug that of the node's own logger: the middleware's thousands of lines would hide its lines."""
    if values["log_level"] != "debug":
        return values["log_level"]
    return ".".join([*values["namespace"].strip("/").split("/"), NODE]).lstrip(".") + ":=debug"


def _end_launch(event: ProcessExited, context: LaunchContext) -> list[Action]:
    """End what is left, unless Ctrl-C does so already. If the node failed, the launch fails: its exit code is 1."""
    if context.is_shutdown:
        return []
    if event.returncode > 0:
        raise RuntimeError(f"the forecast node failed (exit code {event.returncode}): its last lines say why")
    return [Shutdown(reason="the forecast node has ended")]


def _player(values: dict[str, str], node: LifecycleNode) -> list[Action]:
    """What plays the log: `ros2 bag play`, or the package's own where that is absent or the log of ROS 1.

    Loading the weights takes seconds, and both wait for it, so that the node misses none of the images.
    """
    bag, options = values["bag"], ["--clock", "--rate", values["bag_rate"]]
    if shutil.which("ros2") and importlib.util.find_spec("ros2bag") and not bag.endswith(".bag"):
        quality = str(Path(get_package_share_directory("pixel4d_ros")) / "config" / "bag_qos.yaml")
        play = ["ros2", "bag", "play", bag, *options, "--qos-profile-overrides-path", quality]
        return _once_active(node, _playing(play, bag))
    replay = str(Path(get_package_prefix("pixel4d_ros")) / "lib" / "pixel4d_ros" / "replay")
    topic = [values["image_topic"]] if values["image_topic"].startswith("/") else []
    wait = ["--wait-timeout", "600", "--wait-for-subscribers", *topic]
    return [_playing([replay, bag, *options, *wait], bag)]


def _playing(command: list[str], bag: str) -> ExecuteProcess:
    """The player, at whose end a line says what goes on: without it the console falls silent."""
    line = f"the bag {bag} has ended; the node stays active and says how many images and forecasts there were;"

    def ended(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if context.is_shutdown or event.returncode:
            return []
        return [LogInfo(msg=f"{line} Ctrl-C ends the launch")]

    return ExecuteProcess(cmd=command, name="player", output="screen", on_exit=ended)


def _once_active(node: LifecycleNode, action: Action) -> list[Action]:
    """Start the action when the node is active: by its event, or by its own words, as now and then DDS loses the event.

    The words are said from log_level info on.
    """
    waiting = [action]

    def start(*_: Any) -> list[Action]:
        return [waiting.pop()] if waiting else []

    def read(event: ProcessIO) -> list[Action]:
        return start() if ACTIVE in event.text else []

    by_event = OnStateTransition(
        target_lifecycle_node=node, goal_state="active", entities=[OpaqueFunction(function=start)]
    )
    by_words = OnProcessIO(target_action=node, on_stdout=read, on_stderr=read)
    return [RegisterEventHandler(by_event), RegisterEventHandler(by_words)]


def _rviz_config(values: dict[str, str]) -> Path:
    """A copy of config/forecast.rviz that names the topics of this launch."""
    text = (Path(get_package_share_directory("pixel4d_ros")) / "config" / "forecast.rviz").read_text()
    namespace = "/" + values["namespace"].strip("/") if values["namespace"].strip("/") else ""
    for topic in ("image", "trajectory"):
        name = values[f"{topic}_topic"]
        text = text.replace(f"Value: /{topic}\n", f"Value: {name if name.startswith('/') else f'{namespace}/{name}'}\n")
    text = text.replace(f"Value: /{NODE}/", f"Value: {namespace}/{NODE}/")
    if not _rviz_shows(values["image_topic"]):
        text = re.sub(r"    - Class: \S+\n      Name: Source image\n(?:      .*\n)+", "", text)
    return _temporary(text, ".rviz")


def _rviz_shows(image_topic: str) -> bool:
    """Whether RViz can show these images. Asked for others it loads nothing of its configuration: an empty window."""
    if not image_topic.endswith("/compressed"):
        return True
    try:
        get_package_prefix("compressed_image_transport")
    except PackageNotFoundError:
        return False
    return True
