# SPDX-License-Identifier: Apache-2.0
"""Memory and age over a long replay: only on request, since it takes minutes.

PIXEL4D_SOAK_SECONDS=200 make test ARGS="-s test/ros/test_soak.py"
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")

from support.harness import Client, running_node  # noqa: E402 (after the skip)

SECONDS = float(os.environ.get("PIXEL4D_SOAK_SECONDS", "0"))
LATENCY = "latency p99 (ms)"

pytestmark = [
    pytest.mark.skipif(
        SECONDS < 90, reason="needs PIXEL4D_SOAK_SECONDS of 90 or more (200 for the figure in the docs)"
    ),
    pytest.mark.timeout(SECONDS + 300),
]


def test_memory_and_age_stay_bounded_over_a_long_replay(tmp_path: Path) -> None:
    from pixel4d_ros.synthetic.log import write_street_log

    log = tmp_path / "street.mcap"
    write_street_log(log, seed=10, frames=60, progress=False)
    remaps = [
        f"-r {a}:={b}"
        for a, b in (
            ("image", "/camera/left/image_raw/compressed"),
            ("camera_info", "/camera/left/camera_info"),
            ("trajectory", "/planned_path"),
            ("odometry", "/odometry"),
        )
    ]
    words = [word for remap in remaps for word in remap.split()]
    replay = [sys.executable, "-m", "pixel4d_ros.cli", "replay", str(log), "--loop"]
    rclpy.init()
    client = Client()
    try:
        parameters = {"image_transport": "compressed", "use_sim_time": "true"}
        with running_node(tmp_path / "node.log", *words, fine=True, **parameters) as node:
            player = subprocess.Popen(replay, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            began, memory = time.monotonic(), []
            try:
                while time.monotonic() - began < SECONDS:
                    client.spin_for(5.0)
                    memory.append((time.monotonic() - began, node.resident_mib))
                    for received in client.got.values():
                        del received[:-1]
            finally:
                player.terminate()
                player.wait()
            values = client.values()
    finally:
        client.destroy_node()
        rclpy.shutdown()
    early = next(mib for second, mib in memory if second >= 60)
    print(f"\nresident {early:.0f} MiB after 60 s, {memory[-1][1]:.0f} MiB after {memory[-1][0]:.0f} s; {values}")
    assert memory[-1][1] <= 1.05 * early
    assert int(values["dropped frames"]) > 0
    assert float(values[LATENCY]) < 10_000
