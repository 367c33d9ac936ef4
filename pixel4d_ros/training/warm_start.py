"""Start a network from weights of an earlier generation, as far as their tensors fit."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from pixel4d_ros.predictor.checkpoint import FORMAT, read_weights
from pixel4d_ros.predictor.decoders import STATIC_STARTS
from pixel4d_ros.predictor.heads import MAX_DEPTH, MIN_DEPTH, STATIC_MAPS
from pixel4d_ros.predictor.network import Network

# The channels of a static head before there were modes of depth, in order, with their counts.
ONE_DEPTH_FORMAT = "pixel4d_network_3"
_ONE_DEPTH_MAPS = {
    "depth": 1,
    "size": 1,
    "opacity": 1,
    "border_color": 3,
    "hidden_depth": 1,
    "hidden_opacity": 1,
    "hidden_color": 3,
    "mobility": 1,
}
_TWICE_AS_FAR = math.log(2) / (0.22 * math.log(MAX_DEPTH / MIN_DEPTH))  # logits: images are seen twice as large now


def is_current(path: Path) -> bool:
    """Whether a weights file is of this version's network."""
    return read_weights(path)[0].get("format") == FORMAT


def fill_network(network: Network, path: Path) -> tuple[int, int]:
    """Copy the tensors that fit; how many of how many were filled. Raises WeightsError for what is no weights file."""
    metadata, given = read_weights(path)
    given = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in given.items()}
    if metadata.get("format") == ONE_DEPTH_FORMAT:
        given |= _static_head(given) | _object_head(given)
    own = network.state_dict()
    fitting = {name: t for name, t in given.items() if name in own and own[name].shape == t.shape}
    network.load_state_dict({**own, **fitting})
    return len(fitting), len(own)


def _static_head(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The head of STATIC_MAPS from one without modes: both modes and the hidden surface start as the one depth."""
    before = {}
    for part in ("weight", "bias"):
        pieces = given[f"static.head.{part}"].split(list(_ONE_DEPTH_MAPS.values()))
        before[part] = dict(zip(_ONE_DEPTH_MAPS, pieces))
    source = {name: name for name in _ONE_DEPTH_MAPS} | {"hidden_depth": "depth", "object": "mobility"}
    weights, biases = [], []
    for name, count in STATIC_MAPS.items():
        if name not in source:  # new: as an untrained head starts
            weight = torch.randn(count, *given["static.head.weight"].shape[1:]) * 0.005
            weights.append(weight)
            biases.append(torch.tensor(STATIC_STARTS[name]))
            continue
        weight, bias = before["weight"][source[name]], before["bias"][source[name]]
        if count > len(weight):
            weight, bias = weight.repeat(count, 1, 1, 1), bias.repeat(count)
        if source[name] == "depth":
            starts = torch.tensor(STATIC_STARTS[name])
            bias = bias + _TWICE_AS_FAR + starts - STATIC_STARTS["depth"][0]
        weights.append(weight)
        biases.append(bias)
    return {"static.head.weight": torch.cat(weights), "static.head.bias": torch.cat(biases)}


def _object_head(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The head of OBJECT_MAPS: what belongs to an object starts as what moves."""
    parts = {name: given[f"dynamic.objects.{name}"] for name in ("weight", "bias")}
    return {f"dynamic.objects.{name}": torch.cat((t, t[-1:])) for name, t in parts.items()}
