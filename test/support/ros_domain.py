# SPDX-License-Identifier: Apache-2.0
"""ROS domains of tests: those of one pytest-xdist worker are never those of another."""

from __future__ import annotations

import os

DOMAINS = 100  # 1..100: above, the ports of DDS fall among those that the system gives to clients


def ros_domain(seed: int) -> int:
    """One of this worker's domains, which differ from those of others by their remainder."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return 1 + worker + workers * (seed % (DOMAINS // workers))
