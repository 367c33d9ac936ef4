"""Milliseconds of a prediction on a GPU, with and without a reference image, and how far the fast path is off.

Usage: python research/time_prediction.py --weights out/train/weights.safetensors
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from pixel4d_ros.camera import Camera
from pixel4d_ros.predictor import Predictor
from pixel4d_ros.scene import DynamicGaussians
from pixel4d_ros.two_view.reference_view import ReferenceView


def main() -> None:
    """Print one line per case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="default: the shipped ones")
    parser.add_argument("--size", default="832x256", help="width x height of the image")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=100)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    device = torch.device(args.device)
    camera = Camera(np.array([[0.58 * width, 0, width / 2], [0, 0.58 * width, height / 2], [0, 0, 1]]), width, height)
    noise = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic", align_corners=False)
    image = (smooth[0].permute(1, 2, 0).clamp(0, 1) * 255).byte().contiguous()
    T = np.eye(4)
    T[2, 3] = -1.0
    reference = ReferenceView(image.roll(2, 1).numpy(), camera.K, T, -0.1)
    fast, slow = (Predictor.load(args.weights, device, fast) for fast in (True, False))
    for name, other in (("one image", None), ("with reference", reference)):

        def predict(predictor: Predictor, other: ReferenceView | None = other) -> DynamicGaussians:
            return predictor.predict(image, camera, 1, 0, None, 8.0, other)

        scene, exact = predict(fast), predict(slow)
        error = (scene.means[:, 2] / exact.means[:, 2] - 1).abs().median()
        print(f"{name}: {_milliseconds(lambda: predict(fast), args.runs, device):.2f} ms, {fast.path}, ", end="")
        print(f"eager {_milliseconds(lambda: predict(slow), 10, device):.2f} ms, median depth error {float(error):.5f}")


def _milliseconds(call: object, runs: int, device: torch.device) -> float:
    assert callable(call)
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    return 1000 * float(np.median(taken))


if __name__ == "__main__":
    main()
