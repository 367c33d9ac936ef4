# SPDX-License-Identifier: Apache-2.0
"""The predictor of one camera as an ONNX graph: image in, Gaussians and their objects' motions out.

Resizing, padding, the network, lifting to Gaussians and grouping to objects are all in the graph; shapes are fixed and
the batch is 1. Outside stay moving the Gaussians (scene.py has the formulas), rendering, and what is optional: sensor
depth, a reference image, sampled futures. docs/onboard.md describes inputs and outputs.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixel4d_ros.camera import Camera
from pixel4d_ros.predictor.heads import SPEED_SCALE
from pixel4d_ros.predictor.input_constants import InputConstants
from pixel4d_ros.predictor.predictor import Predictor, predict_parts

OPSET = 18  # TensorRT 10 reads up to 20
INPUTS = ("image", "speed")
LAYER_OUTPUTS = ("means", "quaternions", "scales", "opacities", "colors")
OUTPUTS = (*LAYER_OUTPUTS, "object_ids", "centroids", "motions")
_MISSING = "ONNX export needs onnxscript: pip install 'pixel4d_ros[onnx]', or pip install onnxscript"


class OnnxGraph(nn.Module):
    """image (H, W, 3) uint8 RGB and speed (2,) -> OUTPUTS, for one camera.

    speed: the camera's forward speed in m/s, and 1; or 0, 0 where it is unknown.
    """

    def __init__(self, predictor: Predictor, camera: Camera) -> None:
        super().__init__()
        self.network = predictor.network
        self._constants = InputConstants(camera, predictor.device)

    def forward(self, image: Tensor, speed: Tensor) -> tuple[Tensor, ...]:
        """OUTPUTS: the Gaussians, their object ids (N,), and by id centroids (M, 3) and motions (M, 4, 3)."""
        known = speed[1:]
        parts = predict_parts(
            self.network, self._constants, image, torch.cat((speed[:1] / SPEED_SCALE * known, known))[None]
        )
        layers = [torch.cat([getattr(layer, name)[0] for layer in parts.layers]) for name in LAYER_OUTPUTS]
        ids = parts.objects.ids.flatten().index_select(0, parts.pixels)
        return (*layers, ids.to(torch.int32), parts.objects.centroids, parts.objects.motion[:, 0])


def export_onnx(predictor: Predictor, camera: Camera, path: Path) -> None:
    """Write the graph of a camera, with its weights in the same file. Raises ImportError naming the missing package."""
    try:
        import onnxscript  # noqa: F401 (torch's exporter uses it)
    except ImportError as error:
        raise ImportError(_MISSING) from error
    graph = OnnxGraph(predictor, camera).eval()
    image = torch.zeros(camera.height, camera.width, 3, dtype=torch.uint8)
    inputs = (image, torch.zeros(2))
    options: dict[str, Any] = {"input_names": list(INPUTS), "output_names": list(OUTPUTS), "opset_version": OPSET}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # that torchvision is absent
        graph(*inputs)  # makes the constants, which are then no part of the graph's computation
        torch.onnx.export(graph, inputs, str(path), dynamo=True, external_data=False, verbose=False, **options)
