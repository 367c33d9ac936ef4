# SPDX-License-Identifier: Apache-2.0
"""Training of the flow network by a larger one: pairs of a batch's images, their colours, and the loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.batch_samples import SIZE, sample_batch
from torch import Tensor, nn

from pixel4d_ros.predictor.checkpoint import save_weights
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.predictor.optical_flow import OpticalFlow
from pixel4d_ros.synthetic import write_street_log
from pixel4d_ros.training import loop, sources, synthetic_data, taught_flow
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.config import TrainingConfig, TrainingSource
from pixel4d_ros.training.sources import TrainingData
from pixel4d_ros.training.taught_flow import KEPT, REUSED, FlowPairs, TaughtFlow, flow_loss

WIDTH, HEIGHT = SIZE
FLOW = 6.0  # pixels to the right that the fake teacher sees everywhere


class FakeTeacher:
    """In place of GMFlow: everything moves by FLOW pixels; it keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Tensor, Tensor]] = []

    def network(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append((first, second))
        there = torch.zeros(len(first), 2, *first.shape[2:])
        there[:, 0] = FLOW
        return there, -there


def taught(seed: int = 0) -> tuple[TaughtFlow, FakeTeacher]:
    teacher: Any = FakeTeacher()
    return TaughtFlow(teacher, (seed, 0)), teacher


def make_sample(step: int) -> Batch:
    return sample_batch()


def with_reference(batch: Batch, count: int) -> Batch:
    """Copies of a sample whose reference image is white."""
    many = Batch.join([batch] * count)
    return replace(many, reference=torch.ones_like(many.reference), reference_time=torch.full((count,), -0.2))


def constant_pairs(flow: Tensor, known: Tensor) -> FlowPairs:
    images = torch.rand(1, 3, *flow.shape[2:])
    return FlowPairs(images, images, flow, known)


class Constant(nn.Module):
    """Estimates of one flow (x, y), in pixels of the images, at half and at full resolution."""

    def __init__(self, x: float, y: float) -> None:
        super().__init__()
        self.flow = nn.Parameter(torch.tensor([float(x), float(y)]))

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        h, w = first.shape[2:]
        whole = self.flow[:, None, None].expand(2 * len(first), 2, h, w)
        return [whole[..., ::2, ::2] / 2, whole]


def test_pairs_have_the_teachers_flow_at_times_at_half_of_its_resolution() -> None:
    flows, _ = taught()
    scales = set()
    for _ in range(16):
        pairs = flows.pairs(make_sample, 0)
        scale = HEIGHT // pairs.first.shape[2]
        scales.add(scale)
        assert pairs.first.shape == pairs.second.shape == (1, 3, HEIGHT // scale, WIDTH // scale)
        assert pairs.flow.shape == (2, 2, HEIGHT // scale, WIDTH // scale)
        sign = pairs.flow[0, 0, 0, 0].sign()  # a mirror turns it around
        assert (pairs.flow[0, 0] == sign * FLOW / scale).all() and (pairs.flow[1, 0] == -sign * FLOW / scale).all()
        assert not pairs.flow[:, 1].any()
        # What leaves the image is not known: there FLOW pixels at one rim, back at the other.
        gone = int(FLOW) // scale
        there, back = pairs.known if sign > 0 else pairs.known.flip(-1)
        assert there[:, :-gone].all() and not there[:, -gone:].any()
        assert back[:, gone:].all() and not back[:, :gone].any()
    assert scales == {1, 2}


def test_a_source_image_is_beside_a_later_view_or_its_reference() -> None:
    flows, teacher = taught()
    batch = with_reference(sample_batch(), 32)
    flows.pairs(lambda step: batch, 0)
    ((first, second),) = teacher.asked
    assert torch.equal(first, batch.images[:, 0])
    white = (second == 1).flatten(1).all(1)
    assert 4 < white.sum() < 28
    assert torch.equal(second[~white], batch.images[:, 1][~white])
    alone = replace(batch, reference_time=torch.full((32,), torch.nan))  # none has a reference image
    flows.pairs(lambda step: alone, 0)
    assert torch.equal(teacher.asked[1][1], batch.images[:, 1])


def test_the_teacher_is_asked_for_some_of_the_steps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taught_flow, "KEPT", 3)
    flows, teacher = taught()
    for step in range(5 * REUSED):
        flows.pairs(make_sample, step)
        assert len(flows.kept) == min(3, 1 + step // REUSED)
    assert len(teacher.asked) == 5 < KEPT
    resumed, other = taught()
    resumed.pairs(make_sample, REUSED + 1)  # nothing is kept yet
    assert len(other.asked) == 1


def test_the_same_pair_comes_in_other_colours_and_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taught_flow, "HALVED", 0)
    flows, _ = taught()
    batch = sample_batch()
    drawn = [flows.pairs(lambda step: batch, 1) for _ in range(12)]
    assert len(flows.kept) == 1
    kept = flows.kept[0]
    assert {bool(pairs.flow[0, 0, 0, 0] > 0) for pairs in drawn} == {True, False}
    for pairs in drawn:
        straight = pairs if pairs.flow[0, 0, 0, 0] > 0 else pairs.mirrored()
        assert torch.equal(straight.flow, kept.flow) and torch.equal(straight.known, kept.known)
        for image, own in ((straight.first, kept.first), (straight.second, kept.second)):
            assert not torch.equal(image, own)
            assert (image - own).abs().mean() < 0.2
    assert not torch.equal(drawn[0].first, drawn[1].first)


def test_two_mirrors_show_the_pairs_as_they_are() -> None:
    flows, _ = taught()
    pairs = flows.pairs(make_sample, 0)
    again = pairs.mirrored().mirrored()
    assert all(torch.equal(getattr(again, name), value) for name, value in vars(pairs).items())


def test_the_loss_is_least_for_the_true_flow_at_every_resolution() -> None:
    flow = torch.tensor([3.0, -1.0])[None, :, None, None].expand(2, 2, 8, 16)
    pairs = constant_pairs(flow, torch.ones(2, 8, 16, dtype=torch.bool))
    exact, parts = flow_loss(Constant(3, -1), pairs)
    assert parts["pixels"] == 0 and parts.keys() == {"flow", "pixels"}
    network = Constant(6, 3)
    wrong, parts = flow_loss(network, pairs)
    assert wrong > 2 * exact and parts["pixels"] == pytest.approx(5)
    wrong.backward()
    assert network.flow.grad is not None and (network.flow.grad > 0).all()


def test_flow_that_the_way_back_contradicts_counts_less() -> None:
    flow, known = torch.zeros(2, 2, 8, 16), torch.ones(2, 8, 16, dtype=torch.bool)
    flow[..., 8:] = 9
    both, _ = flow_loss(Constant(0, 0), constant_pairs(flow, known))
    known[..., 8:] = False
    less, parts = flow_loss(Constant(0, 0), constant_pairs(flow, known))
    assert less < both and parts["pixels"] == 0  # measured on what is known
    _, parts = flow_loss(Constant(0, 0), constant_pairs(flow, torch.zeros_like(known)))
    assert parts["pixels"] == 0


def test_the_network_learns_the_teachers_flow() -> None:
    torch.manual_seed(0)
    network, (flows, _) = OpticalFlow(), taught()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, fused=True)
    batch = sample_batch()
    losses = []
    for step in range(30):
        loss, parts = flow_loss(network, flows.pairs(lambda step: batch, step))
        parts |= loop.optimizer_step(loss, network, optimizer)
        assert not parts["skipped"]
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.fixture
def flow_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingConfig:
    """Training of flow alone by a fake teacher, which makes no labels of clips."""
    monkeypatch.setattr(loop, "WIDE", SIZE)
    monkeypatch.setattr(loop, "WARM_UP", 1)
    monkeypatch.setattr(synthetic_data, "MADE_AT_ONCE", 1)
    fake = SimpleNamespace(network=FakeTeacher().network, is_own=lambda number: True)
    monkeypatch.setattr(sources, "FlowTeacher", lambda *arguments: fake)
    torch.manual_seed(1)
    start = tmp_path / "start.safetensors"
    save_weights(Network(), start)
    return TrainingConfig(
        out=tmp_path / "out.safetensors", steps=2, batch=0, synthetic_batch=1, synthetic_pool=2, targets=1,
        device="cpu", only="flow", weights=start, flow_teacher=tmp_path / "teacher.pth", ema=0.0, rate=1e-2,
    )  # fmt: skip


def test_flow_alone_is_trained_and_all_else_stays_bit_for_bit(flow_config: TrainingConfig) -> None:
    assert flow_config.weights is not None
    before, after = load_file(flow_config.weights), load_file(loop.train(flow_config, []))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("flow.") for name in changed)
    assert changed == {f"flow.{name}" for name, _ in OpticalFlow().named_parameters()}


def test_training_flow_reads_images_only(flow_config: TrainingConfig) -> None:
    log = flow_config.out.with_name("street.mcap")
    write_street_log(log, frames=6, size=(96, 48), progress=False)
    config = replace(flow_config, sources=(TrainingSource(log),), batch=8, synthetic_batch=0)
    batch = TrainingData(config, 0, torch.device("cpu"), SIZE, SIZE).batch(0)
    assert batch.images.any() and batch.has_reference.any()
    assert not batch.depth.any() and not batch.matched.any() and batch.flow.isnan().all()
    assert (batch.object_ids == -1).all()


def test_training_flow_makes_only_the_batches_that_it_uses(
    flow_config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, make = list[int](), TrainingData.batch

    def batch(self: TrainingData, step: int) -> Batch:
        made.append(step)
        return make(self, step)

    monkeypatch.setattr(TrainingData, "batch", batch)
    loop.train(replace(flow_config, steps=2 * REUSED), [])
    assert made == [0, REUSED]


def test_only_flow_needs_a_teacher(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="flow_teacher"):
        TrainingConfig(out=tmp_path / "out.safetensors", only="flow", weights=tmp_path / "start.safetensors")


def test_other_training_leaves_the_flow_network_alone() -> None:
    network = Network()
    loop.build_optimizer(network, TrainingConfig(out=Path("out.safetensors"), device="cpu"))
    assert not any(parameter.requires_grad for parameter in network.flow.parameters())
