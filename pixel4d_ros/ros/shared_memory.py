# SPDX-License-Identifier: Apache-2.0
"""Fast DDS shared memory: images between processes of one machine arrive complete."""

from __future__ import annotations

import os
from pathlib import Path

from pixel4d_ros.files import find_resource

PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE"  # read by Fast DDS when rclpy starts
OWN_SETTINGS = (PROFILES, "FASTDDS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS")
PLACE = Path("/dev/shm")
ROOM = 128 * 2**20  # bytes for four processes; containers often have 64 MB, and each process would log an error


def set_fastdds_profile() -> None:
    """Make Fast DDS pass images of this process and its children through shared memory.

    Call it before rclpy.init. The user's own settings, and machines with too little shared memory, stay unchanged.
    """
    profiles = find_resource("config", "fastdds.xml")
    if profiles is None or any(name in os.environ for name in OWN_SETTINGS) or not PLACE.is_dir():
        return
    free = os.statvfs(PLACE)
    if free.f_bavail * free.f_frsize >= ROOM:
        os.environ[PROFILES] = str(profiles)
