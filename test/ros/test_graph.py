# SPDX-License-Identifier: Apache-2.0
"""The node's graph is what the SROS 2 policy, the viewers' configurations and the README say."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
import rclpy
import yaml

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from rcl_interfaces.srv import DescribeParameters
from support.harness import Client, call, running_node
from support.paths import REPOSITORY
from support.waiting import PATIENCE

from pixel4d_ros.ros.parameter_documents import descriptor
from pixel4d_ros.ros.parameters import Parameters, parameter_name

pytestmark = pytest.mark.ros
NODE = "forecast_node"
SPLATS = {f"/{NODE}/splats"}  # published where RVizSplat's messages are installed
TF = {"/tf", "/tf_static"}  # subscribed to where tf2_ros or tf2_msgs is installed
TF_SERVICE = {"/tf2_frames"}  # of the buffer of tf2_ros


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client, of a node that runs in simulated time."""
    rclpy.init()
    log = tmp_path_factory.mktemp("node") / "log.txt"
    with running_node(log, steps=1, use_sim_time="true"):
        node = Client(listen=False)
        node.until(lambda: (NODE, "/") in node.get_node_names_and_namespaces())
        node.wait(lambda: is_discovered(node), PATIENCE)  # what then is missing, the tests say
        yield node
        node.destroy_node()
    rclpy.try_shutdown()


def is_discovered(client: Client) -> bool:
    """Whether all topics and services of the policy have been discovered, which takes a while."""
    kinds = {
        "publisher": ("topics", "publish"),
        "subscriber": ("topics", "subscribe"),
        "service": ("services", "reply"),
    }
    return all(names(client, kind) >= policy(*rule) - SPLATS - TF - TF_SERVICE for kind, rule in kinds.items())


def names(client: Client, kind: str) -> set[str]:
    """Topics or services of the node: kind is publisher, subscriber or service."""
    found: list[tuple[str, Any]] = getattr(client, f"get_{kind}_names_and_types_by_node")(NODE, "/")
    return {name for name, _ in found}


def policy(element: str, attribute: str) -> set[str]:
    """Full names that the policy allows, e.g. policy("topics", "publish")."""
    profile = ET.parse(REPOSITORY / "config/sros2_policy.xml").getroot().find("enclaves/enclave/profiles/profile")
    assert profile is not None and profile.attrib == {"ns": "/", "node": NODE}
    groups = [group for group in profile.findall(element) if group.get(attribute) == "ALLOW"]
    listed = [(name.text or "") for group in groups for name in group]
    assert len(listed) == len(set(listed))
    return {name if name.startswith("/") else f"/{name}" for name in listed}


def test_the_policy_names_every_topic_and_service(client):
    assert names(client, "publisher") | SPLATS == policy("topics", "publish")
    assert names(client, "subscriber") | TF == policy("topics", "subscribe")
    assert names(client, "service") | TF_SERVICE == policy("services", "reply")
    assert client.get_client_names_and_types_by_node(NODE, "/") == []  # it calls nobody


def first_column(section: str) -> set[str]:
    """Names in backticks in the first column of this section's table in docs/ros.md, in full."""
    table = (REPOSITORY / "docs/ros.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
    listed = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    return {name.replace("~", f"/{NODE}") if name[0] in "~/" else f"/{name}" for name in listed}


def test_the_documented_tables_name_every_topic(client):
    common = {"/rosout", "/parameter_events", f"/{NODE}/transition_event"}
    assert first_column("Publications") == (names(client, "publisher") | SPLATS) - common
    assert first_column("Subscriptions") == names(client, "subscriber") - TF - {"/clock"}


def test_rviz_shows_topics_that_there_are(client):
    config = yaml.safe_load((REPOSITORY / "config/forecast.rviz").read_text())
    displays = config["Visualization Manager"]["Displays"]
    shown = {d["Topic"]["Value"] for d in displays if "Topic" in d}
    assert shown <= names(client, "publisher") | names(client, "subscriber")
    kinds = {d["Class"].rpartition("/")[2] for d in displays}
    assert kinds >= {"Image", "PointCloud2", "MarkerArray", "Path", "TF", "Map"}
    window = config["Window Geometry"]
    docks = {d["Name"] for d in displays if d["Class"].endswith("/Image")} | {p["Name"] for p in config["Panels"]}
    state = bytes.fromhex(window["QMainWindow State"])
    assert all(name.encode("utf-16-be") in state for name in docks)  # Qt places docks by their names
    assert not window["Hide Left Dock"] and not window["Hide Right Dock"]  # RViz reads memory at random without them


def test_foxglove_shows_topics_that_there_are(client):
    layout = json.loads((REPOSITORY / "config/foxglove.json").read_text())
    shown = set(re.findall(r'"(/[\w/]+)[".]', json.dumps(layout)))
    assert shown <= names(client, "publisher") | names(client, "subscriber") and len(shown) >= 9

    def panels(part: Any) -> set[str]:
        return {part} if isinstance(part, str) else panels(part["first"]) | panels(part["second"])

    assert panels(layout["layout"]) == set(layout["configById"])


def test_every_parameter_is_described_with_its_range(client):
    from dataclasses import fields

    declared = {parameter_name(f.name): descriptor(f) for f in fields(Parameters)}
    answer = call(
        client, DescribeParameters, f"{NODE}/describe_parameters", DescribeParameters.Request(names=list(declared))
    )
    for given in answer.descriptors:
        asked = declared[given.name]
        assert given.description == asked.description and given.read_only == asked.read_only
        assert given.integer_range == asked.integer_range and given.floating_point_range == asked.floating_point_range
        assert given.additional_constraints == asked.additional_constraints
