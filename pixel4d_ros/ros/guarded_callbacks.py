# SPDX-License-Identifier: Apache-2.0
"""Callbacks that live on: rclpy ends the process with whatever a callback raises.

Its own callbacks raise for messages and requests that anyone may send: a parameter of an unknown type, a lifecycle
transition that is not possible now, a negative time on /clock.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any

from rclpy.node import Node


def guarded(node: Node, name: str, callback: Callable[..., Any]) -> Callable[..., Any]:
    """The callback of a topic or service; what it raises is logged, and its last argument returned.

    That is the response of a service, which by default says that it failed, or holds no results.
    """

    @wraps(callback)
    def call(*arguments: Any) -> Any:
        try:
            return callback(*arguments)
        except Exception as error:  # noqa: BLE001 (the node continues)
            is_ours = not str(getattr(callback, "__module__", "")).startswith("rclpy")
            reason = traceback.format_exc() if is_ours else f"{type(error).__name__}: {error}"
            node.get_logger().error(f"{name}: what came cannot be used: {reason}", throttle_duration_sec=10.0)
            return arguments[-1]

    return call


def guard_services(node: Node) -> None:
    """Guard the services that a node has by now: those of rclpy."""
    for service in node.services:
        service.callback = guarded(node, service.srv_name, service.callback)
