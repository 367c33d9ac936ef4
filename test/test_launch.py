# SPDX-License-Identifier: Apache-2.0
"""launch/forecast.launch.py, where ROS's launch system is installed: its arguments, and what it starts."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from support.log_samples import entries, write_mcap, write_rosbag1
from support.ros_domain import ros_domain

from pixel4d_ros.ros.launch_arguments import ARGUMENTS

ROOT = Path(__file__).resolve().parent.parent
LAUNCH_FILE = ROOT / "launch" / "forecast.launch.py"
START_S = 150  # on a busy machine

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(
        importlib.util.find_spec("launch_ros") is None,
        reason="needs launch and launch_ros, which only a ROS installation has (ros-jazzy-ros-base), not the wheels",
    ),
]


@pytest.fixture
def launch_file(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The launch file as a module; the nodes that it makes remember what they were `given`."""
    spec = importlib.util.spec_from_file_location("forecast_launch", LAUNCH_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("LifecycleNode", "Node"):
        monkeypatch.setattr(module, name, remembering(getattr(module, name)))
    return module


def remembering(kind: type[Any]) -> type[Any]:
    class Remembering(kind):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.given = given

    return Remembering


def started(launch_file: Any, **values: str) -> list[Any]:
    """The actions that the launch file comes to with these arguments."""
    from launch import LaunchContext

    context = LaunchContext()
    *declared, actions = launch_file.generate_launch_description().entities
    for argument in declared:
        argument.execute(context)
    context.launch_configurations.update(values)
    return actions.execute(context)


def command_of(action: Any) -> list[str]:
    """The words of a process that is not a node."""
    return ["".join(part.text for part in word) for word in action.cmd]


def test_arguments(launch_file):
    from launch.actions import DeclareLaunchArgument

    entities = launch_file.generate_launch_description().entities
    declared = [entity for entity in entities if isinstance(entity, DeclareLaunchArgument)]
    assert [argument.name for argument in declared] == [argument.name for argument in ARGUMENTS]
    assert all(argument.description for argument in declared)


def test_starts_the_node_alone_by_default(launch_file):
    from launch_ros.actions import LifecycleNode

    (node,) = started(launch_file)
    assert isinstance(node, LifecycleNode)


def test_one_node_per_camera_each_in_its_namespace(launch_file):
    nodes = started(launch_file, cameras="front, left", namespace="/car", odometry_topic="/odom")
    namespaces = [node.given["namespace"] for node in nodes]
    assert namespaces == ["car/front", "car/left"]
    with pytest.raises(ValueError, match="names one twice"):
        started(launch_file, cameras="front,front")


def processes(actions: list[Any]) -> list[Any]:
    """The actions without the lines that are printed."""
    from launch.actions import LogInfo

    return [action for action in actions if not isinstance(action, LogInfo)]


@pytest.fixture
def log(tmp_path) -> str:
    return str(write_mcap(tmp_path / "a.mcap", entries(compressed=True)))


def test_bag_is_played_by_the_packages_own_player_where_ros2_bag_is_absent(launch_file, monkeypatch, log):
    monkeypatch.setattr(launch_file.shutil, "which", lambda name: None)
    player, _ = processes(started(launch_file, bag=log, bag_rate="0.5"))
    words = command_of(player)
    assert words[0].endswith("lib/pixel4d_ros/replay")
    assert words[1:5] == [log, "--clock", "--rate", "0.5"]
    assert words[-2:] == ["--wait-for-subscribers", "/camera/left/image_raw/compressed"]


def test_a_bag_alone_tells_topics_and_types(launch_file, monkeypatch, log):
    monkeypatch.setattr(launch_file.shutil, "which", lambda name: None)
    _, node = processes(started(launch_file, bag=log))
    to = dict(node.given["remappings"])
    assert to["image"] == "/camera/left/image_raw/compressed"
    assert to["odometry"] == "/odometry"
    assert to["trajectory"] == "trajectory"


def test_the_parameters_are_in_a_file_that_goes_with_the_launch(launch_file, monkeypatch, log):
    """launch_ros would leave a file in /tmp at each launch."""
    removed = []
    monkeypatch.setattr(launch_file.shutil, "which", lambda name: None)
    monkeypatch.setattr(launch_file.atexit, "register", lambda unlink, **_: removed.append(unlink.__self__))
    (node,) = started(launch_file, namespace="/car", device="cpu", mounting_translation="[1.0, 0.0, 1e-05]")
    assert len(node._Node__parameters) == 2
    (file,) = removed
    values = yaml.safe_load(file.read_text())["/car/forecast_node"]["ros__parameters"]
    assert values["device"] == "cpu"
    assert values["autostart"] is True
    assert values["mounting.translation"] == [1.0, 0.0, 1e-5]
    file.unlink()


def test_rviz_that_is_not_installed_is_refused_before_the_node_starts(launch_file, monkeypatch):
    from ament_index_python.packages import PackageNotFoundError

    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(launch_file, "get_package_prefix", missing)
    with pytest.raises(ValueError, match=r"rviz:=true needs rviz2: sudo apt install"):
        started(launch_file, rviz="true")


def test_bag_is_played_by_ros2_bag_where_it_is(launch_file, monkeypatch, log, tmp_path):
    from launch import LaunchContext
    from launch.events.process import ProcessStderr

    monkeypatch.setattr(launch_file.shutil, "which", lambda name: "/opt/ros/jazzy/bin/ros2")
    monkeypatch.setattr(launch_file.importlib.util, "find_spec", lambda name: object())
    by_event, by_words, node = processes(started(launch_file, bag=log))

    def said(text: bytes) -> Any:
        event = ProcessStderr(text=text, action=node, name="forecast_node", cmd=[], cwd=None, env=None, pid=1)
        return by_words.event_handler.handle(event, LaunchContext())

    assert not said(b"[INFO] [1.0] [forecast_node]: configured")
    (play,) = said(b"[INFO] [1.0] [forecast_node]: active: /image")
    assert not said(b"[INFO] [2.0] [forecast_node]: active: /image")  # it plays already
    (again,) = by_event.event_handler.entities
    assert again.execute(LaunchContext()) == []
    command = command_of(play)
    assert command[:-1] == [
        *("ros2", "bag", "play", log, "--clock", "--rate", "1.0"),
        "--qos-profile-overrides-path",
    ]
    quality = yaml.safe_load(Path(command[-1]).read_text())
    assert quality["/tf_static"]["durability"] == "transient_local"
    ros1, _ = processes(started(launch_file, bag=str(write_rosbag1(tmp_path / "old.bag"))))
    assert command_of(ros1)[0].endswith("replay")


def rviz_config(launch_file: Any, **values: str) -> str:
    """The configuration that RViz starts with."""
    *_, rviz = started(launch_file, rviz="true", **values)
    option, path = rviz.given["arguments"]
    assert (rviz.given["package"], option) == ("rviz2", "-d")
    return Path(path).read_text()


def test_rviz_shows_the_topics_of_the_launch(launch_file, monkeypatch):
    monkeypatch.setattr(launch_file, "get_package_prefix", lambda package: "/opt/ros/jazzy")
    text = rviz_config(launch_file, namespace="car", image_topic="/cam/image", trajectory_topic="plan")
    topics = {line.split("Value: ")[1] for line in text.splitlines() if "Value: /" in line}
    assert topics == {
        "/cam/image",
        "/car/plan",
        "/car/forecast_node/forecast/image",
        "/car/forecast_node/gaussians",
        "/car/forecast_node/gaussians/forecast",
        "/car/forecast_node/motion",
        "/car/forecast_node/occupancy",
        "/car/forecast_node/occupancy_updates",
    }


def test_rviz_opens_without_the_plugin_for_compressed_images(launch_file, monkeypatch):
    from ament_index_python.packages import PackageNotFoundError
    from launch.actions import LogInfo

    def source_image(topic: str) -> bool:
        text = rviz_config(launch_file, image_topic=topic, trajectory_topic="plan")
        displays = yaml.safe_load(text)["Visualization Manager"]["Displays"]
        names = [display["Name"] for display in displays]
        assert {"TF", "Forecast image", "Planned path"} <= set(names)
        return "Source image" in names

    def missing(package: str) -> str:
        if package == "rviz2":
            return "/opt/ros/jazzy"
        raise PackageNotFoundError(package)

    monkeypatch.setattr(launch_file, "get_package_prefix", lambda package: "/opt/ros/jazzy")
    assert source_image("/cam/image/compressed")
    monkeypatch.setattr(launch_file, "get_package_prefix", missing)
    assert source_image("/cam/image") and not source_image("/cam/image/compressed")
    actions = started(launch_file, rviz="true", image_topic="/cam/image/compressed")
    assert any(isinstance(action, LogInfo) for action in actions)


@pytest.mark.parametrize(
    ("level", "namespace", "given"),
    [
        ("debug", "/a/car", "a.car.forecast_node:=debug"),
        ("debug", "", "forecast_node:=debug"),
        ("warn", "/car", "warn"),
        ("rcl:=debug", "", "rcl:=debug"),
    ],
)
def test_debug_is_the_level_of_the_nodes_own_lines(launch_file, level, namespace, given):
    (node,) = started(launch_file, log_level=level, namespace=namespace)
    assert node.given["arguments"] == ["--ros-args", "--log-level", given]


def test_the_launch_ends_with_the_node_that_a_bag_is_played_for(launch_file, log):
    """Else the player would wait for it for minutes; but not after Ctrl-C, nor where the node comes again."""
    from launch import LaunchContext
    from launch.actions import Shutdown

    def at_the_nodes_end(respawn: str) -> Any:
        *_, node = processes(started(launch_file, bag=log, respawn=respawn))
        return node.given["on_exit"]

    ended = at_the_nodes_end(respawn="false")
    (ending,) = ended(SimpleNamespace(returncode=0), LaunchContext())
    assert isinstance(ending, Shutdown)
    with pytest.raises(RuntimeError, match="exit code 1"):  # of which launch makes its own exit code
        ended(SimpleNamespace(returncode=1), LaunchContext())
    assert ended(SimpleNamespace(returncode=1), SimpleNamespace(is_shutdown=True)) == []
    assert at_the_nodes_end(respawn="true") is None
    (alone,) = started(launch_file)
    first, second = started(launch_file, cameras="front,left")
    assert alone.given["on_exit"] and not first.given["on_exit"] and not second.given["on_exit"]


@contextmanager
def launched(tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The real `ros2 launch` in a domain of its own, and the file of what it prints. Killed at the end."""
    ros2 = shutil.which("ros2", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if ros2 is None:
        pytest.skip("needs the command ros2 (ros-jazzy-ros2launch)")
    environment = {**os.environ, "ROS_DOMAIN_ID": str(ros_domain(os.getpid())), "ROS_LOG_DIR": str(tmp_path / "log")}
    command, output = [ros2, "launch", str(LAUNCH_FILE), "device:=cpu", *arguments], tmp_path / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process, output
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(text: str, process: subprocess.Popen[bytes], output: Path) -> None:
    """Until the launch has printed the text."""
    deadline = time.monotonic() + START_S
    while text not in output.read_text() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert text in output.read_text()


@pytest.mark.slow
def test_node_comes_up_and_goes_down(tmp_path):
    """The node gets active with an argument that overrides the YAML file, ends cleanly and leaves no files."""
    before = set(Path(tempfile.gettempdir()).glob("*_params_*"))
    with launched(tmp_path, "namespace:=car", "image_transport:=compressed") as (process, output):
        wait_for("[car.forecast_node]: active: /car/image, /car/camera_info", process, output)
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0
        assert "process has finished cleanly" in output.read_text()
    assert set(Path(tempfile.gettempdir()).glob("*_params_*")) <= before


@pytest.mark.slow
def test_a_bag_alone_reaches_the_node(tmp_path, log):
    """The console says what was taken from the bag, that nobody listens to its forecasts, and that it has ended."""
    with launched(tmp_path, f"bag:={log}", "bag_rate:=0.2") as (process, output):
        wait_for("images come in; nothing is computed until somebody subscribes", process, output)
        wait_for(f"the bag {log} has ended; the node stays active", process, output)
        wait_for("without a subscriber; the newest is forecast as soon as somebody subscribes", process, output)
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0
    text = output.read_text()
    assert "image_topic:=/camera/left/image_raw/compressed" in text
    assert text.count("process has finished cleanly") == 2
    assert "Traceback" not in text


@pytest.mark.slow
def test_a_node_that_cannot_start_ends_the_launch(tmp_path, log):
    with launched(tmp_path, f"bag:={log}", "weights:=/no/such/file") as (process, output):
        wait_for("weights", process, output)
        assert process.wait(60) == 1
    assert "the forecast node failed (exit code 1)" in output.read_text()
