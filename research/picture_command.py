# SPDX-License-Identifier: Apache-2.0
"""The command line that scripts share which draw, with a network, one picture of the data in ../shared."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import cv2

from pixel4d_ros.errors import DeviceError
from pixel4d_ros.evaluation.compare import Picture
from pixel4d_ros.forecaster import Forecaster


def picture_parser(description: str) -> argparse.ArgumentParser:
    """Options out, weights, shared and device."""
    p = argparse.ArgumentParser(description=description)
    p.add_argument("out", type=Path, help="picture to write: .png, .jpg or .webp")
    p.add_argument("--weights", type=Path, help="weights file (default: the shipped one)")
    p.add_argument("--shared", type=Path, default=Path("../shared"), help="folder of logs/, pairs/ and stereo2015/")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    return p


def write_picture(script: str, args: argparse.Namespace, draw: Callable[[Forecaster], Picture]) -> int:
    """Write what draw makes with the network, RGB; returns the exit status. args are those of picture_parser."""
    try:
        picture = draw(Forecaster.load(args.weights, args.device))
        args.out.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(args.out), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
            raise ValueError(f"{args.out} could not be written")
    except (ValueError, OSError, DeviceError, cv2.error) as error:
        print(f"{script}: {error}", file=sys.stderr)
        return 1
    return 0
