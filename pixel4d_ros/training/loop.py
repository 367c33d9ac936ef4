"""The training loop: CPU, one GPU or several (DDP), bf16, weight averaging, a log to validate on, never trained on."""

from __future__ import annotations

import math
import os
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.predictor.checkpoint import load_weights, save_weights
from pixel4d_ros.predictor.encoder import load_backbone
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.config import TrainingConfig
from pixel4d_ros.training.losses import total_loss
from pixel4d_ros.training.real_data import RealData, is_room, read_stereo_folder
from pixel4d_ros.training.rendering import predict_views
from pixel4d_ros.training.synthetic_data import SyntheticData
from pixel4d_ros.training.validation import validate

WIDE, TALL = (416, 128), (256, 208)  # crops for roads and rooms: fixed shapes, about the same number of pixels
TALL_EVERY = 4  # every so many steps trains on rooms, if there are any
WARM_UP = 200  # steps
WIDE_UNTIL = 0.35  # share of the run over which the Gaussians narrow
REPORT_EVERY = 100  # steps


def train(config: TrainingConfig, logs: list[Path]) -> Path:
    """Train on logs (and whatever else the config names) and return the path of the EMA weights.

    Under torchrun every process trains on its own GPU and its own samples, and gradients are averaged.
    """
    device, rank, world = _join_processes(config)
    torch.manual_seed(config.seed + rank)
    torch.backends.cudnn.benchmark = True
    rng = np.random.default_rng((config.seed, rank))
    roads, rooms = _real_data(config, logs, rng, device)
    synthetic = SyntheticData(config.synthetic_batch, config.targets + 1, WIDE, config.synthetic_pool, rng, device)
    network = _network(config).to(device).train()
    average = deepcopy(network).eval().requires_grad_(False)
    parallel = DistributedDataParallel(network) if world > 1 else network
    optimizer = _optimizer(network, config)
    peaks = [group["lr"] for group in optimizer.param_groups]

    started, sums, step = time.monotonic(), dict[str, Tensor](), 0
    bar = tqdm(total=config.steps, unit="step", mininterval=5, disable=rank > 0)
    while (progress := _progress(config, step, started, world)) < 1:
        for group, peak in zip(optimizer.param_groups, peaks):
            group["lr"] = peak * _rate(config, progress) * min(1, (step + 1) / WARM_UP)
        batch = _draw(config, step, roads, rooms, synthetic)
        parts = _step(parallel, optimizer, batch, config, progress)
        # The average forgets its start quickly, unless that start is a trained network.
        _average(average, network, config.ema if config.weights else min(config.ema, 1 - 10 / (step + 11)))
        sums = {k: sums.get(k, torch.zeros(())) + v for k, v in parts.items()}
        step += 1
        bar.update()
        if step % REPORT_EVERY == 0:
            line = " ".join(f"{k} {float(v) / REPORT_EVERY:.4f}" for k, v in sums.items())
            bar.write(f"step {step} {time.monotonic() - started:.0f}s {line}")
            sums = {}
        if config.validate and rank == 0 and step % (30 * REPORT_EVERY) == 0:
            bar.write(f"step {step} {validate(average, config.validate, device)}")
    bar.close()
    rate = step / (time.monotonic() - started)
    if rank == 0:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        save_weights(average, config.out, {"steps": str(step), "processes": str(world)})
        print(f"{step} steps, {rate:.1f} a second, {world} x {device.type}: {config.out}")
        if config.validate:
            print(f"final {validate(average, config.validate, device)}")
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()
    return config.out


def _join_processes(config: TrainingConfig) -> tuple[torch.device, int, int]:
    """Device, rank and number of processes; torchrun says them through the environment."""
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return torch.device(kind), 0, 1
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if kind == "cuda":
        torch.cuda.set_device(local)
        kind = f"cuda:{local}"
    dist.init_process_group("cpu:gloo,cuda:nccl" if kind.startswith("cuda") else "gloo")
    return torch.device(kind), rank, world


def _network(config: TrainingConfig) -> Network:
    network = Network()
    if config.weights is not None:
        load_weights(network, config.weights)
    elif config.backbone is not None:
        network.encoder.load_imagenet(load_backbone(str(config.backbone)))
    return network


def _real_data(
    config: TrainingConfig, logs: list[Path], rng: np.random.Generator, device: torch.device
) -> tuple[RealData | None, RealData | None]:
    """Roads (driving logs and stereo pairs) and rooms: they are trained in crops of different shapes."""
    clips = [read_clip(path) for path in tqdm(logs, desc="reading logs", unit="log")]
    roads = [c for c in clips if not is_room(c)]
    if config.stereo is not None:
        roads += read_stereo_folder(config.stereo)
    rooms = [c for c in clips if is_room(c)]
    return RealData(roads, rng, device) if roads else None, RealData(rooms, rng, device) if rooms else None


def _draw(
    config: TrainingConfig, step: int, roads: RealData | None, rooms: RealData | None, synthetic: SyntheticData
) -> Batch:
    views = config.targets + 1
    if rooms is not None and (roads is None or step % TALL_EVERY == TALL_EVERY - 1):
        return rooms.batch(config.batch + config.synthetic_batch, views, TALL)
    parts = [] if roads is None else [roads.batch(config.batch, views, WIDE)]
    if config.synthetic_batch:
        parts.append(synthetic.batch())
    return Batch.join(parts)


def _optimizer(network: Network, config: TrainingConfig) -> torch.optim.AdamW:
    encoder = list(network.encoder.parameters())
    known = {id(p) for p in encoder}
    rest = [p for p in network.parameters() if id(p) not in known]
    groups = [{"params": encoder, "lr": config.rate / 10}, {"params": rest, "lr": config.rate}]
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, betas=(0.9, 0.99))


def _progress(config: TrainingConfig, step: int, started: float, world: int) -> float:
    """Share of the run that is over, 0 to 1, by steps or by time; all processes go by the first one's clock."""
    spent = (time.monotonic() - started) / (60 * config.minutes) if config.minutes else 0.0
    progress = torch.tensor(max(step / config.steps, spent), dtype=torch.float64)
    if world > 1:
        dist.broadcast(progress, 0)
    return float(progress)


def _rate(config: TrainingConfig, progress: float) -> float:
    """Cosine from rate_from to rate_to."""
    return config.rate_to + (config.rate_from - config.rate_to) * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def _step(
    network: nn.Module, optimizer: torch.optim.AdamW, batch: Batch, config: TrainingConfig, progress: float
) -> dict[str, Tensor]:
    widen = 1 + (config.widen - 1) * max(0.0, 1 - progress / WIDE_UNTIL)
    use_prior = torch.rand(len(batch.images), device=batch.images.device) < 0.5
    prediction = predict_views(network, batch, widen, use_prior)
    loss, parts = total_loss(prediction, batch, config.depth_weight)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    finite = torch.isfinite(norm)
    if finite:
        optimizer.step()
    return {**parts, "skipped": (~finite).cpu()}


@torch.no_grad()
def _average(average: Network, network: Network, decay: float) -> None:
    pairs = [(a, p) for a, p in zip(average.parameters(), network.parameters())]
    old: list[Tensor] = [a for a, _ in pairs]
    torch._foreach_lerp_(old, [p.detach() for _, p in pairs], 1 - decay)
