# SPDX-License-Identifier: Apache-2.0
"""`pixel4d replay --score`: record a node's forecasts of the replay and score them against the log."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from pixel4d_ros.files import check_folder, check_target
from pixel4d_ros.logs.options import RECORDING, RECTIFIED

if TYPE_CHECKING:
    from pixel4d_ros.logs.writer import LogWriter
    from pixel4d_ros.ros.bag.record import Recorder

DIAGNOSTICS = "/diagnostics"
LAST_FORECAST_S = 3.0  # without messages, after which no more forecasts are expected


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the evaluation mode."""
    parser.add_argument(
        "--score",
        type=Path,
        metavar="FOLDER",
        help="score every forecast of a running node against the later images of the log:"
        " scores.jsonl, report.html, report.json, forecast.mp4 and forecast.mcap",
    )
    parser.add_argument("--rectified", action="store_const", const=True, help=f"of --score: {RECTIFIED}")
    parser.add_argument(
        "--score-topic",
        default="/forecast_node/forecast",
        metavar="TOPIC",
        help="the topic that --score records (default %(default)s)",
    )


class Scoring:
    """A recorder that runs during the replay."""

    def __init__(self, recorder: Recorder, log: LogWriter, topic: str) -> None:
        self.topic = topic
        self._recorder, self._log = recorder, log
        self._count, self._received = -1, 0.0

    @property
    def is_ready(self) -> bool:
        """Whether the forecast topic is subscribed to."""
        return self._recorder.subscriptions.get(self.topic) is not None

    def expects_more(self) -> bool:
        """Whether the node may still publish forecasts after the replay's end. Poll it."""
        now, count = time.monotonic(), self._log.counts.get(self.topic, 0)
        if count != self._count:
            self._count, self._received = count, now
        return now < self._received + LAST_FORECAST_S


@contextmanager
def scoring(folder: Path, replayed: Path, topic: str, simulated_time: bool) -> Iterator[Scoring]:
    """Record forecasts and diagnostics to FOLDER/forecast.mcap within the context. Needs a ROS context.

    replayed: the log, which must be another file.
    """
    import rclpy
    from rclpy.parameter import Parameter

    from pixel4d_ros.logs.writer import LogWriter
    from pixel4d_ros.ros.bag.record import Recorder

    check_folder(folder)
    check_target(folder / RECORDING, inputs=[replayed])
    with LogWriter(folder / RECORDING, recording=True) as log:
        # With the replay's clock, ages and rates in the report are in log time.
        simulated = [Parameter("use_sim_time", value=simulated_time)]
        node = rclpy.create_node("pixel4d_score", parameter_overrides=simulated, start_parameter_services=False)
        recorder = Recorder(node, log, [topic, DIAGNOSTICS], everything=False)
        done = Event()
        thread = Thread(target=recorder.spin, args=(done, None), name="score")
        thread.start()
        try:
            yield Scoring(recorder, log, topic)
        finally:
            done.set()
            thread.join()
            node.destroy_node()


def report(log: Path, camera: str | None, folder: Path, rectified: bool | None = None) -> None:
    """Score FOLDER/forecast.mcap. Raises LogError if it has no forecast of the log's images."""
    from pixel4d_ros.evaluation.report import summary, write_report

    numbers = write_report(log, folder / RECORDING, folder, camera, None, rectified)
    print(f"{summary(numbers)}\n{folder / 'scores.jsonl'}\n{folder / 'report.html'}")
