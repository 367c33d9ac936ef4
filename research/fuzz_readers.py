# SPDX-License-Identifier: Apache-2.0
"""Give every reader of files and log messages mutated input: one clear error or a result, never a crash or a hang.

    python research/fuzz_readers.py --seconds 600 --seed 1

Ends with 1 and the input that did it when a reader raised anything else than ValueError or OSError, took more than
SLOW_S or allocated more than MOST_MIB. test/test_fuzz_readers.py runs a short part of it.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "test"))

from rosbags.rosbag2 import StoragePlugin  # noqa: E402
from support.dataset_samples import street  # noqa: E402
from support.kitti_sample import write_kitti  # noqa: E402
from support.log_samples import entries, write_mcap, write_rosbag1, write_rosbag2  # noqa: E402
from support.mutation import mutated  # noqa: E402

from pixel4d_ros.camera_path_file import read_camera_path  # noqa: E402
from pixel4d_ros.datasets.driving_log import read_clip  # noqa: E402
from pixel4d_ros.datasets.kitti_raw import read_kitti_raw  # noqa: E402
from pixel4d_ros.geometry.camera_info import read_camera_info  # noqa: E402
from pixel4d_ros.logs.images import decode_depth, decode_image  # noqa: E402
from pixel4d_ros.logs.reader import LogReader  # noqa: E402
from pixel4d_ros.logs.types import jazzy_types  # noqa: E402
from pixel4d_ros.scene import DynamicGaussians  # noqa: E402

SLOW_S = 120.0  # a hang; a busy machine takes 40 s for a rosbag1 now and then
MOST_MIB = 3000


@dataclass(frozen=True)
class Target:
    """A reader, and real input for it."""

    name: str
    data: bytes
    read: Callable[[bytes], object]


def main() -> int:
    """Fuzz for some time and print what the readers did."""
    parser = argparse.ArgumentParser(description="Fuzz the readers of files and log messages.")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = fuzz(Path(folder), args.seed, args.seconds)
    print(json.dumps(outcomes, indent=2))
    return 0


def fuzz(folder: Path, seed: int, seconds: float, rounds: int | None = None) -> dict[str, dict[str, int]]:
    """What the readers did, by reader: counts of "read" and of "refused". Raises what they should not have raised."""
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(seed)
    end = time.monotonic() + seconds
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: dict[str, Counter[str]] = {}
    found = list(targets(folder))
    done = 0
    while time.monotonic() < end and (rounds is None or done < rounds):
        for target in found:
            data = mutated(target.data, rng)
            began = time.monotonic()
            try:
                target.read(data)
                outcome = "read"
            except (ValueError, OSError) as error:
                outcome = "refused"
                if "\n" in str(error):
                    raise AssertionError(f"{target.name}: the error has several lines: {error}") from error
            except BaseException:
                crash = Path(tempfile.gettempdir()) / f"crash_{target.name}"
                crash.write_bytes(data)
                print(f"{target.name} crashed; its input is {crash}", file=sys.stderr)
                raise
            if time.monotonic() - began > SLOW_S:
                raise AssertionError(f"{target.name} took {time.monotonic() - began:.0f} s")
            if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 > MOST_MIB:
                raise AssertionError(f"{target.name}: {MOST_MIB} MiB more than before were in use")
            outcomes.setdefault(target.name, Counter())[outcome] += 1
        done += 1
    return {name: dict(counts) for name, counts in outcomes.items()}


def targets(folder: Path) -> Iterator[Target]:
    """The readers, each with a sample of what it reads."""
    yield from _logs(folder)
    yield from _messages()
    yield from _files(folder)


def _logs(folder: Path) -> Iterator[Target]:
    bag2 = write_rosbag2(folder / "bag2", list(entries()), StoragePlugin.SQLITE3)
    samples = {
        "mcap": write_mcap(folder / "a.mcap", entries(compressed=True, path=True)),
        "db3": next(bag2.glob("*.db3")),
        "bag": write_rosbag1(folder / "a.bag"),
    }
    for name, path in samples.items():

        def read(data: bytes, path: Path = path) -> None:
            target = folder / f"mutated{path.suffix}"
            target.write_bytes(data)
            clip = read_clip(target)
            for image in clip.images:
                assert image.ndim == 3

        yield Target(f"log_{name}", path.read_bytes(), read)
    metadata = bag2 / "metadata.yaml"

    def read_metadata(data: bytes) -> None:
        metadata.write_bytes(data)
        with LogReader(bag2) as log:
            for _ in log.messages():
                pass

    yield Target("metadata_yaml", metadata.read_bytes(), read_metadata)


def _messages() -> Iterator[Target]:
    """CDR bytes of messages, as a damaged or malicious publisher would send them."""
    types = jazzy_types()
    seen = set()
    for compressed in (False, True):
        for e in entries(compressed=compressed, path=True):
            kind = e.message.__msgtype__
            if (kind, e.topic) in seen:
                continue
            seen.add((kind, e.topic))

            def read(data: bytes, kind: str = kind, topic: str = e.topic) -> None:
                try:
                    message = types.deserialize_cdr(data, kind)
                except Exception as error:  # LogReader names these, see reader.explained
                    raise ValueError("damaged") from error
                if kind.endswith("CameraInfo"):
                    read_camera_info(message, 32, 24)
                elif "Image" in kind:
                    decode_depth(message) if "depth" in topic else decode_image(message)

            name = kind.rpartition("/")[2] + ("_depth" if "depth" in e.topic else "")
            yield Target(f"message_{name}_{int(compressed)}", bytes(types.serialize_cdr(e.message, kind)), read)


def _files(folder: Path) -> Iterator[Target]:
    rgb = np.asarray(street().images)[0]
    message = jazzy_types().types["sensor_msgs/msg/CompressedImage"]
    header = next(iter(entries(compressed=True))).message
    del header
    for suffix in (".png", ".jpg"):

        def read_picture(data: bytes) -> None:
            pixels = np.frombuffer(data, np.uint8)
            decode_image(message(None, "jpeg", pixels))

        yield Target(f"picture_{suffix[1:]}", cv2.imencode(suffix, rgb)[1].tobytes(), read_picture)
    rows = "\n".join(f"{0.1 * i:.1f} 0 0 {0.8 * i:.1f} 0 0 0 1" for i in range(20))
    path_file = folder / "path.csv"

    def read_path(data: bytes) -> None:
        path_file.write_bytes(data)
        read_camera_path(path_file, 1.3)

    yield Target("camera_path", rows.encode(), read_path)
    drive = write_kitti(folder / "kitti")
    for relative in (
        "../calib_cam_to_cam.txt",
        "oxts/data/0000000001.txt",
        "image_02/timestamps.txt",
        "tracklet_labels.xml",
        "velodyne_points/data/0000000001.bin",
        "image_02/data/0000000001.png",
    ):
        file = drive / relative
        whole = file.read_bytes()

        def read_drive(data: bytes, file: Path = file, whole: bytes = whole) -> None:
            file.write_bytes(data)
            try:
                clip = read_kitti_raw(drive)
                for i in range(len(clip)):
                    assert clip.images[i].ndim == 3
                    assert clip.depth is None or clip.depth[i].ndim == 2
            finally:
                file.write_bytes(whole)

        yield Target(f"kitti_{file.name}", whole, read_drive)
    scene_file = folder / "scene.safetensors"
    _small_scene().save(scene_file)

    def read_scene(data: bytes) -> None:
        mutated_scene = folder / "mutated.safetensors"
        mutated_scene.write_bytes(data)
        DynamicGaussians.load(mutated_scene)

    yield Target("scene", scene_file.read_bytes(), read_scene)


def _small_scene() -> DynamicGaussians:
    from test_scene import random_scene

    return random_scene(1, n=20)


if __name__ == "__main__":
    raise SystemExit(main())
