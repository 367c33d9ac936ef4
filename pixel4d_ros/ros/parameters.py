# SPDX-License-Identifier: Apache-2.0
"""Every parameter of the forecast node, declared once. parameter_documents.py derives ROS descriptors and documents."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pixel4d_ros.outputs.clearance import Footprint, parse_footprint
from pixel4d_ros.outputs.obstacles import HEIGHTS
from pixel4d_ros.outputs.occupancy import MapExtent
from pixel4d_ros.ros.parameter_fields import check, parameter

TRAJECTORY_TYPES = (
    "nav_msgs/Path",
    "trajectory_msgs/MultiDOFJointTrajectory",
    "nav_msgs/Trajectory",
    "nav2_msgs/Trajectory",
    "autoware_planning_msgs/Trajectory",
)
MAX_CELLS = 2000  # along a side of an occupancy grid
LENGTHS = {
    "output_size": 2,
    "mounting_translation": 3,
    "mounting_rotation": 4,
    "occupancy_size": 2,
    "occupancy_heights": 2,
}


@dataclass(frozen=True)
class Parameters:
    """Values of all parameters. Raises ValueError with the reason when one is out of its range."""

    weights: str = parameter(
        "", "Predictor weights (.safetensors). Empty: the weights of the package.", on_configure=True
    )
    device: str = parameter("auto", "Device: auto (CUDA if present), cpu, cuda or cuda:N.", on_configure=True)
    steps: int = parameter(14, "Number of forecast frames. Frame 0 is at the source image's stamp.", low=1, high=100)
    step: float = parameter(0.1, "Seconds between forecast frames.", low=0.001, high=2.0)
    num_samples: int = parameter(1, "Number of sampled futures. Sample 0 is the most likely.", low=1, high=64)
    seed: int = parameter(0, "Random seed of the sampled futures.", low=0, high=2**31 - 1)
    selected_step: int = parameter(
        10,
        "Forecast frame published on ~/forecast/image and ~/gaussians/forecast; clamped to the last.",
        low=0,
        high=99,
    )
    image_transport: str = parameter(
        "raw",
        "Message type of `image`: raw (Image) or compressed (CompressedImage).",
        choices=("raw", "compressed"),
        on_configure=True,
    )
    rectify: bool = parameter(
        True,
        "Undistort with camera_info's D and K. Set false for images that are already rectified (P is used); topics "
        "named image_rect... are taken so in any case.",
    )
    trajectory_type: str = parameter(
        "nav_msgs/Path",
        "Message type of `trajectory`: nav_msgs/Path, trajectory_msgs/MultiDOFJointTrajectory, or where installed "
        "autoware_planning_msgs/Trajectory, nav2_msgs/Trajectory, nav_msgs/Trajectory.",
        choices=TRAJECTORY_TYPES,
        on_configure=True,
    )
    depth_transport: str = parameter(
        "raw",
        "Message type of `depth`: raw (Image) or compressed (CompressedImage: png or compressedDepth).",
        name="depth.transport",
        choices=("raw", "compressed"),
        on_configure=True,
    )
    depth_tolerance: float = parameter(
        0.02,
        "Largest time difference in seconds between an image and its depth.",
        name="depth.tolerance",
        low=0.0,
        high=1.0,
    )
    depth_wait: float = parameter(
        0.0,
        "Seconds to wait for the depth of an image, if depth is being received.",
        name="depth.wait",
        low=0.0,
        high=1.0,
    )
    reference_enabled: bool = parameter(
        True,
        "Correct depth by a second image where odometry gives the pose between the two, and measure object motion with "
        "it where time allows.",
        name="reference.enabled",
    )
    motion_from_flow: bool = parameter(
        False, "Deprecated, goes in the next release: use reference.enabled.", name="motion.from_flow"
    )
    output_size: tuple[int, ...] = parameter(
        (0, 0), "Width and height of forecast images in pixels. 0, 0: those of the source image.", low=0, high=8192
    )
    max_cloud_points: int = parameter(
        200_000,
        "Largest number of Gaussians in a point cloud. Larger scenes are subsampled evenly.",
        low=1,
        high=10_000_000,
    )
    cloud_format: str = parameter(
        "full",
        "Fields of point clouds: full (shape, colour and motion, 128 bytes a point) or compact (24 bytes a point).",
        choices=("full", "compact"),
    )
    max_splats: int = parameter(
        70_000,
        "Largest number of Gaussians on ~/splats (about 400 bytes each). Larger scenes are subsampled and show gaps.",
        low=1,
        high=1_000_000,
    )
    min_opacity: float = parameter(0.05, "Smallest opacity of Gaussians in point clouds.", low=0.0, high=1.0)
    jpeg_quality: int = parameter(90, "JPEG quality of ~/forecast/image/compressed.", low=1, high=100)
    occupancy_steps: tuple[int, ...] = parameter(
        (-1,),
        "Forecast frames published on ~/occupancy, one message each. -1: selected_step.",
        name="occupancy.steps",
        low=-1,
        high=99,
    )
    occupancy_size: tuple[float, ...] = parameter(
        (60.0, 60.0),
        "Metres that ~/occupancy covers along x and y of the odometry frame.",
        name="occupancy.size",
        low=1.0,
        high=1000.0,
    )
    occupancy_resolution: float = parameter(
        0.25, "Metres per cell of ~/occupancy.", name="occupancy.resolution", low=0.02, high=10.0
    )
    occupancy_heights: tuple[float, ...] = parameter(
        HEIGHTS,
        "Heights in metres above the ground, estimated from the scene, between which things are obstacles.",
        name="occupancy.heights",
        low=-10.0,
        high=100.0,
    )
    occupancy_ahead: float = parameter(
        25.0,
        "Metres from the base to the centre of ~/occupancy, along the base's x.",
        name="occupancy.ahead",
        low=-1000.0,
        high=1000.0,
    )
    footprint: str = parameter(
        "",
        "Vehicle outline in base_frame for ~/forecast_trajectories, as Nav2 writes it: [[x1, y1], [x2, y2], ...]. "
        "Empty: a circle of footprint_radius.",
    )
    footprint_radius: float = parameter(
        0.0, "Radius in metres of a circular vehicle outline around the base.", low=0.0, high=100.0
    )
    max_candidates: int = parameter(
        64, "Largest number of trajectories in a request to ~/forecast_trajectories.", low=1, high=1000
    )
    trajectory_timeout: float = parameter(
        2.0,
        "Largest age of a trajectory in seconds relative to the image. Older trajectories are ignored.",
        low=0.0,
        high=60.0,
    )
    odometry_timeout: float = parameter(
        0.5,
        "Largest time difference in seconds between odometry and image. Beyond it, odometry is not used.",
        low=0.0,
        high=5.0,
    )
    base_frame: str = parameter(
        "",
        "Frame whose poses the trajectory contains. Empty: odometry's child_frame_id, else base_link.",
    )
    mounting_translation: tuple[float, ...] = parameter(
        (0.0, 0.0, 0.0),
        "Position of the camera in base_frame (x, y, z in metres). Used if tf does not connect the two.",
        name="mounting.translation",
    )
    mounting_rotation: tuple[float, ...] = parameter(
        (-0.5, 0.5, -0.5, 0.5),
        "Orientation of the optical frame in base_frame (quaternion x, y, z, w). Used if tf does not connect the two.",
        name="mounting.rotation",
    )
    autostart: bool = parameter(
        True,
        "Configure and activate at startup. Set false if a launch file or lifecycle manager does that.",
        read_only=True,
    )
    diagnostics_period: float = parameter(
        1.0, "Period of /diagnostics in seconds.", low=0.05, high=60.0, read_only=True
    )

    diagnostics_min_rate: float = parameter(
        0.0, "/diagnostics warns below this rate of forecasts in Hz. 0: never.", low=0.0, high=1000.0
    )
    diagnostics_max_latency: float = parameter(
        0.0,
        "/diagnostics warns above this latency from image to forecast in seconds (99th percentile). 0: never.",
        low=0.0,
        high=10.0,
    )
    diagnostics_max_age: float = parameter(
        0.0,
        "/diagnostics warns if the last published stamp is older than this in seconds. 0: never.",
        low=0.0,
        high=10.0,
    )
    diagnostics_max_drops: float = parameter(
        0.0, "/diagnostics warns above this share of dropped images since activation. 0: never.", low=0.0, high=1.0
    )
    diagnostics_silence: float = parameter(
        2.0, "/diagnostics reports STALE after this many seconds without images.", low=0.1, high=300.0
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            check(f, getattr(self, f.name))
        for name, length in LENGTHS.items():
            if len(getattr(self, name)) != length:
                raise ValueError(f"{parameter_name(name)} needs {length} numbers, got {list(getattr(self, name))}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {self.device!r}")
        if (self.output_size[0] == 0) != (self.output_size[1] == 0):
            raise ValueError(f"output_size needs width and height, or 0, 0 for auto, got {list(self.output_size)}")
        if abs(np.linalg.norm(self.mounting_rotation) - 1) > 1e-2:
            raise ValueError(f"mounting.rotation must be a unit quaternion xyzw, got {list(self.mounting_rotation)}")
        _ = self.vehicle_footprint
        if self.occupancy_heights[0] > self.occupancy_heights[1]:
            raise ValueError(f"occupancy.heights must be low, high, got {list(self.occupancy_heights)}")
        if max(self.map_extent.shape) > MAX_CELLS:
            raise ValueError(
                f"occupancy.size {list(self.occupancy_size)} at occupancy.resolution {self.occupancy_resolution:g} is "
                f"more than {MAX_CELLS} cells along a side: make the size smaller or the resolution coarser"
            )

    @property
    def uses_reference(self) -> bool:
        """Whether images are compared with reference images, by the new parameter or the deprecated one."""
        return self.reference_enabled or self.motion_from_flow

    @property
    def times(self) -> np.ndarray:
        """Forecast times (steps,), seconds after the source image."""
        return np.arange(self.steps) * self.step

    @property
    def selected(self) -> int:
        """Index of the selected forecast frame."""
        return min(self.selected_step, self.steps - 1)

    @property
    def occupancy_frames(self) -> list[int]:
        """Unique indices of the frames published as occupancy grids, clamped to the last frame."""
        return sorted({self.selected if i < 0 else min(i, self.steps - 1) for i in self.occupancy_steps})

    @property
    def map_extent(self) -> MapExtent:
        """Extent and resolution of the occupancy grids."""
        (x, y), (low, high) = self.occupancy_size, self.occupancy_heights
        return MapExtent((x, y), self.occupancy_resolution, (low, high), self.occupancy_ahead)

    @property
    def vehicle_footprint(self) -> Footprint:
        """The vehicle's outline. Raises ValueError for an invalid parameter footprint."""
        return parse_footprint(self.footprint, self.footprint_radius)

    def size_of(self, source: tuple[int, int]) -> tuple[int, int]:
        """Width and height of forecast images, given the source image's."""
        return source if self.output_size == (0, 0) else (self.output_size[0], self.output_size[1])


def parameter_name(field_name: str) -> str:
    """The ROS name of a field of Parameters."""
    return next(f.metadata["name"] or f.name for f in fields(Parameters) if f.name == field_name)


def check_resources(parameters: Parameters) -> None:
    """Raise ValueError if the weights file or the GPU of the parameters does not exist."""
    if parameters.weights and not Path(parameters.weights).is_file():
        raise ValueError(f"weights: there is no file {parameters.weights}")
    if parameters.device.startswith("cuda"):
        import torch

        count = torch.cuda.device_count()
        if int(parameters.device.partition(":")[2] or 0) >= count:
            raise ValueError(f"device {parameters.device}: torch sees {count} CUDA GPUs; use auto or cpu")


def updated(parameters: Parameters, changes: dict[str, Any]) -> Parameters:
    """The parameters with changes {ROS name: value} applied; other names are ignored. Raises ValueError."""
    names = {parameter_name(f.name): f.name for f in fields(Parameters)}
    values: dict[str, Any] = {names[n]: tuple(v) if np.ndim(v) else v for n, v in changes.items() if n in names}
    return replace(parameters, **values)
