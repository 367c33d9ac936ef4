# SPDX-License-Identifier: Apache-2.0
"""Training: losses vanish where they should, and the loop runs, alone and in company."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.batch_samples import SIZE, sample_batch
from support.small_training import small_training, worlds_made_once
from torch import Tensor

from pixel4d_ros.predictor.checkpoint import load_weights, save_weights
from pixel4d_ros.predictor.encoder import Encoder
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.training import loop, losses, rendering
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.config import PARTS, TrainingConfig
from pixel4d_ros.training.rendering import predict_views
from pixel4d_ros.training.taught_flow import FlowPairs, flow_loss


def test_joined_batches_pad_their_objects() -> None:
    some, none = sample_batch(objects=2), sample_batch(objects=0)
    both = Batch.join([some, none])
    assert both.motions.shape == (2, 3, 4, 3) and both.centroids.shape == (2, 3, 3)
    assert torch.equal(both.part(0, 1).motions, some.motions)
    assert not both.part(1, 2).motions.any()


def test_residuals_are_left_out_in_training_only() -> None:
    torch.manual_seed(0)
    network, image = Network(), torch.rand(2, 3, 64, 64)
    network.encoder.drop_residuals(0.9)
    network.train()
    assert not torch.equal(network.encoder(image)[-1], network.encoder(image)[-1])
    network.eval()
    assert torch.equal(network.encoder(image)[-1], network.encoder(image)[-1])


# The loop


@pytest.fixture(scope="module")
def small_runs() -> Iterator[None]:
    """Runs of little work, which share their synthetic batches."""
    with small_training(SIZE), worlds_made_once():
        yield


def take_step(
    network: torch.nn.Module, optimizer: torch.optim.AdamW, batch: Batch, config: TrainingConfig
) -> dict[str, Tensor]:
    """A step on a batch, of one resolution; the parts of its loss."""
    loss, parts = loop.batch_loss(network, batch, batch, config, 0.5)
    return parts | loop.optimizer_step(loss, network, optimizer)


def tiny_config(out: Path, steps: int = 2) -> TrainingConfig:
    return TrainingConfig(
        out=out, steps=steps, batch=0, synthetic_batch=1, synthetic_pool=2, targets=1, widen=1.0, device="cpu"
    )


def test_every_parameter_gets_a_finite_gradient() -> None:
    torch.manual_seed(0)
    network, batch = Network().train(), sample_batch()
    prediction = predict_views(network, batch, batch, 1.0, torch.zeros(1, dtype=torch.bool), reference_share=1.0)
    assert prediction.views.shape == (1, 2, 3, 32, 64)
    total, parts = losses.total_loss(prediction, batch, batch, 0.5, 0.2)
    movable, _ = losses.movable_loss(prediction, batch)  # is trained alone, since few sources label what stands
    pairs = FlowPairs(
        torch.rand(1, 3, 32, 64), torch.rand(1, 3, 32, 64), torch.ones(2, 2, 32, 64), torch.ones(2, 32, 64) > 0
    )
    flow, _ = flow_loss(network.flow, pairs)  # likewise
    (total + movable + flow).backward()
    assert all(math.isfinite(value) for value in parts.values())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.usefixtures("small_runs")
def test_a_short_training_writes_weights_that_load(tmp_path: Path) -> None:
    path = loop.train(tiny_config(tmp_path / "new" / "weights.safetensors"), [])
    network = Network()
    assert len(load_weights(network, path)) == 64
    # Two steps lie between the start, which the seed says, and these weights: at most the learning rate each.
    torch.manual_seed(0)
    start = torch.cat([p.flatten() for p in Network().parameters()])
    moved = (torch.cat([p.flatten() for p in network.parameters()]) - start).detach().abs()
    rate = TrainingConfig.rate
    assert 0.2 * rate < moved.mean() < 2 * rate
    assert moved.max() < 10 * rate
    # And training goes on from what it wrote.
    assert loop.train(replace(tiny_config(tmp_path / "more.safetensors", steps=1), weights=path), []).is_file()


@pytest.mark.usefixtures("small_runs")
def test_both_encoders_start_from_the_backbone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    backbone = Encoder().state_dict()
    torch.save(backbone, tmp_path / "imagenet.pth")
    config = replace(tiny_config(tmp_path / "out.safetensors", steps=1), backbone=tmp_path / "imagenet.pth", rate=1e-9)
    trained = load_file(loop.train(config, []))
    for branch in ("", "surface."):
        for name, _ in Encoder().named_parameters():
            assert torch.allclose(trained[f"{branch}encoder.{name}"], backbone[name].half(), atol=1e-3), (branch, name)


@pytest.mark.slow
@pytest.mark.usefixtures("small_runs")
@pytest.mark.parametrize("only", ["motion", "depth", "static", "surface", "sweep"])
def test_one_branch_is_trained_and_all_else_stays_bit_for_bit(only: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    start = tmp_path / "start.safetensors"
    save_weights(Network(), start)
    config = tiny_config(tmp_path / "out.safetensors", steps=1)
    config = replace(config, only=only, weights=start, ema=0.0, synthetic_batch=4)  # some in which something moves
    before, after = load_file(start), load_file(loop.train(config, []))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    parameters = {name for name, _ in Network().named_parameters()}
    trained = {name for name in parameters if name.startswith(tuple(f"{part}." for part in PARTS[only]))}
    # The encoder's changes at its low rate may be below half precision.
    assert {name for name in trained if "encoder" not in name} <= changed <= trained


def test_a_step_of_depth_renders_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "rasterize", lambda *args, **kwargs: pytest.fail("a view was rendered"))
    torch.manual_seed(0)
    network, batch = Network().train(), sample_batch()
    config = replace(tiny_config(Path()), only="depth", weights=Path("any"))
    parts = take_step(network, loop.build_optimizer(network, config), batch, config)
    assert parts.keys() == {"coarse", "edges", "mobility", "objects", "spread", "gradient", "skipped"}
    assert all(p.grad is not None for p in network.static.parameters())
    assert all(p.grad is None for p in network.surface.parameters())


def test_a_step_of_motion_alone_teaches_every_parameter_of_its_branch() -> None:
    torch.manual_seed(0)
    network, batch = Network().train(), sample_batch()
    config = replace(tiny_config(Path()), only="motion", weights=Path("any"))
    parts = take_step(network, loop.build_optimizer(network, config), batch, config)
    assert parts.keys() == {"mobility", "objects", "spread", "gradient", "skipped"} and not parts["skipped"]
    for name, parameter in network.named_parameters():
        if name.startswith("dynamic."):
            assert parameter.grad is not None and parameter.grad.any(), name
        else:
            assert parameter.grad is None, name


def test_a_step_that_is_not_finite_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), 0.1, fused=True)
    before = layer.weight.clone()
    monkeypatch.setattr(loop, "predict_views", lambda network, *rest, **shares: network)

    def not_finite(network: torch.nn.Linear, *rest: object) -> tuple[Tensor, dict[str, Tensor]]:
        return (network.weight * math.inf).sum(), {}

    monkeypatch.setattr(loop, "total_loss", not_finite)
    parts = take_step(layer, optimizer, sample_batch(), tiny_config(Path()))
    assert parts["skipped"] == 1
    assert torch.equal(layer.weight, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_step_waits_for_the_gpu_only_where_gsplat_counts() -> None:
    on_cpu = sample_batch()
    batch = Batch(**{f.name: getattr(on_cpu, f.name).cuda() for f in fields(Batch)})
    config = replace(tiny_config(Path()), device="cuda")
    network = Network().cuda().train()
    optimizer = loop.build_optimizer(network, config)
    take_step(network, optimizer, batch, config)  # loads kernels
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            take_step(network, optimizer, batch, config)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(w.message) for w in said if "synchroniz" in str(w.message)]
    assert len(waits) <= 1, waits
