# SPDX-License-Identifier: Apache-2.0
"""The environment of a measurement: versions, processor, device."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from pixel4d_ros import __version__


@dataclass(frozen=True)
class Environment:
    """Versions and hardware, which timings depend on."""

    package: str
    python: str
    torch: str
    system: str
    processor: str
    cores: int  # that this process may use
    gpu: str | None
    ros_distro: str | None


def environment() -> Environment:
    """This process's environment."""
    return Environment(
        package=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        system=f"{platform.system()} {platform.release()}",
        processor=processor_name(),
        cores=available_cores(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        ros_distro=os.environ.get("ROS_DISTRO"),
    )


def device_name(device: torch.device) -> str:
    """Readable name of a device: the GPU's, or the processor's with the number of cores used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({processor_name()}, {available_cores()} cores)"


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """The processor's model name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
