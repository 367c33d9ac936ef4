# SPDX-License-Identifier: Apache-2.0
"""Stamps, durations and frame names of ROS messages.

Apart from conversions.py, which imports scipy and OpenCV: a replay publishes its clock without waiting for them.
"""

from __future__ import annotations

from builtin_interfaces.msg import Duration, Time

NS_PER_S = 1_000_000_000


def nanoseconds(stamp: Time) -> int:
    """A message's stamp as nanoseconds since the epoch."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def time_message(ns: int) -> Time:
    """builtin_interfaces/Time of nanoseconds since the epoch."""
    return Time(sec=ns // NS_PER_S, nanosec=ns % NS_PER_S)


def duration_message(seconds: float) -> Duration:
    """Duration of a number of seconds >= 0, rounded to nanoseconds."""
    sec, nanosec = divmod(round(seconds * 1e9), NS_PER_S)
    return Duration(sec=sec, nanosec=nanosec)


def frame_name(frame_id: str) -> str:
    """A frame's name without the leading slash of ROS 1: "/odom" becomes "odom"."""
    return frame_id.strip("/")
