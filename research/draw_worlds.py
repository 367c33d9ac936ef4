# SPDX-License-Identifier: Apache-2.0
"""Draw a grid of synthetic worlds: image, log depth in turbo colours and object ids of consecutive seeds.

python research/draw_worlds.py out.png --kind street --seed 900001 --count 8 --size 416x128
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pixel4d_ros.synthetic import sample_views
from pixel4d_ros.synthetic.assets import Assets, read_assets
from pixel4d_ros.synthetic.views import KINDS

NEAREST, FARTHEST = 1.0, 100.0  # metres: the ends of the depth colours


def depth_colors(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Depth (H, W), metres, as BGR colours (H, W, 3): near is red, far is blue, the sky is black."""
    seen = np.isfinite(depth) & (depth > 0)
    share = np.log(np.where(seen, depth, FARTHEST) / NEAREST) / np.log(FARTHEST / NEAREST)
    colors = cv2.applyColorMap(((1 - share.clip(0, 1)) * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    return np.where(seen[..., None], colors, 0).astype(np.uint8)


def id_colors(ids: NDArray[np.int64], moving: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Object ids (H, W) as BGR colours (H, W, 3): those that move (M + 1,) bright, others dark."""
    hue = (np.arange(len(moving)) * 47 % 180).astype(np.uint8)
    value = np.where(moving, 255, 110).astype(np.uint8)
    value[0] = 0
    table = cv2.cvtColor(np.stack((hue, np.full_like(hue, 200), value), -1)[None], cv2.COLOR_HSV2BGR)[0]
    return np.asarray(table[ids], np.uint8)


def draw(
    seed: int, kind: str, size: tuple[int, int], samples: int, camera: bool, assets: Assets | None
) -> NDArray[np.uint8]:
    """One row of the grid (H, 3 W, 3), BGR."""
    fine = 2 if samples == 4 else 1  # times the size, which is averaged
    drawn = size[0] * fine, size[1] * fine
    views = sample_views([seed], torch.zeros(1, 1), drawn, kind=kind, camera=camera, assets=assets)
    image = cv2.resize(views.rgb[0, 0].numpy()[..., ::-1], size, interpolation=cv2.INTER_AREA)
    moving = views.motions[0].abs().amax((-1, -2)).numpy() > 0
    depth, ids = (maps[0, 0, ::fine, ::fine].numpy() for maps in (views.depth, views.object_ids))
    return np.hstack(((image * 255).round().astype(np.uint8), depth_colors(depth), id_colors(ids, moving)))


def main(arguments: list[str] | None = None) -> int:
    """Write the grid; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="picture to write, .png or .jpg")
    parser.add_argument("--kind", choices=KINDS, default="street")
    parser.add_argument("--seed", type=int, default=900_001, help="first seed")
    parser.add_argument("--count", type=int, default=8, help="worlds, one per row")
    parser.add_argument("--size", default="416x128", help="WIDTHxHEIGHT of each picture")
    parser.add_argument("--samples", type=int, choices=(1, 4), default=1, help="rays per pixel")
    parser.add_argument("--camera", action="store_true", help="images as a camera records them")
    parser.add_argument("--assets", type=Path, help="folder of textured models, as for `pixel4d train --assets`")
    args = parser.parse_args(arguments)
    width, height = (int(v) for v in args.size.split("x"))
    assets = read_assets(args.assets) if args.assets else None
    look = args.kind, (width, height), args.samples, args.camera, assets
    rows = [draw(args.seed + k, *look) for k in range(args.count)]
    if not cv2.imwrite(str(args.out), np.vstack(rows)):
        print(f"cannot write {args.out}: choose a .png in a folder that can be written", file=sys.stderr)
        return 1
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
