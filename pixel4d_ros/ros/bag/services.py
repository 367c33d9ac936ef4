# SPDX-License-Identifier: Apache-2.0
"""Services that pause and resume a replay, named as those of `ros2 bag play`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any

from pixel4d_ros.ros.bag.replay_clock import toggle

if TYPE_CHECKING:
    from rclpy.node import Node

ACTIONS: dict[str, Callable[[Event], None]] = {
    "pause": Event.set,
    "resume": Event.clear,
    "toggle_paused": toggle,
    "is_paused": lambda paused: None,
}


@contextmanager
def pause_services(node: Node, paused: Event) -> Iterator[None]:
    """Serve ~/pause, ~/resume, ~/toggle_paused and ~/is_paused on a thread that spins the node.

    Types: rosbag2_interfaces if installed, so that clients of `ros2 bag play` work; else std_srvs/Trigger with the
    message "paused" or "running".
    """
    from pixel4d_ros.ros.session import spinning

    for name, act in ACTIONS.items():
        node.create_service(service_type(name), f"~/{name}", _handler(act, paused))
    with spinning(node, "services"):
        yield


def _handler(act: Callable[[Event], None], paused: Event) -> Callable[[Any, Any], Any]:
    def handle(_request: Any, response: Any) -> Any:
        act(paused)
        if hasattr(response, "message"):
            response.success, response.message = True, "paused" if paused.is_set() else "running"
        elif hasattr(response, "paused"):
            response.paused = paused.is_set()
        return response

    return handle


def service_type(name: str) -> Any:
    """The type of one of the services."""
    try:
        kinds = importlib.import_module("rosbag2_interfaces.srv")
    except ImportError:
        return importlib.import_module("std_srvs.srv").Trigger
    return getattr(kinds, name.title().replace("_", ""))
