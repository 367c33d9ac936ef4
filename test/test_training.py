"""Training: losses vanish where they should, and the loop runs, alone and in company."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from torch import Tensor

from pixel4d_ros.predictor.checkpoint import load_weights
from pixel4d_ros.predictor.maps import PixelMaps
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.predictor.objects import LINEAR_SCALE, OFFSET_SCALE
from pixel4d_ros.predictor.posterior import Latent
from pixel4d_ros.training import loop, losses, synthetic_data
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.config import TrainingConfig
from pixel4d_ros.training.rendering import Prediction, predict_views, training_canvas

SIZE = (64, 32)


def test_joined_batches_pad_their_objects() -> None:
    some, none = sample_batch(objects=2), sample_batch(objects=0)
    both = Batch.join([some, none])
    assert both.motions.shape == (2, 3, 4, 3) and both.centroids.shape == (2, 3, 3)
    assert torch.equal(both.part(0, 1).motions, some.motions)
    assert not both.part(1, 2).motions.any()


def sample_batch(objects: int = 1) -> Batch:
    """One sample of 64 x 32 pixels in two views; object k is a square that drives at k m/s to the right."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 2, 3, 32, 64, generator=generator)
    ids = torch.zeros(1, 32, 64, dtype=torch.long)
    motions = torch.zeros(1, objects + 1, 4, 3)
    for k in range(1, objects + 1):
        ids[0, 8:20, 20 * k : 20 * k + 12] = k
        motions[0, k, 0, 0] = k
    K = torch.tensor([[60.0, 0, 32], [0, 60, 16], [0, 0, 1]]).expand(1, 2, 3, 3)
    depth = torch.full((1, 32, 64), 8.0)
    centroids = torch.zeros(1, objects + 1, 3)
    eye = torch.eye(4).expand(1, 2, 4, 4)
    flow, speed = torch.zeros(1, 2, 32, 64), torch.tensor([0.0])
    return Batch(images, K, eye, torch.tensor([[0.0, 0.5]]), depth, ids, motions, centroids, flow, speed)


def perfect_prediction(batch: Batch) -> Prediction:
    """Votes and motion that are exactly those of the batch's objects."""
    canvas = training_canvas(*SIZE)
    h, w = canvas.height // 4, canvas.width // 4
    offset, motion, center = torch.zeros(1, 2, h, w), torch.zeros(1, 4, 3, h, w), torch.zeros(1, 1, h, w)
    ids = batch.object_ids[0, 2::4, 2::4]
    for k in range(1, batch.motions.shape[1]):
        rows, columns = torch.nonzero(ids == k).T
        where = (rows + canvas.top // 4, columns + canvas.left // 4)
        offset[0, 0][where] = (columns.float().mean() - columns) / OFFSET_SCALE
        offset[0, 1][where] = (rows.float().mean() - rows) / OFFSET_SCALE
        motion[0][:, :, where[0], where[1]] = batch.motions[0, k][..., None]
    still = torch.zeros(1, 12, h, w)
    maps = PixelMaps({}, {"center": center, "offset": offset}, still[:, None], still, still)
    return Prediction(batch.images, maps, motion, torch.ones(1), canvas, None, batch.flow.clone(), batch.flow.clone())


def test_equal_images_cost_nothing() -> None:
    images = torch.rand(2, 3, 3, 32, 64)
    assert losses.color_loss(images, images).item() == pytest.approx(0, abs=1e-5)
    assert losses.similarity(images[0], images[0]).item() == pytest.approx(1, abs=1e-5)
    assert losses.color_loss(images + 0.1, images).item() > 0.1


def test_true_depth_costs_nothing_and_the_unknown_is_left_out() -> None:
    truth = torch.rand(2, 16, 24) * 30 + 1
    truth[0, :4], truth[1, 5] = torch.inf, 0
    limit = torch.full((2, 1, 1), 250.0)
    right = torch.where(truth == 0, 77.0, truth.clamp(max=250.0))
    assert losses.depth_loss(right, truth, limit).item() == pytest.approx(0, abs=1e-6)
    assert losses.depth_edge_loss(right, truth, limit).item() == pytest.approx(0, abs=1e-6)
    # Ten percent too far everywhere: the relative error counts, and edges are where they should be.
    assert losses.depth_loss(right * 1.1, truth, limit).item() == pytest.approx(math.log(1.1), rel=1e-4)
    assert losses.depth_edge_loss(right * 1.1, truth, limit).item() == pytest.approx(0, abs=1e-5)
    nothing = torch.zeros(2, 16, 24)
    assert losses.depth_loss(right, nothing, limit).item() == 0


def test_planes_are_smooth_and_steps_are_not() -> None:
    row, column = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    plane, flat = (0.02 + 0.01 * row + 0.003 * column)[None], torch.full((1, 3, 16, 24), 0.5)
    assert losses.smoothness_loss(plane, flat).item() == pytest.approx(0, abs=1e-5)
    step = torch.where(column > 11, 0.5, 0.1)[None]
    edge = torch.where(column > 11, 0.9, 0.1).expand(1, 3, 16, 24)
    assert losses.smoothness_loss(step, flat) > 10 * losses.smoothness_loss(step, edge)


def test_mobility_is_judged_only_where_it_is_known() -> None:
    ids = torch.tensor([[[0, 0, 1, 2]]])
    sure = torch.tensor([[[-20.0, -20, 20, 20]]])
    assert losses.mobility_loss(sure, ids).item() == pytest.approx(0, abs=1e-6)
    assert losses.mobility_loss(-sure, ids).item() > 10
    # What nobody knows counts as standing, but hardly against what is known.
    half_known = torch.cat((ids, torch.full_like(ids, -1)), 2)
    wrong = torch.cat((sure, torch.full_like(sure, 20)), 2)
    assert 0 < losses.mobility_loss(wrong, half_known).item() < 1
    assert losses.mobility_loss(-sure, ids).item() > 10


def test_right_votes_and_motion_cost_nothing() -> None:
    batch = sample_batch(objects=2)
    batch.object_ids[batch.object_ids == 0] = -1
    prediction = perfect_prediction(batch)
    best = losses.object_loss(prediction, batch).item()  # of the heat map, which no logits match exactly
    prediction.motion[:, 0, 2] += 1.0
    assert losses.object_loss(prediction, batch).item() - best == pytest.approx(1 / LINEAR_SCALE, rel=1e-5)
    prediction.motion[:, 0, 2] -= 1.0
    prediction.maps.objects["offset"] += 0.25
    assert losses.object_loss(prediction, batch).item() - best == pytest.approx(0.25, rel=1e-5)


def test_a_centre_where_the_object_is_costs_least() -> None:
    batch = sample_batch(objects=1)

    def cost(row: int, column: int) -> float:
        prediction = perfect_prediction(batch)
        center = prediction.maps.objects["center"].fill_(-6.0)
        center[0, 0, row + prediction.canvas.top // 4, column + prediction.canvas.left // 4] = 4.0
        return losses.object_loss(prediction, batch).item()

    # Pixels 8..20 and 20..32 are quarter resolution rows 2..4 and columns 5..7.
    assert cost(3, 6) < min(cost(3, 12), cost(6, 6), cost(0, 0))


def test_scenes_without_objects_have_a_loss_too() -> None:
    batch = sample_batch(objects=0)
    prediction = perfect_prediction(batch)
    prediction.maps.objects["center"].fill_(-20.0)
    assert losses.object_loss(prediction, batch).item() == pytest.approx(0, abs=1e-6)


def test_a_latent_like_the_prior_costs_only_its_free_bits() -> None:
    zeros = torch.zeros(2, 8, 2, 3)
    free = 8 * losses.FREE_BITS
    assert losses.latent_loss(Latent(zeros, zeros)).item() == pytest.approx(free)
    assert losses.latent_loss(Latent(zeros + 1, zeros)).item() == pytest.approx(8 * 0.5)


def test_the_spread_that_the_motion_has_is_the_likeliest() -> None:
    batch = sample_batch(objects=1)  # 1 m/s to the right, where the mode stands still: one of 12 numbers is off

    def cost(spread: float) -> float:
        prediction = perfect_prediction(batch)
        prediction.maps.spread.fill_(losses.LEAST_SPREAD / LINEAR_SCALE)
        prediction.maps.spread[:, 0] = spread / LINEAR_SCALE
        return losses.spread_loss(prediction, batch).item()

    assert cost(1.0) < min(cost(0.5), cost(2.0))


def test_unknown_pixels_teach_nothing() -> None:
    batch = sample_batch(objects=2)
    batch.object_ids[:, 16:] = -1
    batch.motions[0, 1, 1:] = torch.nan  # of object 1 the velocity is known, of object 2 nothing
    batch.motions[0, 2] = torch.nan
    prediction = perfect_prediction(sample_batch(objects=2))
    maps, canvas = prediction.maps, prediction.canvas
    prediction.motion.add_(0.1)
    mobility = torch.zeros(1, 32, 64)
    learned = [mobility, prediction.motion, maps.objects["center"], maps.objects["offset"], maps.spread]
    for tensor in learned:
        tensor.requires_grad_()
    loss = losses.mobility_loss(mobility, batch.object_ids) + losses.object_loss(prediction, batch)
    (loss + losses.spread_loss(prediction, batch)).backward()
    gradients = [tensor.grad for tensor in learned]
    assert all(g is not None and torch.isfinite(g).all() and g.any() for g in gradients)
    told, motion, center, offset, spread = (g.flatten(1, -3) if g.ndim > 3 else g for g in gradients if g is not None)
    assert told[:, :16].all() and told[:, 16:].abs().max() < 0.1 * told[:, :16].abs().min()
    row, column = canvas.top // 4, canvas.left // 4
    lower = slice(row + 4, row + 8)
    assert center[:, :, row : row + 4, column : column + 16].all() and not center[:, :, lower].any()
    assert not offset[:, :, lower].any() and not motion[:, :, lower].any() and not spread[:, :, lower].any()
    for gradient in (motion[0, :, row + 2 : row + 4], spread[0, :, row + 2 : row + 4]):
        first, second = gradient[..., column + 5 : column + 8], gradient[..., column + 10 : column + 13]
        assert first[:3].all() and not first[3:].any() and not second.any()


def test_flow_as_predicted_costs_next_to_nothing() -> None:
    batch = sample_batch(objects=0)
    prediction = perfect_prediction(batch)
    ids = torch.zeros(1, 32, 64, dtype=torch.long)
    right = losses.flow_loss(prediction, batch.flow, ids)
    assert right.item() == pytest.approx(math.log(1.1), abs=1e-3)  # a distance is taken as 0.1 pixels at least
    assert losses.flow_loss(prediction, batch.flow + 3, ids) > right + 1
    assert losses.flow_loss(prediction, batch.flow + torch.nan, ids).item() == 0


def test_flow_is_explained_by_motion_where_that_is_known_or_likely() -> None:
    batch = sample_batch(objects=0)
    prediction = replace(perfect_prediction(batch), flow=torch.full((1, 2, 32, 64), 3.0))
    measured, ids = torch.full((1, 2, 32, 64), 3.0), torch.zeros(1, 32, 64, dtype=torch.long)
    right = pytest.approx(math.log(1.1), abs=1e-3)
    assert losses.flow_loss(prediction, measured, ids + 1).item() == right
    assert losses.flow_loss(prediction, measured, ids - 1, guess=True).item() == right
    assert losses.flow_loss(prediction, batch.flow, ids - 1, guess=True).item() == right
    for unmoved in (ids, ids - 1):
        assert losses.flow_loss(prediction, measured, unmoved).item() > 1


@pytest.mark.parametrize("part", ["hidden", "padding", "motion", "latent"])
def test_parts_can_be_left_out(part: str) -> None:
    torch.manual_seed(0)
    batch, use_prior = sample_batch(), torch.zeros(1, dtype=torch.bool)
    maps = predict_views(Network((part,)).train(), batch, 1.0, use_prior).maps
    canvas = training_canvas(*SIZE)
    if part == "hidden":
        assert torch.sigmoid(maps.static["hidden_opacity"]).max() < 1e-9
    elif part == "padding":
        inside = canvas.inside(torch.device("cpu")) > 0
        opacity = torch.sigmoid(maps.static["opacity"])[0, 0]
        assert opacity[~inside].max() < 1e-9 and opacity[inside].min() > 1e-3
    elif part == "motion":
        assert torch.sigmoid(maps.static["mobility"]).max() < 1e-9
    else:
        torch.testing.assert_close(maps.motion[:, 0], maps.mode)


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"wheels.*hidden, padding, motion, latent"):
        Network(("wheels",))


# The loop


def tiny_config(out: Path, steps: int = 2) -> TrainingConfig:
    return TrainingConfig(
        out=out, steps=steps, batch=0, synthetic_batch=1, synthetic_pool=2, targets=1, widen=1.0, device="cpu"
    )


def test_every_parameter_gets_a_finite_gradient() -> None:
    torch.manual_seed(0)
    network, batch = Network().train(), sample_batch()
    prediction = predict_views(network, batch, 1.0, torch.zeros(1, dtype=torch.bool))
    assert prediction.views.shape == (1, 2, 3, 32, 64)
    total, parts = losses.total_loss(prediction, batch, 0.5)
    total.backward()
    assert all(math.isfinite(value) for value in parts.values())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_a_short_training_writes_weights_that_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "WIDE", SIZE)
    monkeypatch.setattr(loop, "WARM_UP", 1)
    monkeypatch.setattr(synthetic_data, "MADE_AT_ONCE", 1)  # renders less
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


def test_a_step_that_is_not_finite_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), 0.1)
    before = layer.weight.clone()
    monkeypatch.setattr(loop, "predict_views", lambda network, *rest: network)

    def not_finite(network: torch.nn.Linear, *rest: object) -> tuple[Tensor, dict[str, Tensor]]:
        return (network.weight * math.inf).sum(), {}

    monkeypatch.setattr(loop, "total_loss", not_finite)
    parts = loop._step(layer, optimizer, sample_batch(), tiny_config(Path()), 0.5)
    assert parts["skipped"] == 1
    assert torch.equal(layer.weight, before)


WORKER = """
import os
import sys
from pathlib import Path
import torch
from pixel4d_ros.training import loop, synthetic_data
from pixel4d_ros.training.config import TrainingConfig

loop.WIDE, loop.WARM_UP, synthetic_data.MADE_AT_ONCE = (64, 32), 1, 1
networks = []
make_optimizer = loop._optimizer
loop._optimizer = lambda network, config: networks.append(network) or make_optimizer(network, config)
out = Path(sys.argv[1])
config = TrainingConfig(
    out=out / "weights.safetensors", steps=2, batch=0, synthetic_batch=1, synthetic_pool=2, targets=1, device="cpu"
)
torch.set_num_threads(1)
loop.train(config, [])
parameters = torch.nn.utils.parameters_to_vector(networks[0].parameters()).detach()
torch.save(parameters, out / f"rank{os.environ['RANK']}.pt")
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script, tmp_path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 x cpu" in done.stdout
    ranks = [torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in (0, 1)]
    assert torch.equal(*ranks)
    load_weights(Network(), tmp_path / "weights.safetensors")
