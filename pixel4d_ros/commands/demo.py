# SPDX-License-Identifier: Apache-2.0
"""`pixel4d demo`: run the real node on a replayed driving log, in real time over DDS, and write a report."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixel4d_ros.logs.options import FASTEST_RATE, RECORDING, RECTIFIED

if TYPE_CHECKING:
    from pixel4d_ros.geometry.rotations import FloatArray
    from pixel4d_ros.logs.streams import Streams

NODE = "/forecast_node"
RECORDED = f"{NODE}/[!s]*"  # without the splats: 25 MB each, for RVizSplat only
PLAN = "/planned_path"
STREET_SEED, STREET_FRAMES, STREET_SIZE = 0, 100, (416, 128)
START_TIMEOUT_S = 300.0  # the first start compiles kernels
SLOWEST = 3  # times real time: a slower replay has failed
REPLAYS, CLOCK_TIMEOUT_S = 3, 20.0  # attempts to start it, timeout of its first /clock
LINGER_S = 60.0  # timeout of the first forecast after the replay's end
REST_S = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `pixel4d demo`."""
    parser.add_argument(
        "--log", type=Path, help="a driving log: .mcap, rosbag2 or rosbag1 (default: a synthetic street)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="folder for the results (default %(default)s)"
    )
    parser.add_argument("--camera", metavar="TOPIC", help="the image topic or its namespace (default: most plausible)")
    parser.add_argument("--rectified", action="store_const", const=True, help=RECTIFIED)
    parser.add_argument("--rate", type=float, default=1.0, help="replay speed, 1 is real time (default %(default)s)")
    parser.add_argument("--duration", type=float, metavar="S", help="only the first S seconds of the log")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default %(default)s)")
    parser.add_argument("--samples", type=int, default=1, help="sampled futures per image (default %(default)s)")
    parser.add_argument("--weights", type=Path, help="predictor weights (default: those of the package)")


def run(args: argparse.Namespace) -> int:
    """Run the demo. Raises ValueError or ProcessError with cause and cure."""
    from pixel4d_ros.evaluation.report import write_report
    from pixel4d_ros.files import check_folder, check_target, staging
    from pixel4d_ros.logs.cloud import save_middle_cloud

    check_numbers(args)
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    out: Path = args.out
    check_folder(out)
    check_target(out / RECORDING, inputs=[args.log])
    job = read_job(args.log or street(out), args.camera, args.rectified)
    log_progress(f"log       {job.log}: {job.seconds:.1f} s of {job.streams.image.name}, {job.plan_note}")
    with staging(out) as made:
        recorded = made / RECORDING
        forecast(job, args, recorded)
        log_progress("report    comparing the forecasts with the later images")
        numbers = write_report(job.log, recorded, made, args.camera, rectified=args.rectified)
        count = save_middle_cloud(recorded, f"{NODE}/gaussians", made / "gaussians.ply")
    summarise(numbers, count, out, time.monotonic() - began)
    return 0


def check_numbers(args: argparse.Namespace) -> None:
    """Raise ValueError for numbers that the replay or the node would refuse after their start."""
    if not 0 < args.rate <= FASTEST_RATE or args.samples < 1:
        raise ValueError(
            f"--rate must be positive and at most {FASTEST_RATE:g}, --samples at least 1, got {args.rate:g} and"
            f" {args.samples}"
        )
    if args.duration is not None and not 0 < args.duration < float("inf"):
        raise ValueError(f"--duration must be positive seconds, got {args.duration:g}")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def log_progress(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def street(out: Path) -> Path:
    """The synthetic street's log in the folder out; created again only if its settings or code have changed."""
    import pixel4d_ros.synthetic as synthetic

    path, note = out / "street.mcap", out / "street.json"
    code = hashlib.sha256()
    for source in sorted(Path(str(synthetic.__file__)).parent.glob("*.py")):
        code.update(source.read_bytes())
    made_of = json.dumps([STREET_SEED, STREET_FRAMES, STREET_SIZE, code.hexdigest()])
    if not (path.is_file() and note.is_file() and note.read_text() == made_of):
        log_progress("log       rendering the synthetic street")
        synthetic.write_street_log(path, seed=STREET_SEED, frames=STREET_FRAMES, size=STREET_SIZE)
        note.write_text(made_of)
    return path


@dataclass(frozen=True)
class Job:
    """A log, and the node's parameters for it."""

    log: Path
    seconds: float
    streams: Streams
    base_frame: str
    mounting: FloatArray  # (4, 4) T_base_camera
    rectified: bool = False  # the images, so that P of their CameraInfo counts

    @property
    def plan_topic(self) -> str:
        """Where the planned trajectory is published."""
        return self.streams.path.name if self.streams.path else PLAN

    @property
    def plan_note(self) -> str:
        """Text about the plan."""
        return f"plan {self.streams.path.name}" if self.streams.path else "plan: the recorded poses"

    @property
    def replayed(self) -> list[str]:
        """The topics that the node subscribes to."""
        s = self.streams
        # tf2_msgs needs a ROS distribution; without it the node gets the mounting as parameters.
        tf = [s.tf, s.tf_static] if importlib.util.find_spec("tf2_msgs") else []
        return [topic.name for topic in (s.image, s.camera_info, s.odometry, s.path, *tf) if topic is not None]


def read_job(log_path: Path, camera: str | None, rectified: bool | None = None) -> Job:
    """Read the streams of a log. Raises LogError if the node could not use it. rectified: see read_image_camera."""
    from pixel4d_ros.logs.calibration import camera_frame, read_image_camera
    from pixel4d_ros.logs.reader import LogError, LogReader
    from pixel4d_ros.logs.streams import pick_streams
    from pixel4d_ros.logs.transforms import read_frames

    with LogReader(log_path) as log:
        streams = pick_streams(log, camera)
        image = next(log.messages([streams.image.name])).message
        calibrated = read_image_camera(log, streams.image, streams.camera_info, rectified=rectified)
        try:
            frame = camera_frame(log, image, streams.camera_info)
            track, mounting = read_frames(log, streams).camera_track(frame)
        except LogError as error:
            raise LogError(f"{log.path}: {error}") from None
        seconds = (log.end_ns - log.start_ns) * 1e-9
        return Job(log.path, seconds, streams, track.child, mounting, calibrated.rectified)


def forecast(job: Job, args: argparse.Namespace, recorded: Path) -> None:
    """Run node, recorder and replay as three processes; their output goes to files beside the recording."""
    from pixel4d_ros.ros.bag.record import TIME_BEGAN
    from pixel4d_ros.ros.processes import Child, ProcessError, ros_environment

    environment = ros_environment()
    recorder = node = replay = None
    try:
        command = cli(
            "record", str(recorded.absolute()), "--overwrite", "--use-sim-time", "--topics", RECORDED, "/diagnostics"
        )
        recorder = Child.start("recorder", command, environment, args.out / "recorder.log")
        log_progress(f"node      starting forecast_node (domain {environment['ROS_DOMAIN_ID']}, device {args.device})")
        began = time.monotonic()
        node = Child.start("forecast node", node_command(job, args), environment, args.out / "node.log")
        for topic in ("forecast", "gaussians"):
            if not recorder.wait_for_output(f"recording {NODE}/{topic}\n", [node], START_TIMEOUT_S):
                raise ProcessError(f"the node was not ready within {START_TIMEOUT_S:g} s{node.last_words()}")
        log_progress(f"node      ready after {time.monotonic() - began:.1f} s, replaying in real time x {args.rate:g}")
        # DDS discovery between two processes fails now and then; a new process is found.
        for _ in range(REPLAYS):
            replay = Child.start(
                "replay", replay_command(job, args), environment, args.out / "replay.log", show_errors=True
            )
            if recorder.wait_for_output(TIME_BEGAN, [node, replay], CLOCK_TIMEOUT_S):
                break
            log_progress("replay    the recorder did not discover it: starting again")
            replay.end()
        else:
            raise ProcessError(f"the recorder received no /clock from {REPLAYS} replays")
        seconds = (job.seconds if args.duration is None else args.duration) / args.rate
        replay.wait_for_output("replayed ", [node, recorder], seconds * SLOWEST + START_TIMEOUT_S)
        # The clock runs until the node has published, and REST_S longer for its current forecast.
        if not recorder.wait_for_output(f"first message on {NODE}/gaussians\n", [node, replay], LINGER_S):
            raise ProcessError(f"the node forecast nothing from {job.log}{node.last_words()}")
        time.sleep(REST_S)
        log_progress(f"replay    {replay.output.strip()}")
        replay.stop()
        node.stop()
        recorder.stop()
    finally:
        for child in (replay, node, recorder):
            if child is not None:
                child.end()


def node_command(job: Job, args: argparse.Namespace) -> list[str]:
    """The forecast node, with its topics and parameters for this log."""
    parameters: dict[str, Any] = {
        "use_sim_time": True,
        "device": args.device,
        "num_samples": args.samples,
        "image_transport": "compressed" if job.streams.compressed else "raw",
        "base_frame": job.base_frame,
        "rectify": not job.rectified,
        **mounting_parameters(job.mounting),
    }
    if args.weights is not None:
        parameters["weights"] = str(args.weights.resolve())
    remaps = {"image": job.streams.image, "camera_info": job.streams.camera_info, "odometry": job.streams.odometry}
    options = [f"-p {name}:={json.dumps(value)}" for name, value in parameters.items()]
    options += [f"-r {name}:={topic.name}" for name, topic in remaps.items() if topic is not None]
    options.append(f"-r trajectory:={job.plan_topic}")
    ros_args = [word for option in options for word in option.split(" ", 1)]
    return [sys.executable, "-m", "pixel4d_ros.ros.forecast_node", "--ros-args", *ros_args]


def mounting_parameters(mounting: FloatArray) -> dict[str, list[float]]:
    """The node's parameters for T_base_camera (4, 4)."""
    from pixel4d_ros.geometry.rotations import xyzw_from_matrix

    return {
        "mounting.translation": [round(float(v), 9) for v in mounting[:3, 3]],
        "mounting.rotation": [round(float(v), 9) for v in xyzw_from_matrix(mounting[:3, :3])],
    }


def replay_command(job: Job, args: argparse.Namespace) -> list[str]:
    """The replay of the node's topics, which waits for its subscriptions."""
    s = job.streams
    awaited = [topic.name for topic in (s.image, s.camera_info, s.odometry, s.path) if topic is not None]
    options = ["--rate", str(args.rate), "--linger", str(2 * LINGER_S), "--wait-for-subscribers", *awaited]
    options += ["--camera", args.camera] if args.camera else []
    options += ["--duration", str(args.duration)] if args.duration is not None else []
    return cli("replay", str(job.log.absolute()), *options, "--plan-from-odometry", "--topics", *job.replayed)


def cli(*arguments: str) -> list[str]:
    """The command line of a pixel4d subcommand."""
    return [sys.executable, "-m", "pixel4d_ros.cli", *arguments]


def summarise(numbers: dict[str, Any], gaussians: int, out: Path, seconds: float) -> None:
    """Print a summary and the files."""
    from pixel4d_ros.evaluation.report import summary

    files = ("forecast.mp4", "gaussians.ply", RECORDING, "report.json", "report.html", "scores.jsonl")
    log_progress(f"\n{summary(numbers)}\n{gaussians} Gaussians in the middle frame; the demo took {seconds:.0f} s\n")
    for name in files:
        path = out / name
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
