# SPDX-License-Identifier: Apache-2.0
"""Results of a benchmark, and their JSON form. All times are milliseconds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pixel4d_ros.benchmark.node_times import NodeTimes
from pixel4d_ros.benchmark.statistics import Spread
from pixel4d_ros.benchmark.stopwatch import Memory
from pixel4d_ros.files import write_text

LEAST_PSNR = 40.0  # dB, of the worst frame against eager float32: half precision leaves 42 to 53


@dataclass(frozen=True)
class Machine:
    """The machine and its software."""

    device: str
    torch: str
    cuda: str | None
    gsplat: str | None
    python: str
    system: str
    cores: int  # that this process may use
    package: str


@dataclass(frozen=True)
class LowerBounds:
    """Times of encoder and rasterizer alone, which bound a forecast's time from below."""

    encoder: Spread
    rasterizer: Spread

    @property
    def total(self) -> float:
        """The sum of their medians."""
        return self.encoder.p50 + self.rasterizer.p50


@dataclass(frozen=True)
class Agreement:
    """PSNR of the frames against those of eager float32, dB; identical frames count as 100."""

    worst_frame: float
    mean: float

    @property
    def good(self) -> bool:
        """Whether the worst frame reaches LEAST_PSNR."""
        return self.worst_frame >= LEAST_PSNR


@dataclass(frozen=True)
class ForecastTimes:
    """Whole forecasts of one image."""

    samples: int
    frames: int
    total: Spread  # host image in, host frames out
    stages: dict[str, Spread]  # upload, predict, render, copy back: one after another, in runs of their own
    memory: Memory | None
    lower_bounds: LowerBounds | None  # None: no CUDA
    agreement: Agreement

    @property
    def render_per_frame(self) -> Spread:
        """The render stage per rendered frame."""
        return self.stages["render"].per(self.samples * self.frames)

    @property
    def ratio(self) -> float | None:
        """Median total over the sum of the lower bounds."""
        return None if self.lower_bounds is None else self.total.p50 / self.lower_bounds.total


@dataclass(frozen=True)
class CandidateTimes:
    """Rendering along several paths from one prediction: host poses in, host frames out."""

    candidates: int
    frames: int
    total: Spread
    memory: Memory | None


@dataclass(frozen=True)
class SizeTimes:
    """All that was measured at one image size."""

    size: tuple[int, int]  # width, height
    image: str
    gaussians: int
    forecasts: tuple[ForecastTimes, ...]
    candidates: tuple[CandidateTimes, ...]


@dataclass(frozen=True)
class Benchmark:
    """A run of `pixel4d benchmark`."""

    machine: Machine
    path: str  # which way through the code the forecaster took
    weights: str  # hash
    sizes: tuple[SizeTimes, ...]
    nodes: tuple[NodeTimes, ...] = ()  # with --node, one per size
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> list[str]:
        """Forecasts that differ too much from eager float32."""
        return [
            f"{s.size[0]}x{s.size[1]}, {f.samples} samples, {f.frames} frames: worst frame "
            f"{f.agreement.worst_frame:.1f} dB from eager float32, at least {LEAST_PSNR:g} dB are asked for"
            for s in self.sizes
            for f in s.forecasts
            if not f.agreement.good
        ]

    def write(self, path: Path) -> None:
        """As JSON, with ratios and times per frame."""
        write_text(path, json.dumps(_with_derived(self), indent=2) + "\n")

    @staticmethod
    def read(path: Path) -> Benchmark:
        """From JSON that write wrote. Raises ValueError when it is something else."""
        try:
            tree = json.loads(path.read_text())
            for times in (times for size in tree["sizes"] for times in size["forecasts"]):
                times.setdefault("lower_bounds", times.get("floors"))  # the name until 2026-11-28
            made: Benchmark = _parse(Benchmark, tree)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path} is not a file that `pixel4d benchmark --json` wrote ({what})") from None
        return made


def _with_derived(benchmark: Benchmark) -> dict[str, Any]:
    tree = asdict(benchmark)
    for size, found in zip(tree["sizes"], benchmark.sizes):
        for entry, times in zip(size["forecasts"], found.forecasts):
            entry["render_per_frame"] = asdict(times.render_per_frame)
            entry["ratio_to_lower_bounds"] = times.ratio
    for entry, node in zip(tree["nodes"], benchmark.nodes):
        counts = ("per_second", "lost_images", "lost_forecasts", "waiting")
        entry.update({name: getattr(node, name) for name in counts})
    return tree


def _parse(kind: Any, value: Any) -> Any:
    """Make a dataclass from the JSON of its asdict; unknown keys are ignored."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if value is None else _parse(inner[0], value)
    if is_dataclass(kind):
        made: Any = kind
        return made(**{name: _parse(hint, value[name]) for name, hint in get_type_hints(kind).items()})
    if origin is tuple:
        return tuple(_parse(inner[0], item) for item in value)  # all tuples here are of one kind
    if origin is dict:
        return {name: _parse(inner[1], item) for name, item in value.items()}
    return value
