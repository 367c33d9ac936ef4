# SPDX-License-Identifier: Apache-2.0
"""Give every reader of files and log messages mutated input: one clear error or a result, never a crash or a hang.

    python research/fuzz_readers.py --seconds 600 --seed 1

Ends with 1, and writes the input that did it, when a reader raised anything else than ValueError or OSError, took more
than SLOW_S of the CPU, or allocated more than MOST_MIB. test/test_fuzz_readers.py runs a short part of it.
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
from support.mutation import mutated, mutated_text  # noqa: E402

from pixel4d_ros.camera_path_file import read_camera_path  # noqa: E402
from pixel4d_ros.datasets.driving_log import read_clip  # noqa: E402
from pixel4d_ros.datasets.kitti_raw import read_kitti_raw  # noqa: E402
from pixel4d_ros.geometry.camera_info import read_camera_info  # noqa: E402
from pixel4d_ros.logs.images import decode_depth, decode_image  # noqa: E402
from pixel4d_ros.logs.reader import LogReader  # noqa: E402
from pixel4d_ros.logs.types import jazzy_types  # noqa: E402
from pixel4d_ros.scene import DynamicGaussians  # noqa: E402

SLOW_S = 10.0  # CPU time: clocks on the wall also count what other programs do
MOST_MIB = 1000


@dataclass(frozen=True)
class Target:
    """A reader, and real input for it."""

    name: str
    data: bytes
    read: Callable[[bytes], object]
    mutate: Callable[[bytes, np.random.Generator], bytes] = mutated


class Excess(AssertionError):
    """A reader took too much time or memory, or its error has several lines."""


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
    outcomes: dict[str, Counter[str]] = {}
    found = list(targets(folder))
    done = 0
    while time.monotonic() < end and (rounds is None or done < rounds):
        for target in found:
            data = target.mutate(target.data, rng)
            try:
                outcome = _outcome(target, data)
            except BaseException:
                crash = Path(tempfile.gettempdir()) / f"crash_{target.name}"
                crash.write_bytes(data)
                print(f"{target.name} failed; its input is {crash}", file=sys.stderr)
                raise
            outcomes.setdefault(target.name, Counter())[outcome] += 1
        done += 1
    return {name: dict(counts) for name, counts in outcomes.items()}


def _outcome(target: Target, data: bytes) -> str:
    """Whether the data were "read" or "refused". Raises what the reader should not have raised, or Excess."""
    outcome, began, before = "read", time.process_time(), _peak_mib()
    try:
        target.read(data)
    except (ValueError, OSError) as error:
        outcome = "refused"
        if "\n" in str(error):
            raise Excess(f"{target.name}: the error has several lines: {error}") from error
    if time.process_time() - began > SLOW_S:
        raise Excess(f"{target.name} took {time.process_time() - began:.0f} s")
    if _peak_mib() - before > MOST_MIB:
        raise Excess(f"{target.name}: {_peak_mib() - before:.0f} MiB more than before were in use")
    return outcome


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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
    yield Target("metadata_yaml_text", metadata.read_bytes(), read_metadata, mutated_text)


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
    path_file = folder / "path.csv"

    def read_path(data: bytes) -> None:
        path_file.write_bytes(data)
        read_camera_path(path_file, 1.3)

    for form, text in _camera_paths().items():
        yield Target(f"camera_path_{form}", text.encode(), read_path, mutated_text)
        yield Target(f"camera_path_{form}_bytes", text.encode(), read_path)
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

        is_text = file.suffix in (".txt", ".xml")
        yield Target(f"kitti_{file.name}", whole, read_drive, mutated_text if is_text else mutated)
    scene_file = folder / "scene.safetensors"
    _small_scene().save(scene_file)

    def read_scene(data: bytes) -> None:
        mutated_scene = folder / "mutated.safetensors"
        mutated_scene.write_bytes(data)
        DynamicGaussians.load(mutated_scene)

    yield Target("scene", scene_file.read_bytes(), read_scene)


def _camera_paths() -> dict[str, str]:
    """A path of 8 m/s in each form that is read."""
    rows = [[round(0.1 * i, 1), 0, 0, round(0.8 * i, 1), 0, 0, 0, 1] for i in range(20)]
    words = [[str(value) for value in row] for row in rows]
    return {
        "spaces": "\n".join(map(" ".join, words)),
        "header": "t,x,y,z,qx,qy,qz,qw\n" + "\n".join(map(",".join, words)),
        "semicolons": "# a path\n" + "\n".join(map(";".join, words)),
        "dates": "\n".join(" ".join([f"{1.7e9 + float(row[0]):.1f}", *row[1:]]) for row in words),
        "json": json.dumps(rows),
    }


def _small_scene() -> DynamicGaussians:
    from test_scene import random_scene

    return random_scene(1, n=20)


if __name__ == "__main__":
    raise SystemExit(main())
