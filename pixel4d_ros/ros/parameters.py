"""Every parameter of the forecast node, declared once; parameter_documents.py makes of it what ROS and readers see."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pixel4d_ros.outputs.clearance import Footprint, parse_footprint
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
class Limits:
    """What /diagnostics warns of; 0: of that it does not."""

    min_rate: float = 0.0  # Hz
    max_latency: float = 0.0  # s, 99th percentile
    max_age: float = 0.0  # s, of the last published stamp
    max_drops: float = 0.0  # share of the images received
    silence: float = 2.0  # s without images after which the node is stale


@dataclass(frozen=True)
class Parameters:
    """Values of all parameters. Raises ValueError with the reason when one is out of its range."""

    weights: str = parameter(
        "", "Predictor weights (.safetensors); empty: those shipped with the package.", on_configure=True
    )
    device: str = parameter(
        "auto", "Where to compute: auto (CUDA where there is one), cpu, cuda or cuda:N.", on_configure=True
    )
    steps: int = parameter(14, "Forecast frames; frame 0 is the source image's time.", low=1, high=100)
    step: float = parameter(0.1, "Seconds from one forecast frame to the next.", low=0.001, high=10.0)
    num_samples: int = parameter(1, "Sampled futures per image; sample 0 is the most likely.", low=1, high=64)
    seed: int = parameter(
        0, "Seed of the sampled futures: same image, same seed, same forecast.", low=0, high=2**31 - 1
    )
    selected_step: int = parameter(
        10, "Forecast frame shown on ~/forecast/image and ~/gaussians/forecast; capped at the last.", low=0, high=99
    )
    image_transport: str = parameter(
        "raw",
        "Type of `image`: raw (Image) or compressed (CompressedImage).",
        choices=("raw", "compressed"),
        on_configure=True,
    )
    rectify: bool = parameter(
        True, "Undo the lens distortion that camera_info tells; false: images are rectified, and its P holds for them."
    )
    trajectory_type: str = parameter(
        "nav_msgs/Path",
        "Type of `trajectory`: nav_msgs/Path, trajectory_msgs/MultiDOFJointTrajectory, or where installed "
        "autoware_planning_msgs/Trajectory, nav2_msgs/Trajectory, nav_msgs/Trajectory.",
        choices=TRAJECTORY_TYPES,
        on_configure=True,
    )
    depth_transport: str = parameter(
        "raw",
        "Type of `depth`: raw (Image) or compressed (CompressedImage, png or compressedDepth).",
        name="depth.transport",
        choices=("raw", "compressed"),
        on_configure=True,
    )
    depth_tolerance: float = parameter(
        0.02,
        "Seconds between depth and image beyond which they do not belong together.",
        name="depth.tolerance",
        low=0.0,
        high=1.0,
    )
    depth_wait: float = parameter(
        0.0, "Seconds to wait for the depth of an image while depth is coming in.", name="depth.wait", low=0.0, high=1.0
    )
    depth_from_motion: bool = parameter(
        False,
        "Where an image has no depth, find some from an earlier image and the camera's way between them, by odometry.",
        name="depth.from_motion",
    )
    motion_from_flow: bool = parameter(
        False,
        "Let the flow to an earlier image tell what moves and how, where odometry tells the camera's way between them.",
        name="motion.from_flow",
    )
    output_size: tuple[int, ...] = parameter(
        (0, 0), "Width and height in pixels of forecast images; 0, 0: the source image's.", low=0, high=8192
    )
    max_cloud_points: int = parameter(
        200_000, "Gaussians in a point cloud at most; an even subset of more.", low=1, high=10_000_000
    )
    max_splats: int = parameter(
        70_000,
        "Gaussians on ~/splats at most, some 400 bytes each; an even subset of more, which has gaps.",
        low=1,
        high=1_000_000,
    )
    min_opacity: float = parameter(
        0.05, "Gaussians less opaque than this are left out of point clouds.", low=0.0, high=1.0
    )
    jpeg_quality: int = parameter(90, "Quality of ~/forecast/image/compressed.", low=1, high=100)
    occupancy_steps: tuple[int, ...] = parameter(
        (-1,),
        "Forecast frames published on ~/occupancy, a message each; -1: selected_step.",
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
        (0.3, 2.5),
        "Metres above the ground between which something is an obstacle. The ground is estimated from the scene.",
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
        0.0, "Radius in metres of the circle around the base that stands for the vehicle.", low=0.0, high=100.0
    )
    max_candidates: int = parameter(
        64, "Trajectories that one call of ~/forecast_trajectories may hold.", low=1, high=1000
    )
    trajectory_timeout: float = parameter(
        2.0, "Seconds after its stamp at which a trajectory is stale and no longer followed.", low=0.0, high=3600.0
    )
    odometry_timeout: float = parameter(
        0.5, "Seconds between odometry and image beyond which odometry is not used.", low=0.0, high=3600.0
    )
    base_frame: str = parameter(
        "", "Frame whose poses the trajectory gives; empty: child_frame_id of the odometry, else base_link."
    )
    mounting_translation: tuple[float, ...] = parameter(
        (0.0, 0.0, 0.0),
        "Camera's position in base_frame (x, y, z in metres), used when tf does not know it.",
        name="mounting.translation",
    )
    mounting_rotation: tuple[float, ...] = parameter(
        (-0.5, 0.5, -0.5, 0.5),
        "Camera's optical frame in base_frame (quaternion x, y, z, w), used as the translation is; default: ahead.",
        name="mounting.rotation",
    )
    autostart: bool = parameter(
        True, "Configure and activate at the start; false where a launch file or manager does that.", read_only=True
    )
    diagnostics_period: float = parameter(
        1.0, "Seconds between /diagnostics messages.", low=0.05, high=60.0, read_only=True
    )

    diagnostics_min_rate: float = parameter(
        0.0, "Forecasts per second below which /diagnostics warns; 0: it does not.", low=0.0, high=1000.0
    )
    diagnostics_max_latency: float = parameter(
        0.0, "Seconds from image to forecast (99th percentile) above which it warns; 0: not.", low=0.0, high=60.0
    )
    diagnostics_max_age: float = parameter(
        0.0, "Age in seconds of the last published stamp above which it warns; 0: not.", low=0.0, high=3600.0
    )
    diagnostics_max_drops: float = parameter(
        0.0, "Share of images dropped since activation above which it warns; 0: not.", low=0.0, high=1.0
    )
    diagnostics_silence: float = parameter(
        2.0, "Seconds without images after which the node is stale.", low=0.1, high=3600.0
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
    def times(self) -> np.ndarray:
        """Forecast times (steps,), seconds after the source image."""
        return np.arange(self.steps) * self.step

    @property
    def selected(self) -> int:
        """Index of the selected forecast frame."""
        return min(self.selected_step, self.steps - 1)

    @property
    def occupancy_frames(self) -> list[int]:
        """Indices of the forecast frames that become occupancy grids, each once; those beyond the last become it."""
        return sorted({self.selected if i < 0 else min(i, self.steps - 1) for i in self.occupancy_steps})

    @property
    def map_extent(self) -> MapExtent:
        """What the occupancy grids cover."""
        (x, y), (low, high) = self.occupancy_size, self.occupancy_heights
        return MapExtent((x, y), self.occupancy_resolution, (low, high), self.occupancy_ahead)

    @property
    def vehicle_footprint(self) -> Footprint:
        """The vehicle's outline. Raises ValueError where the parameter footprint is none."""
        return parse_footprint(self.footprint, self.footprint_radius)

    @property
    def limits(self) -> Limits:
        """What /diagnostics warns of."""
        return Limits(
            self.diagnostics_min_rate,
            self.diagnostics_max_latency,
            self.diagnostics_max_age,
            self.diagnostics_max_drops,
            self.diagnostics_silence,
        )

    def size_of(self, source: tuple[int, int]) -> tuple[int, int]:
        """Width and height of forecast images, given the source image's."""
        return source if self.output_size == (0, 0) else (self.output_size[0], self.output_size[1])


def parameter_name(field_name: str) -> str:
    """The ROS name of a field of Parameters."""
    return next(f.metadata["name"] or f.name for f in fields(Parameters) if f.name == field_name)


def check_resources(parameters: Parameters) -> None:
    """Raise ValueError when the weights file or the GPU that the parameters name is not there."""
    if parameters.weights and not Path(parameters.weights).is_file():
        raise ValueError(f"weights: there is no file {parameters.weights}")
    if parameters.device.startswith("cuda"):
        import torch

        count = torch.cuda.device_count()
        if int(parameters.device.partition(":")[2] or 0) >= count:
            raise ValueError(f"device {parameters.device}: torch sees {count} CUDA GPUs; use auto or cpu")


def updated(parameters: Parameters, changes: dict[str, Any]) -> Parameters:
    """The parameters with changes {ROS name: value} applied, other names ignored. Raises ValueError saying why not."""
    known = {parameter_name(f.name): f.name for f in fields(Parameters)}
    values: dict[str, Any] = {
        known[name]: tuple(v) if np.ndim(v) else v for name, v in changes.items() if name in known
    }
    return replace(parameters, **values)
