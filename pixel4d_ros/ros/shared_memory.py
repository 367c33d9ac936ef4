# SPDX-License-Identifier: Apache-2.0
"""Images between processes of one machine: whole, and not in parts of which some are lost."""

from __future__ import annotations

import os
from pathlib import Path

from pixel4d_ros.files import find_resource

PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE"  # read by Fast DDS when rclpy starts
OWN_SETTINGS = (PROFILES, "FASTDDS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS")
PLACE = Path("/dev/shm")
ROOM = 128 * 2**20  # bytes: of four processes; containers often have 64 MB, and would get an error for each process


def set_fastdds_profile() -> None:
    """Have Fast DDS, where it is the middleware, pass images of this process and its children through shared memory.

    To be called before rclpy starts. Leaves alone what the user has set, and machines that lack the memory.
    """
    profiles = find_resource("config", "fastdds.xml")
    if profiles is None or any(name in os.environ for name in OWN_SETTINGS) or not PLACE.is_dir():
        return
    free = os.statvfs(PLACE)
    if free.f_bavail * free.f_frsize >= ROOM:
        os.environ[PROFILES] = str(profiles)
