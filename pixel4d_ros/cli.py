# SPDX-License-Identifier: Apache-2.0
"""`pixel4d`: the command line, with one module per subcommand."""

from __future__ import annotations

import argparse
import logging
import sys
from importlib import import_module
from io import TextIOWrapper

from pixel4d_ros.errors import DeviceError

COMMANDS = {
    "forecast": ("pixel4d_ros.commands.forecast", "forecast a video and a moving scene from one image"),
    "replay": ("pixel4d_ros.ros.bag.replay", "publish a driving log over DDS in real time"),
    "record": ("pixel4d_ros.ros.bag.record", "record topics into an MCAP file"),
    "demo": ("pixel4d_ros.commands.demo", "run the node on a replayed log and report"),
    "train": ("pixel4d_ros.commands.train", "train the predictor"),
    "evaluate": ("pixel4d_ros.commands.evaluate", "compare forecasts with the later images of a log"),
    "benchmark": ("pixel4d_ros.commands.benchmark", "measure how long forecasts take on this machine"),
    "convert": ("pixel4d_ros.commands.convert", "write a data set's clip as a driving log that replays"),
    "export": ("pixel4d_ros.commands.export", "write a scene as splat files, one per time step"),
    "synthesize": ("pixel4d_ros.commands.synthesize", "write a synthetic driving log"),
}
FORECASTING = ("forecast", "evaluate", "benchmark", "export")  # commands that run what numba compiles
ROS_MODULES = ("rclpy", "rosidl_parser", "rosidl_runtime_py", "ament_index_python", "launch", "launch_ros", "tf2_ros")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand. Invalid input: one line on stderr and exit code 1."""
    for stream in (sys.stdout, sys.stderr):  # names of files need not be UTF-8
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(prog="pixel4d", description="Forecast what a robot's camera will see.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        subparsers.add_parser(name, help=text, description=text, add_help=False)
    chosen, _ = parser.parse_known_args(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        return _run(chosen.command, given[given.index(chosen.command) + 1 :])
    except KeyboardInterrupt:
        return 130
    except ImportError as error:
        print(f"pixel4d {chosen.command}: {_explained(error)}", file=sys.stderr)
    except (ValueError, OSError, DeviceError) as error:
        print(f"pixel4d {chosen.command}: {error}", file=sys.stderr)
    return 1


def _run(command: str, arguments: list[str]) -> int:
    # The subcommand's parser is built here, so that `pixel4d --help` imports nothing.
    module = import_module(COMMANDS[command][0])
    own = argparse.ArgumentParser(prog=f"pixel4d {command}", description=_sentence(COMMANDS[command][1]))
    module.add_arguments(own)
    args = own.parse_args(arguments)
    warnings = logging.StreamHandler()
    warnings.setLevel(logging.WARNING)  # what a command prints of its progress does not come twice
    logging.basicConfig(format="%(levelname)s: %(message)s", handlers=[warnings])
    if command not in FORECASTING:
        return int(module.run(args))
    from pixel4d_ros.compilation import announced_compilation

    with announced_compilation(lambda text: print(text, file=sys.stderr)):
        return int(module.run(args))


def _explained(error: ImportError) -> str:
    """The error with the cure for the missing module."""
    name = (error.name or "").partition(".")[0]
    if name in ROS_MODULES or name.endswith(("_msgs", "_interfaces")):
        return (
            f"{error}: this command needs ROS 2. `source /opt/ros/jazzy/setup.bash`, or run `make setup` and"
            " `source env.sh`"
        )
    return f"{error}: the installation lacks a package; run `make setup`, or `pip install .` in the repository"


if __name__ == "__main__":
    raise SystemExit(main())
